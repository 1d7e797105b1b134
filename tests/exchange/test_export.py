"""What `export` writes is a model that every command takes, and that gives what the run gives."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest

import ds2_jax
from ds2_jax import cli
from ds2_jax.config import Config
from ds2_jax.decoding.calibration import UNCALIBRATED
from ds2_jax.engines import stages
from ds2_jax.exchange import layouts
from ds2_jax.exchange.export import export, without_places
from ds2_jax.exchange.target import Target
from ds2_jax.runs import run_folder
from ds2_jax.runs.fitted import Tuned, read_calibration, read_tuned, write_tuned
from ds2_jax.runs.model import open_model, read_config, read_variables
from ds2_jax.runs.weights import weights_of
from ds2_jax.system.caches import cache_folder
from ds2_jax.system.errors import InputError
from tests.small_runs import (
    SMALL_CONFIG,
    some_state,
    with_manifests,
    write_noise,
    write_noise_manifest,
    write_untrained_run,
)

FORWARD = dataclasses.replace(
    SMALL_CONFIG,
    features=dataclasses.replace(SMALL_CONFIG.features, normalisation="running"),
    model=dataclasses.replace(SMALL_CONFIG.model, bidirectional=False, lookahead_context=3),
)


def write_run(folder: Path, config: Config = SMALL_CONFIG) -> Path:
    """Writes a run with weights whose output depends on the input, and with a test split."""
    config = with_manifests(config, write_noise_manifest(folder))
    state = some_state(config)
    state = dataclasses.replace(state, params=jax.tree.map(lambda leaf: 4 * leaf, state.params))
    return write_untrained_run(folder / "run", config, state)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """The folder that `export` writes for the run."""
    assert cli.main(["export", str(run), "--out", str(run.parent / "out")]) == 0
    return run.parent / "out"


def test_it_tells_what_it_wrote_and_how_near_it_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compared on all.jsonl: 3 of 3 texts are the same"
    assert float(lines[1].removeprefix("largest difference in log-probability: ")) < 1e-4
    assert lines[2].startswith("WER ")
    assert [Path(line.split("  ")[0]).name for line in lines[3:]] == [
        *("config.json", "model.safetensors", "model.onnx", "README.md")
    ]


def test_the_folder_and_each_file_recognise_as_the_run_does(run: Path, exported: Path, tmp_path: Path) -> None:
    audio = write_noise(tmp_path / "a.wav", 1.3, seed=5)
    wanted = ds2_jax.load(run, engine="jax").log_probs(audio)
    for model in (run, exported, exported / "model.onnx", exported / "model.safetensors"):
        np.testing.assert_allclose(ds2_jax.load(model).log_probs(audio), wanted, rtol=0, atol=1e-4)
    for model in (exported, exported / "model.safetensors"):
        np.testing.assert_allclose(ds2_jax.load(model, engine="jax").log_probs(audio), wanted, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"model\.onnx, got jax\. Give the folder that holds its model\.safetensors\."):
        ds2_jax.load(exported / "model.onnx", engine="jax")


def test_weights_and_settings_are_kept_bit_for_bit(run: Path, exported: Path) -> None:
    config = read_config(run)
    assert read_config(exported) == without_places(config)
    jax.tree.map(np.testing.assert_array_equal, read_variables(exported, config), read_variables(run, config))


def test_no_path_of_this_machine_is_written(run: Path, tmp_path: Path) -> None:
    """A published model must not tell where its owner keeps data."""
    write_tuned(run, "a" * 64, Tuned(str(run.parent / "lm.arpa"), 0.5, 1.0, 0.1, 0.05, 3, 0))
    try:
        assert cli.main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    finally:
        (run / run_folder.TUNED).unlink()
    alone = shutil.copy(tmp_path / "out/model.onnx", tmp_path)
    for model in (tmp_path / "out", Path(alone)):
        assert [each.lm for each in read_tuned(model).values()] == ["lm.arpa"]
    for file in (tmp_path / "out").rglob("*"):
        assert str(run.parent).encode() not in file.read_bytes(), file


def test_every_command_takes_the_folder(exported: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = str(run.parent / "all.jsonl")
    rates = []
    for words in (
        [str(run)],
        [str(exported)],
        [str(exported), "--engine", "onnx"],
        [str(exported / "model.onnx"), "--engine", "onnx"],
    ):
        assert cli.main(["evaluate", *words, "--manifest", manifest]) == 0
        rates.append(next(line for line in capsys.readouterr().out.splitlines() if "WER" in line))
    assert len(set(rates)) == 1
    assert list((exported / "evaluations").glob("*.json"))
    assert cli.main(["calibrate", str(exported), "--manifest", manifest]) == 0
    assert json.loads((exported / run_folder.CALIBRATION).read_text())["step"] == 0
    steps, digest = weights_of(exported, read_config(exported))
    assert steps == []
    assert len(digest) == 64


def test_calibration_travels(run: Path, tmp_path: Path) -> None:
    assert cli.main(["calibrate", str(run), "--manifest", str(run.parent / "all.jsonl")]) == 0
    saved = (run / run_folder.CALIBRATION).read_text()
    try:
        assert cli.main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    finally:
        (run / run_folder.CALIBRATION).unlink()
    assert (tmp_path / "out" / run_folder.CALIBRATION).read_text() == saved
    wanted = read_calibration(tmp_path / "out")
    assert wanted != UNCALIBRATED
    for name in ("model.onnx", "model.safetensors"):  # each alone
        alone = (tmp_path / "out" / name).rename(tmp_path / name)
        assert read_calibration(alone) == wanted


def test_a_forward_model_streams_from_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, FORWARD)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert float(printed.split("the same, step by step: ")[1].split()[0]) < 1e-4
    audio = write_noise(tmp_path / "a.wav", 3.0, seed=5)
    texts = []
    for model in (run, tmp_path / "out", tmp_path / "out/model.safetensors"):
        assert open_model(model).can_stream
        texts.append(ds2_jax.load(model).transcribe(audio).text)
    assert not open_model(tmp_path / "out/model.onnx").can_stream
    assert len(set(texts)) == 1
    assert texts[0]


@pytest.mark.parametrize("target", layouts.LAYOUTS)
def test_folders_of_other_programs(target: Target, run: Path, tmp_path: Path) -> None:
    """The programs themselves are in test_consumers.py."""
    out = tmp_path / "out"
    assert cli.main(["export", str(run), "--out", str(out), "--for", target]) == 0
    layout = layouts.LAYOUTS[target]
    model = onnx.load(out / layout.file)
    onnx.checker.check_model(model, full_check=True)
    names = [layout.waveforms, *([layout.num_samples] if layout.num_samples else [])]
    assert [each.name for each in model.graph.input] == names
    assert [each.name for each in model.graph.output] == [layout.log_probs]
    assert f"## Use with {target}" in (out / "README.md").read_text()


def test_stablehlo_gives_the_same_and_its_text_is_plain(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(run), "--out", str(tmp_path / "out"), "--format", "stablehlo"]) == 0
    assert "3 of 3 texts are the same" in capsys.readouterr().out
    text = (tmp_path / "out/model.mlir").read_text()
    assert "custom_call" not in text
    assert "stablehlo.fft" not in text  # other compilers refuse a length that is no power of two
    assert "tensor<?" not in text  # IREE refuses sizes that are not known


def test_int8_is_smaller_and_for_lstm_only(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gru = dataclasses.replace(SMALL_CONFIG, model=dataclasses.replace(SMALL_CONFIG.model, rnn_type="gru"))
    assert cli.main(["export", str(write_run(tmp_path, gru)), "--out", str(tmp_path / "out"), "--int8"]) == 1
    assert "--int8 must have LSTM layers, got a model of gru layers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_export_that_fails_leaves_an_empty_folder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.jsonl"):
        export(run, tmp_path / "out", int8=False, stablehlo=False, target=None, manifest=tmp_path / "no.jsonl")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_that_disagrees_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "EPSILON", 0.5)  # of batch normalisation
    assert cli.main(["export", str(run), "--out", str(tmp_path / "out")]) == 1
    assert "must give what" in capsys.readouterr().err


def test_an_existing_folder_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert cli.main(["export", str(run), "--out", str(tmp_path)]) == 1
    assert f"--out must be an empty or new folder, got {tmp_path}." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_without_data_is_compared_on_made_speech(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_untrained_run(tmp_path / "run", SMALL_CONFIG)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert "compared on 8 made utterances" in capsys.readouterr().out
    assert "Not measured" in (tmp_path / "out/README.md").read_text()


def test_float16_halves_the_weights_and_every_file_has_the_rounded_ones(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert cli.main(["export", str(run), "--float16", "--out", str(out)]) == 0
    weights = out / "model.safetensors"
    assert weights.stat().st_size < 0.6 * (exported / "model.safetensors").stat().st_size
    assert "rounded to 16 bits" in (out / "README.md").read_text()
    audio = write_noise(tmp_path / "a.wav", 1.3, seed=5)
    wanted = ds2_jax.load(run).log_probs(audio)
    from_weights, from_graph = (ds2_jax.load(model).log_probs(audio) for model in (weights, out / "model.onnx"))
    np.testing.assert_allclose(from_weights, from_graph, rtol=0, atol=1e-5)
    assert 1e-6 < np.abs(from_weights - wanted).max() < 0.1
    again = tmp_path / "again"  # the rounded weights are what the file holds
    assert cli.main(["export", str(weights), "--float16", "--out", str(again)]) == 0
    one, other = (jax.tree.leaves(read_variables(each, read_config(each))) for each in (weights, again))
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_weights_too_large_for_16_bits_are_refused(tmp_path: Path) -> None:
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path))
    state = some_state(config)
    state = dataclasses.replace(state, params=jax.tree.map(lambda leaf: 1e7 * leaf, state.params))
    run = write_untrained_run(tmp_path / "run", config, state)
    with pytest.raises(InputError, match="--float16 must have weights below 65,504"):
        export(run, tmp_path / "out", int8=False, float16=True, stablehlo=False, target=None, manifest=None)
    assert not (tmp_path / "out").exists()


def test_the_graph_of_a_weights_file_is_made_once(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caplog.set_level("INFO")
    audio = write_noise(tmp_path / "a.wav", 1.3, seed=5)
    first, second = (ds2_jax.load(exported / "model.safetensors").log_probs(audio) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert caplog.text.count("converting") == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(audio))  # no folder: recognition goes on without a cache
    np.testing.assert_array_equal(ds2_jax.load(exported / "model.safetensors").log_probs(audio), first)
    assert "converted again at each start" in caplog.text


def test_the_cache_of_graphs_does_not_grow_without_end(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = cache_folder(run_folder.GRAPHS)
    for i in range(20):
        (folder / f"whole-{i}.onnx").touch()
        os.utime(folder / f"whole-{i}.onnx", (i, i))
    ds2_jax.load(exported / "model.safetensors").log_probs(write_noise(tmp_path / "a.wav", 0.5))
    kept = {path.name for path in folder.iterdir()}
    assert len(kept) == 8
    assert {f"whole-{i}.onnx" for i in range(13, 20)} <= kept

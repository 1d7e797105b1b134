"""Checkpoints of deepspeech.pytorch become models that give what the original gave."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.engines import pytorch
from ds2_jax.exchange.deepspeech_pytorch import OLD_SCALE, translate
from ds2_jax.model.inference import make_model
from ds2_jax.runs.model import open_model, read_config, read_variables
from ds2_jax.system.errors import InputError
from tests.exchange.checkpoints import (
    CONTAINERS,
    LABELS,
    Array,
    legacy,
    lightning,
    ordered,
    package,
    package_2_1,
    state_dict,
    zipped,
)
from tests.golden import inputs
from tests.golden.test_golden import MODEL, assert_close, stored
from tests.small_runs import noise

NAMES = ("bidirectional_lstm", "unidirectional_gru")
CASE = inputs.MODEL_CASES["bidirectional_lstm"]
FORWARD = inputs.MODEL_CASES["unidirectional_gru"]


def written(folder: Path, content: bytes, name: str = "model.pth") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def imported(folder: Path, content: bytes, *options: str) -> Path:
    assert cli.main(["import", str(written(folder, content)), "--out", str(folder / "run"), *options]) == 0
    return folder / "run"


def logits_of(run: Path, spectrograms: np.ndarray, num_frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    config = read_config(run)
    model = make_model(config, len(config.data.alphabet) + 1)
    logits, lengths = jax.jit(model.apply)(read_variables(run, config), spectrograms, num_frames)
    return np.asarray(logits), np.asarray(lengths)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_logits_are_those_of_pytorch(container: str, name: str, tmp_path: Path) -> None:
    case, expected = inputs.MODEL_CASES[name], stored("model", name)
    run = imported(tmp_path, CONTAINERS[container](case))
    logits, lengths = logits_of(run, inputs.spectrograms(case), np.array(case.num_frames_of_rows, np.int32))
    assert lengths.tolist() == expected["output_lengths"].tolist()
    mask = np.arange(logits.shape[1])[None, :, None] < lengths[:, None, None]
    assert_close(np.where(mask, logits, 0), np.where(mask, expected["logits"], 0), MODEL)


def test_the_originals_own_files(original_checkpoints: list[Path], tmp_path: Path) -> None:
    for path in original_checkpoints:
        with np.load(path.with_suffix(".npz")) as expected:
            assert cli.main(["import", str(path), "--out", str(tmp_path / path.stem)]) == 0
            spectrograms = expected["spectrograms"].swapaxes(1, 2)
            logits, lengths = logits_of(tmp_path / path.stem, spectrograms, expected["num_frames"].astype(np.int32))
            assert lengths.tolist() == expected["output_lengths"].tolist()
            for row, length in enumerate(lengths):
                assert_close(logits[row, :length], expected["logits"][row, :length], 1e-5, path.name)


@pytest.mark.parametrize(
    ("content", "edges", "symmetric", "scale"),
    [
        (lambda: legacy(package(CASE)), "reflected", True, OLD_SCALE),
        (lambda: zipped(package_2_1(CASE)), "reflected", False, OLD_SCALE),
        (lambda: zipped(lightning(CASE, "1.1.1")), "reflected", False, 1.0),
        (lambda: zipped(lightning(CASE, "1.6.0")), "zeros", False, 1.0),
        (lambda: zipped(lightning(CASE, "2.6.6")), "zeros", False, 1.0),
    ],
)
def test_features_are_those_of_the_version(
    content: Callable[[], bytes], edges: str, symmetric: bool, scale: float, tmp_path: Path
) -> None:
    features = read_config(imported(tmp_path, content())).features
    assert (features.edges, features.symmetric_window, features.scale) == (edges, symmetric, scale)


def test_the_file_is_recorded_and_both_engines_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = imported(tmp_path, CONTAINERS["v2.0"](CASE))
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == (
        "deepspeech.pytorch v2.0: 3 x 8 lstm, both directions, 16000 Hz, 28 characters"
    )
    assert output.err == ""
    origin = json.loads((run / "origin.json").read_text())
    assert (origin["file"], origin["made_by"]) == ("model.pth", "deepspeech.pytorch v2.0")
    waveforms, lengths = np.stack([noise(1.0), noise(1.0, 1)]), np.array([16_000, 9001], np.int32)
    ours, theirs = (open_model(run, engine).log_probs(waveforms, lengths) for engine in ("jax", "onnx"))
    assert ours[1].tolist() == theirs[1].tolist()
    for row, length in enumerate(ours[1]):
        np.testing.assert_allclose(ours[0][row, :length], theirs[0][row, :length], rtol=0, atol=1e-5)


def test_edges_can_be_chosen_and_doubt_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path, zipped(lightning(CASE)))
    assert "reflected is usual for its version. If words at the very start" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    run = imported(tmp_path / "other", zipped(lightning(CASE)), "--edges", "zeros")
    assert read_config(run).features.edges == "zeros"
    assert capsys.readouterr().err == ""


def test_the_blank_may_be_anywhere(tmp_path: Path) -> None:
    labels = LABELS[1:14] + "_" + LABELS[14:]
    arrays = state_dict(CASE)
    head = arrays["fc.0.module.1.weight"].values
    arrays["fc.0.module.1.weight"] = Array(np.concatenate([head[1:14], head[:1], head[14:]]))
    moved = translate(_checkpoint(tmp_path, legacy(package(CASE, labels=labels, state_dict=ordered(arrays)))), tmp_path)
    usual = translate(_checkpoint(tmp_path, legacy(package(CASE))), tmp_path)
    assert moved.config == usual.config
    np.testing.assert_array_equal(moved.arrays["params.head"], usual.arrays["params.head"])


def test_older_weights_without_biases_and_with_the_first_lookahead(tmp_path: Path) -> None:
    arrays = {name: each for name, each in state_dict(FORWARD).items() if ".bias_" not in name}
    kernel = arrays.pop("lookahead.0.conv.weight").values
    arrays["lookahead.0.weight"] = Array(kernel[:, 0])
    arrays["rnns.0.batch_norm.module.weight"] = Array(np.ones(7, np.float32))
    named = {f"module.{name}": each for name, each in arrays.items()}
    older = translate(_checkpoint(tmp_path, legacy(package(FORWARD, state_dict=ordered(named)))), tmp_path)
    assert older.config.model == dataclasses.replace(FORWARD.config, lookahead_context=20)
    np.testing.assert_array_equal(older.arrays["params.lookahead.kernel"], kernel[:, 0].T)
    assert not older.arrays["params.rnn_1.hidden_bias.0"].any()


def _checkpoint(folder: Path, content: bytes) -> pytorch.Checkpoint:
    return pytorch.read(written(folder, content))


def changed(**arrays: np.ndarray | None) -> dict[str, Any]:
    """Makes a package in which some arrays are others, or are missing."""
    state: Mapping[str, Any] = state_dict(CASE)
    for name, values in arrays.items():
        state = {key: each for key, each in state.items() if key != name}
        if values is not None:
            state = {**state, name: Array(values)}
    return package(CASE, state_dict=ordered(state))


def numbers(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (package(CASE, state_dict=None), "a file without state_dict"),
        ([1, 2], "a file without state_dict"),
        (package(CASE, labels=7), "no labels"),
        (package(CASE, labels=["_", "AB"]), "labels that are not characters with the blank _"),
        (package(CASE, labels="ABC"), "labels that are not characters with the blank _"),
        (package(CASE, audio_conf={"sample_rate": 16_000}), "window_size None"),
        (package(CASE, audio_conf={"sample_rate": float("inf")}), "sample_rate inf"),
        (package(CASE, audio_conf={"sample_rate": True}), "sample_rate True"),
        (changed(**{"fc.0.module.0.bias": None}), "no array fc.0.module.0.bias"),
        (changed(**{"conv.seq_module.0.weight": numbers(3)}), "conv.seq_module.0.weight with the sizes [3]"),
        (changed(**{"rnns.0.rnn.weight_hh_l0": numbers(9, 4)}), "recurrent weights of the sizes 9 and 4"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content: Any, finding: str, tmp_path: Path) -> None:
    path = written(tmp_path, legacy(content))
    with pytest.raises(InputError) as caught:
        translate(pytorch.read(path), path)
    rule = "be a checkpoint of deepspeech.pytorch, v2.0 to V3"
    assert str(caught.value) == f"{path} must {rule}, got {finding}. Name another checkpoint."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(**{"conv.0.weight": numbers(1)}), r"must be a checkpoint of v2\.0 or later, got one of v1\. This"),
        (changed(**{"extra": numbers(1)}), r"must hold the weights of DeepSpeech 2 and no others, got extra\."),
        (changed(**{"fc.0.module.0.bias": numbers(7)}), r"params\.head_norm\.bias must be \[8\] with these settings"),
        (
            changed(**{"fc.0.module.0.bias": numbers(8) * np.nan}),
            r"head_norm\.bias must hold finite numbers, got others",
        ),
        (changed(**{"fc.0.module.0.running_var": -numbers(8)}), r"head_norm\.var must hold finite numbers, got others"),
        (package(CASE, labels="_AB"), r"params\.head must be \[8, 3\] with these settings, got \[8, 29\]"),
        (package(CASE, labels="_" + "A" * 28), r"data\.alphabet must hold each character once"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, legacy(content))
    with pytest.raises(InputError, match=message):
        translate(pytorch.read(path), path)


def test_the_folder_must_be_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, CONTAINERS["V3"](CASE))
    assert cli.main(["import", str(path), "--out", str(tmp_path)]) == 1
    assert f"--out must be an empty or new folder, got {tmp_path}." in capsys.readouterr().err
    assert cli.main(["import", str(tmp_path / "no.pth"), "--out", str(tmp_path / "x")]) == 1
    assert f"FILE {tmp_path / 'no.pth'} must be a readable file, got: No such file" in capsys.readouterr().err

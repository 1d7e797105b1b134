"""Several models recognise together, by the mean of their log-probabilities."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import ds2_jax
from ds2_jax import cli
from ds2_jax.config import Config
from ds2_jax.decoding.rover import rover
from ds2_jax.engines.engine import EngineName
from ds2_jax.runs.ensembles import open_models
from ds2_jax.runs.model import open_model
from ds2_jax.system.errors import InputError
from tests.small_runs import SMALL_CONFIG, noise, some_state, with_manifests, write_noise_manifest, write_untrained_run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def runs(config: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [write_untrained_run(folder / f"{seed}", config, some_state(config, seed)) for seed in range(3)]


@pytest.mark.parametrize("engine", ["jax", "onnx"])
def test_log_probabilities_are_the_scaled_mean(runs: list[Path], engine: EngineName) -> None:
    waveforms, num_samples = np.stack([noise(0.5, 1), noise(0.5, 2)]), np.array([8000, 6000], np.int32)
    waveforms[1, 6000:] = 0
    alone = [open_model(run, engine).log_probs(waveforms, num_samples) for run in runs]
    log_probs, output_lengths = open_models(runs[0], runs[1:], engine, "average").log_probs(waveforms, num_samples)
    np.testing.assert_array_equal(output_lengths, alone[0][1])
    for row, length in enumerate(output_lengths):
        products = np.exp(np.mean([each[row, :length] for each, _ in alone], axis=0))
        expected = products / products.sum(-1, keepdims=True)
        np.testing.assert_allclose(np.exp(log_probs[row, :length]), expected, atol=1e-5)
    assert log_probs.dtype == np.float32


def test_a_model_with_itself_is_that_model(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    written = []
    kinds: tuple[list[str], ...] = (
        [],
        ["--with", str(runs[0]), "--combine", "average"],
        ["--with", str(runs[1]), "--combine", "average"],
        ["--with", str(runs[0])],
    )
    for words in kinds:
        before = set((runs[0] / "evaluations").glob("*.json"))
        assert cli.main(["evaluate", str(runs[0]), "--engine", "onnx", *words]) == 0
        [new] = set((runs[0] / "evaluations").glob("*.json")) - before
        written.append(json.loads(new.read_text()))
    alone, twice, other, voted = written
    assert twice["wer_counts"] == voted["wer_counts"] == alone["wer_counts"]
    assert voted["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert twice["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    assert other["loss"] != pytest.approx(alone["loss"], rel=1e-4)
    assert [each["provenance"]["decoding"].get("combine") for each in written] == [None, "average", "average", "rover"]
    assert str(runs[1]) in other["provenance"]["decoding"]["with"][0]
    assert cli.main(["summary", str(runs[0])]) == 0
    tables = capsys.readouterr().out
    assert tables.count("| run | seed |") == 4  # an ensemble has a table of its own


def test_transcribe_and_load_take_several(runs: list[Path], config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    audio = str(config.data.test).replace("all.jsonl", "all0.wav")
    words = ["transcribe", str(runs[0]), audio, "--with", str(runs[1]), "--with", str(runs[2])]
    assert cli.main(words) == 0
    text = capsys.readouterr().out.strip()
    together = ds2_jax.load(runs[0], others=[str(runs[1]), runs[2]])
    assert together.transcribe(audio).text == text
    alone = [ds2_jax.load(run).transcribe(audio) for run in runs]
    assert text == rover([each.segments[0].readings[0] for each in alone]).text
    assert cli.main([*words, "--combine", "average"]) == 0
    mean = capsys.readouterr().out.strip()
    assert ds2_jax.load(runs[0], others=runs[1:], combine="average").transcribe(audio).text == mean
    assert mean not in [text, *(each.text for each in alone)]
    with pytest.raises(InputError, match=r"RUN must be one model to recognise a stream, got 3\. Leave --with"):
        together.stream(16_000).feed(noise(1.0))


def test_the_report_of_votes_shows_the_first_model(runs: list[Path], tmp_path: Path) -> None:
    assert cli.main(["evaluate", str(runs[0]), "--with", str(runs[1]), "--report", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["decoding"].startswith(f"votes of 2: greedy, with {runs[1]} (")


def test_models_that_do_not_fit_are_refused(
    runs: list[Path], config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dataclasses.replace(config.model, time_reduction=2)
    faster = write_untrained_run(tmp_path / "faster", dataclasses.replace(config, model=model))
    data = dataclasses.replace(config.data, alphabet="ABC ")
    letters = write_untrained_run(tmp_path / "letters", dataclasses.replace(config, data=data))
    with pytest.raises(InputError, match=r"--with .*faster must have the model.time_reduction of .*, 4, got 2\. "):
        open_models(runs[0], [faster])
    with pytest.raises(InputError, match=r"--with .*letters must have the data.alphabet of .*, got 'ABC '"):
        open_models(runs[0], [runs[1], letters])
    assert cli.main(["evaluate", str(runs[0]), "--with", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
    words = ["transcribe", str(runs[0]), "a.wav", "--with", str(runs[1]), "--beam-runner", "DirectRunner"]
    assert cli.main(words) == 1
    assert "--with must be used without --beam-runner" in capsys.readouterr().err


def test_log_probabilities_and_alignment_are_those_of_the_first(runs: list[Path], config: Config) -> None:
    audio = str(config.data.test).replace("all.jsonl", "all0.wav")
    together, alone = ds2_jax.load(runs[0], others=runs[1:]), ds2_jax.load(runs[0])
    np.testing.assert_array_equal(together.log_probs(audio), alone.log_probs(audio))
    assert together.align(audio, "GO") == alone.align(audio, "GO")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-best", "3"], "--num-best must be 1 if several models vote, got 3. Use --combine average"),
        (["--combine", "average"], ""),
    ],
)
def test_several_readings_are_refused_by_votes(
    runs: list[Path], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(runs[0]), "--with", str(runs[1]), *words]) == bool(message)
    assert message in capsys.readouterr().err
    assert cli.main(["evaluate", str(runs[0]), "--combine", "average"]) == 1
    assert "--combine must be used with --with, got 'average'. Name other models." in capsys.readouterr().err

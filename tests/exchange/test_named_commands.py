"""Every command that takes RUN takes the name of a model in the package, and leaves the package as it is."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from ds2_jax import cli
from ds2_jax.runs import named
from tests.small_runs import (
    SMALL_CONFIG,
    some_state,
    with_manifests,
    write_noise,
    write_noise_manifest,
    write_untrained_run,
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `letters`, as `export` wrote it, and what the commands read."""
    folder = tmp_path_factory.mktemp("named")
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(folder))
    run = write_untrained_run(folder / "run", config, some_state(config))
    assert cli.main(["export", str(run), "--float16", "--out", str(folder / "out")]) == 0
    (folder / "package").mkdir()
    shutil.copy(folder / "out/model.safetensors", folder / "package/letters.safetensors")
    (folder / "text.txt").write_text("GO YES NO\nYES\nNO GO\n")
    assert cli.main(["lm", "build", str(folder / "text.txt"), "--order", "2", "--out", str(folder / "lm.arpa")]) == 0
    write_noise(folder / "a.wav", 1.0)
    return folder


COMMANDS = {
    "transcribe": ("transcribe", "letters", "{}/a.wav"),
    "transcribe with Beam": (
        *("transcribe", "letters", "{}/a.wav", "--output-dir", "texts"),
        *("--beam-runner", "DirectRunner"),
    ),
    "align": ("align", "letters", "{}/a.wav", "GO"),
    "live": ("live", "letters", "{}/a.wav"),
    "evaluate": ("evaluate", "letters", "--manifest", "{}/all.jsonl", "--against", "letters"),
    "calibrate": ("calibrate", "letters", "--manifest", "{}/all.jsonl"),
    "tune": ("lm", "tune", "letters", "--lm", "{}/lm.arpa", "--manifest", "{}/all.jsonl", "--trials", "2"),
    "export": ("export", "letters", "--out", "out"),
    "lm build": ("lm", "build", "{}/text.txt", "--order", "2", "--out", "own.arpa", "--run", "letters"),
    "check": ("data", "check", "--run", "letters", "{}/all.jsonl"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_takes_the_name(
    words: Sequence[str], package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named, "PRETRAINED", package / "package")
    monkeypatch.chdir(tmp_path)
    assert cli.main([word.format(package) for word in words]) == 0
    assert [path.name for path in (package / "package").iterdir()] == ["letters.safetensors"]


def test_its_results_are_found_again(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(named, "PRETRAINED", package / "package")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", "letters", "--manifest", str(package / "all.jsonl")]) == 0
    [results] = tmp_path.glob("letters-*-results")
    assert len(list(results.glob("evaluations/*.json"))) == 1
    capsys.readouterr()
    assert cli.main(["summary", "letters"]) == 0
    assert "| letters |" in capsys.readouterr().out

"""`lm units` writes pieces, and a model that has them as labels does all that one with characters does."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import ds2_jax
from ds2_jax import cli
from ds2_jax.config.load import find_config, load_config
from ds2_jax.config.settings import ENGLISH
from ds2_jax.text.units import read_units, with_pieces
from tests.decoding.test_decoder import ARPA
from tests.small_runs import RATE, SMALL_CONFIG, noise, with_manifests, write_noise_manifest, write_untrained_run

TEXT = (
    "the lion hunts in the night\nten lanterns lit the station\nnine hunters rest in the tents near the station\n" * 5
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units")
    (folder / "text.txt").write_text(TEXT)
    words = ["lm", "units", str(folder / "text.txt"), "--size", "36", "--out", str(folder / "36.model")]
    assert cli.main(words) == 0
    return folder / "36.model"


def test_report(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "again.model"
    words = ["lm", "units", str(model.parent / "text.txt"), "--size", "36", "--out", str(out), "--kind", "bpe"]
    assert cli.main(words) == 0
    first, counts, pieces, most, use = capsys.readouterr().out.splitlines()
    assert first.startswith(f'alphabet "{ENGLISH}"')
    assert counts == "15 sentences, 100 words, 14 different"
    assert pieces.startswith("36 pieces; a piece of the text has ")
    assert most.startswith("most used: ▁")
    assert use == f"{out}: to train with it: python main.py --config FILE --data.units {out}"
    found = read_units(str(out))
    assert found is not None
    assert (len(found.texts), found.kind) == (36, "bpe")


def test_equal_texts_give_equal_files(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.model"
    assert cli.main(["lm", "units", str(model.parent / "text.txt"), "--size", "36", "--out", str(out)]) == 0
    assert out.read_bytes() == model.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "28"], "--size must be more than 28, the characters of the alphabet, got 28"),
        (["--size", "900"], "--size must be at most "),
        (["--data.alphabet", "AEHILNORSTU"], "data.alphabet must have a space that separates words"),
        (["--data.alphabet", "ABC ", "--size", "9"], "Every sentence must use the alphabet"),
        (["--out", "."], "--out must be a file, got ., which is a folder"),
    ],
)
def test_what_cannot_be_done_is_told(
    model: Path, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "--out" in words else ["--out", str(tmp_path / "x.model")]
    assert cli.main(["lm", "units", str(model.parent / "text.txt"), *words, *out]) == 1
    assert f"error: {message}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = dataclasses.replace(SMALL_CONFIG.data, units=str(model))
    config = with_manifests(dataclasses.replace(SMALL_CONFIG, data=data), write_noise_manifest(folder))
    return write_untrained_run(folder / "run", with_pieces(config))


def test_a_run_with_pieces_recognises_aligns_and_is_exported(run: Path, tmp_path: Path) -> None:
    recogniser = ds2_jax.load(run)
    waveform = noise(1.5)
    found = recogniser.transcribe(waveform, sample_rate=RATE)
    assert found.text == " ".join(word.text for word in found.words) != ""
    assert all("".join(each.text for each in word.characters) == word.text for word in found.words)
    assert recogniser.log_probs(waveform, sample_rate=RATE).shape[1] == 37
    (tmp_path / "lm.arpa").write_text(ARPA.format(other="THE"))
    searched = ds2_jax.load(run, lm=tmp_path / "lm.arpa", hot_words={"LION": 6.0}, beam_width=8)
    assert "LION" in searched.transcribe(waveform, sample_rate=RATE).text
    out = tmp_path / "exported"
    assert cli.main(["export", str(run), "--out", str(out)]) == 0
    exported = ds2_jax.load(out)
    assert exported.transcribe(waveform, sample_rate=RATE).text == found.text
    assert json.loads((out / "config.json").read_text())["data"]["units"].startswith("unigram ")
    spans = recogniser.align(waveform, "the lion", sample_rate=RATE)
    assert [word.text for word in spans.words] == ["THE", "LION"]
    assert np.all(np.diff([time for word in spans.words for time in (word.start, word.end)]) >= 0)


def test_the_recipe_names_what_its_command_writes() -> None:
    recipe = find_config(Path("librispeech_bpe"))
    assert f"--out {load_config(recipe).data.units}\n" in recipe.read_text(encoding="utf-8")

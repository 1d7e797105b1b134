"""`lm units` writes pieces, and a model that has them as labels does all that one with characters does."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import ds2_jax
from ds2_jax import cli
from ds2_jax.config.load import find_config, load_config
from ds2_jax.config.settings import ENGLISH
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.runs import run_folder
from ds2_jax.runs.run_folder import load_config as load_config_of_run
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import read_units
from ds2_jax.training import start
from ds2_jax.training.splits import with_units
from tests.decoding.test_decoder import ARPA
from tests.small_runs import (
    RATE,
    SMALL_CONFIG,
    noise,
    some_state,
    with_manifests,
    write_noise_manifest,
    write_untrained_run,
)

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
    assert most.startswith("most used of more than one character: ▁")
    assert use == f"{out}: to train with it, add --data.units {out}"
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
    return write_untrained_run(folder / "run", with_units(config, folder / "run"))


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


def test_a_run_goes_on_without_the_file(run: Path, model: Path, tmp_path: Path) -> None:
    config = load_config_of_run(run)
    gone = dataclasses.replace(config, data=dataclasses.replace(config.data, units=str(tmp_path / "gone.model")))
    assert with_units(gone, run) == config
    with pytest.raises(InputError, match=r"gone.model must be a file, got none. Make it with lm units"):
        with_units(gone, tmp_path / "new")


def test_the_settings_of_a_model_open_no_file(run: Path, model: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run/config.json"
    tree = json.loads(path.read_text())
    tree["data"]["units"] = str(model)
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"data.units must be characters, or pieces, in the settings of a model"):
        ds2_jax.load(tmp_path / "run")


def test_long_settings_are_told_in_short(run: Path, tmp_path: Path) -> None:
    config = load_config_of_run(run)
    with pytest.raises(InputError, match="must be continued with its own settings") as error:
        run_folder.check_run(
            run, dataclasses.replace(config, data=dataclasses.replace(config.data, units="characters")), False
        )
    assert re.search(
        r"data.units: .unigram .{10,60} \.\.\. \(digest \w{8}\) in the run, 'characters' now", str(error.value)
    )
    assert len(str(error.value)) < 400
    assert len(run_folder.common_settings(config)["data.units"]) == 64


def test_a_model_of_characters_gives_their_labels(run: Path, tmp_path: Path) -> None:
    """A piece such as ST is none of its characters."""
    characters = write_untrained_run(tmp_path / "characters", SMALL_CONFIG, some_state(SMALL_CONFIG, seed=1))
    config = dataclasses.replace(load_config_of_run(run), init_from=characters)
    (tmp_path / "new").mkdir()
    drawn = some_state(config)
    head = np.asarray(start.with_weights(drawn, config, data_mesh(), tmp_path / "new").params["head"])
    theirs, units = np.asarray(some_state(SMALL_CONFIG, seed=1).params["head"]), Alphabet.of(config.data).units
    for label, unit in enumerate(units, start=1):
        own = theirs[:, ENGLISH.index(unit) + 1] if len(unit) == 1 else np.asarray(drawn.params["head"])[:, label]
        np.testing.assert_array_equal(head[:, label], own, err_msg=unit)


def test_the_recipe_names_what_its_command_writes() -> None:
    recipe = find_config(Path("librispeech_bpe"))
    assert f"--out {load_config(recipe).data.units}\n" in recipe.read_text(encoding="utf-8")

"""The corpus of the model `spelling`."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.corpora import spelling, synthetic
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.system.errors import InputError
from tests.small_runs import write_noise


def drawn(count: int = 2000) -> list[str]:
    rng = random.Random(0)
    return [spelling.sentence(rng) for _ in range(count)]


def test_sentences_have_every_letter_digit_and_command() -> None:
    words = {word for sentence in drawn() for word in sentence.split()}
    assert set(spelling.LETTERS) <= words
    for known in (spelling.DIGITS, spelling.TEENS, spelling.TENS, spelling.MONTHS, spelling.COMMANDS):
        assert set(known) <= words
    assert {"LIGHT", "MUSIC", "DOOR", "AND"} <= words


def test_an_a_between_letters_is_the_letter_not_the_article(monkeypatch: pytest.MonkeyPatch) -> None:
    """The letter is a diphthong, the article a short vowel."""
    prompts = [synthetic.Prompt("M A S A N A T", 130, 50, 0.5)]
    [letters] = synthetic.speak("en-us", prompts)
    monkeypatch.setattr(synthetic, "RESPELLED", {})
    [articles] = synthetic.speak("en-us", prompts)
    assert len(letters) > len(articles) + 3 * 0.05 * synthetic.SAMPLE_RATE


def test_speech_is_left_as_it_is_and_what_is_around_it_is_not_silent() -> None:
    speech = np.sin(np.arange(16_000) * 0.3).astype(np.float32) * 0.3
    power = float(np.mean(np.square(speech)))
    lengths, ratios = [], []
    for seed in range(60):
        heard = spelling.surrounded(speech, np.random.default_rng(seed))
        assert heard.dtype == np.float32
        assert np.abs(heard).max() <= 1
        lengths.append(len(heard) / 16_000 - 1)
        likeness = np.correlate(heard, speech, "valid")
        start, scale = int(likeness.argmax()), float(likeness.max() / np.sum(np.square(speech)))
        rest = heard[start : start + len(speech)] - scale * speech
        ratios.append(10 * np.log10(power * scale**2 / max(float(np.mean(np.square(rest))), 1e-12)))
    assert 0 <= min(lengths) < 2 * spelling.SHORT[1] < max(lengths) <= 2 * spelling.LONG[1]
    assert 15 < sum(length > 2 * spelling.LONG[0] for length in lengths) < 40  # nearly half of them
    assert min(ratios) > spelling.SPEECH_TO_NOISE[0] - 1  # noise below speech, never above it


@pytest.fixture
def an4(tmp_path: Path) -> Path:
    """Two utterances for each split of AN4, in noise."""
    folder = tmp_path / "an4"
    for split in ("train", "dev", "test"):
        audio = [write_noise(folder / "wav" / f"{split}{i}.wav", 0.5 + i / 10, i) for i in range(2)]
        write_manifest(
            folder / f"{split}.jsonl",
            [Utterance(path, 0.5 + i / 10, "YES", f"{split}{i}", f"s{split}{i}") for i, path in enumerate(audio)],
        )
    (folder / "source.json").write_text('{"sha256": "ab", "seed": 0}')
    return folder


def test_the_corpus_has_its_splits_and_is_the_same_again(
    tmp_path: Path, an4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spelling, "NUM_SENTENCES", {"train": 2, "dev": 1, "voices": 2})
    monkeypatch.setattr(spelling, "NUM_PIECES", 1)
    monkeypatch.setattr(spelling, "PIECE_SECONDS", 1)
    monkeypatch.setattr(synthetic, "VOICES", {"train": ("en", "en-us+f1"), "dev": ("en-us+m4",), "test": ("en-us+f4",)})
    folder = spelling.prepare(tmp_path)
    splits = {split: read_manifest(folder / f"{split}.jsonl") for split in ("train", "dev", "test", "voices")}
    assert {split: len(each) for split, each in splits.items()} == {"train": 6, "dev": 3, "test": 2, "voices": 2}
    for utterances in splits.values():
        for utterance in utterances:
            assert soundfile.info(utterance.audio).duration == pytest.approx(utterance.duration, abs=1e-3)
    speakers = {split: {each.speaker for each in utterances} for split, utterances in splits.items()}
    assert not speakers["train"] & (speakers["dev"] | speakers["test"] | speakers["voices"])
    assert {utterance.audio for utterance in splits["test"]} == {an4 / "wav/test0.wav", an4 / "wav/test1.wav"}
    assert sorted(path.name for path in (folder / "nobody").iterdir()) == [
        *("music-00.flac", "noise-00.flac", "silence-00.flac")
    ]
    assert spelling.prepare(tmp_path) == folder  # it is there
    sounds = {path.name: path.read_bytes() for path in folder.rglob("*.flac")}
    folder.rename(tmp_path / "older")
    again = spelling.prepare(tmp_path)
    assert {path.name: path.read_bytes() for path in again.rglob("*.flac")} == sounds


def test_another_corpus_in_its_place_is_refused(tmp_path: Path, an4: Path) -> None:
    (tmp_path / "spelling").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / f"spelling/{split}.jsonl").touch()
    (tmp_path / "spelling/source.json").write_text('{"version": 0}')
    with pytest.raises(InputError, match="must hold the spelling corpus of this version"):
        spelling.prepare(tmp_path)


def test_without_espeak_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match="must have the package espeakng-loader"):
        spelling.prepare(tmp_path / "data", tmp_path / "no.tar.gz")
    assert not (tmp_path / "data").exists()

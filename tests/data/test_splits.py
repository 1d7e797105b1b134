"""Transcripts are encoded once, for all epochs."""

from pathlib import Path

import numpy as np
import pytest

from ds2_jax.config.settings import ENGLISH
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.splits import Labels, Split, digest
from ds2_jax.text.alphabet import Alphabet

TRANSCRIPTS = ["", "Go  on", "\u00c9T\u00c9", "IT'S", ""]


def test_labels_are_those_of_the_alphabet_and_unknown_characters_have_none() -> None:
    alphabet = Alphabet(ENGLISH)
    split = Split([Utterance(Path("a.wav"), 1.0, text, str(i)) for i, text in enumerate(TRANSCRIPTS)], alphabet)
    assert [alphabet.decode(labels) for labels in split.labels] == ["", "GO ON", "", "IT'S", ""]
    assert len(split.labels) == 5
    assert split.labels.width == len("GO ON")
    assert split.labels is split.labels
    assert split.labels.flat.dtype == np.uint8


@pytest.mark.parametrize("transcripts", [[], [""]])
def test_split_without_labels(transcripts: list[str]) -> None:
    labels = Labels.of(transcripts, Alphabet(ENGLISH))
    assert [each.tolist() for each in labels] == [[]] * len(transcripts)
    assert labels.width == 0


def test_large_alphabet() -> None:
    alphabet = Alphabet("".join(map(chr, range(0x4E00, 0x4E00 + 300))))
    text = alphabet.characters[298:]
    assert alphabet.decode(Labels.of([text], alphabet)[0]) == text


def test_the_digest_depends_on_segments_and_is_that_of_older_versions_without_them() -> None:
    def digest_of(*offsets: float | None) -> str:
        utterances = [Utterance(Path("a.wav"), 1.0, "GO", str(i), offset=at) for i, at in enumerate(offsets)]
        return digest(Split(utterances, Alphabet(ENGLISH)))

    whole = digest_of(None, None)
    assert whole == "22f2cbb89be097cd36cff517782fa362d0e38a8b3578ede8ad70d2a104d68996"
    assert digest_of(0.0, None) == whole
    assert len({whole, digest_of(None, 0.5), digest_of(0.5, None), digest_of(None, 0.25)}) == 4

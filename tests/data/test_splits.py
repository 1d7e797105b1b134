"""Transcripts are encoded once, for all epochs."""

from pathlib import Path

import numpy as np
import pytest

from ds2_jax.config.settings import ENGLISH
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.splits import Labels, Split
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

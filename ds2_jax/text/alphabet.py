"""Maps text to CTC labels and back, and normalises transcripts for training, evaluation and `data check`."""

import collections
import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from ds2_jax.config import DataConfig
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.units import Pieces, read_units

NO_CHARACTERS = ("Cc", "Cs", "Zl", "Zp", "Zs")
"""Unicode categories of control characters, surrogates and separators."""
SHAPES = ("'’ʼ‘`´", "-‐‑")
"""Groups of interchangeable characters: apostrophes (ASCII first) and hyphens. Dashes are not hyphens."""
SPOKEN = "%&@#§*"
"""Unicode counts these as punctuation, but people read them aloud as words, like digits and other symbols."""


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """The characters that a model can write, the rules that normalise transcripts to them, and its labels.

    Label 0 is the CTC blank, and label i + 1 stands for `units[i]`: a character, or one of `pieces`. `characters`,
    `case`, `remove` and `pieces` are the settings `data.alphabet`, `data.case`, `data.remove` and `data.units`;
    config/settings.py describes them.

    Raises:
        InputError: `characters` is empty, repeats a character, is not in NFC, or has a control character, a surrogate,
            or white space other than the plain space (`normalise` leaves no other). Or `remove` has a letter, a digit
            or white space. Or `pieces` are of other characters, lack one, or the alphabet has no space for them.

    Source: deepspeech.pytorch `labels.json` (blank, apostrophe, A to Z, space: 29 labels).
    """

    characters: str
    case: Literal["alphabet", "upper", "lower", "keep"] = "alphabet"
    remove: str = ""
    pieces: Pieces | None = None

    def __post_init__(self) -> None:
        require(bool(self.characters), "data.alphabet", "hold at least one character", self.characters)
        repeated = sorted(c for c, count in collections.Counter(self.characters).items() if count > 1)
        require(not repeated, "data.alphabet", "hold each character once", self.characters, f"Repeated: {repeated}.")
        nfc = unicodedata.is_normalized("NFC", self.characters)
        require(nfc, "data.alphabet", "be in Unicode's composed form (NFC)", self.characters)
        odd = [c for c in self.characters if unicodedata.category(c) in NO_CHARACTERS and c != " "]
        rule = "hold no control characters and no white space other than plain spaces"
        require(not odd, "data.alphabet", rule, self.characters, f"Remove {odd}.")
        said = [c for c in self.remove if (c.isalnum() and c not in "".join(SHAPES)) or c.isspace()]
        require(not said, "data.remove", "hold no letters, digits or white space", self.remove, f"Remove {said}.")
        if self.pieces is not None:
            advice = "Make pieces for this alphabet: lm units."
            require(
                self.spaced, "data.alphabet", "have a space, because data.units are pieces of words", self.characters
            )
            missing = [c for c in self.characters if c not in self.pieces.texts]
            require(not missing, "data.units", "have each character of data.alphabet as a piece", missing, advice)
            foreign = sorted(set("".join(self.pieces.texts)) - set(self.characters))
            require(not foreign, "data.units", "be of the characters of data.alphabet", foreign, advice)

    blank_index = 0

    @classmethod
    def of(cls, data: DataConfig) -> "Alphabet":
        """Makes the alphabet of a configuration. Reads the file of `data.units` if it names one."""
        return dataclasses.replace(cls.of_characters(data), pieces=read_units(data.units))

    @classmethod
    def of_characters(cls, data: DataConfig) -> "Alphabet":
        """Makes the alphabet of a configuration with characters as labels, whatever `data.units` says."""
        return cls(data.alphabet, data.case, data.remove)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: index for index, character in enumerate(self.characters, start=1)}

    @functools.cached_property
    def _deleted(self) -> dict[int, None]:
        """The characters of `remove` that leave no space: accents and invisible characters."""
        return {ord(c): None for c in self.remove if unicodedata.category(c) in ("Mn", "Mc", "Me", "Cf")}

    @functools.cached_property
    def _removed(self) -> re.Pattern[str]:
        return re.compile(f"[{re.escape(self.remove)}]")

    @property
    def size(self) -> int:
        """Number of labels, blank included (V)."""
        return len(self.units) + 1

    @functools.cached_property
    def units(self) -> tuple[str, ...]:
        """The text of each label after the blank. A piece that begins a word starts with a space."""
        return self.pieces.texts if self.pieces else tuple(self.characters)

    @property
    def spaced(self) -> bool:
        """Whether spaces separate words. Without a space, each character counts as a word."""
        return " " in self.characters

    def normalise(self, text: str) -> str:
        """Normalises a text: sets the case, composes Unicode (NFC), removes characters and leaves single spaces."""
        one_case = self.case == "alphabet"
        if self.case == "upper" or (one_case and self.characters == self.characters.upper()):
            text = text.upper()
        elif self.case == "lower" or (one_case and self.characters == self.characters.lower()):
            text = text.lower()
        text = unicodedata.normalize("NFC", text)  # last: a change of case can leave text decomposed
        if self.remove:
            text = unicodedata.normalize("NFC", text.translate(self._deleted))
            text = self._removed.sub(self._replacement, text)
        return " ".join(text.split())

    def _replacement(self, match: re.Match[str]) -> str:
        start, end = match.span()
        before, after = match.string[max(start - 1, 0) : start], match.string[end : end + 1]
        accent = unicodedata.category(before or " ").startswith("M")  # of the letter before
        inside = (before.isalnum() or accent) and after.isalnum()
        return self._kept_as(match[0]) if inside else " "

    def _kept_as(self, character: str) -> str:
        """Replaces a character of `remove` inside a word by an interchangeable one of the alphabet, or by a space."""
        like = next((shapes for shapes in SHAPES if character in shapes), "")
        return next((each for each in (character, *like) if each in self.characters), " ")

    def without_punctuation(self, text: str) -> "Alphabet":
        """Makes an alphabet that also removes the punctuation of a text, as `remove` does, unless it has a label."""
        found = {c for c in self.normalise(text) if is_punctuation(c)} - set(self.characters + self.remove)
        return dataclasses.replace(self, remove=self.remove + "".join(sorted(found)))

    def unknown(self, text: str) -> list[str]:
        """Returns the characters of the normalised text that have no label, sorted and without repeats."""
        return sorted(set(self.normalise(text)) - self._numbers.keys())

    def encode(self, text: str) -> list[int]:
        """Normalises a text and returns its labels.

        Raises:
            InputError: a character is not in the alphabet.
        """
        if self.pieces is None:
            return self.spell(text)
        return [index + 1 for index in self.pieces.encode(self._spellable(text))]

    def spell(self, text: str) -> list[int]:
        """Normalises a text and returns the places of its characters in `characters`, counted from 1.

        Raises:
            InputError: a character is not in the alphabet.
        """
        return [self._numbers[character] for character in self._spellable(text)]

    def _spellable(self, text: str) -> str:
        normalised = self.normalise(text)
        if unknown := sorted(set(normalised) - self._numbers.keys()):
            raise InputError(
                f"The transcript must use the alphabet {self.characters!r}, got {unknown} in {shorten(repr(text))}. "
                "Correct the transcript or add the characters to data.alphabet."
            )
        return normalised

    def decode(self, labels: Iterable[int]) -> str:
        """Returns the text of labels, which must not include blanks."""
        return "".join(self.units[label - 1] for label in labels)


def is_punctuation(character: str) -> bool:
    """Whether a character is written but not spoken: punctuation, accents of their own, and invisible characters."""
    category = unicodedata.category(character)
    return character not in SPOKEN and (category[0] == "P" or category in ("Sk", "Cf"))

"""Characters <-> CTC labels, and the normalisation of transcripts."""

import dataclasses
import functools
import unicodedata
from collections.abc import Iterable

from ds2_jax.config import require
from ds2_jax.errors import InputError, shorten

NO_CHARACTERS = ("Cc", "Cs", "Zl", "Zp", "Zs")
"""Unicode's categories of control characters, halves of surrogate pairs and separators."""


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """The characters a model can write; label 0 is the CTC blank, label i + 1 is `characters[i]`.

    Raises:
        InputError: `characters` is empty, repeats a character, holds one that is not NFC, a control character, half of
            a surrogate pair, or white space other than the plain space, which is all that `normalise` leaves.

    Source: deepspeech.pytorch `labels.json` (blank, apostrophe, A to Z, space: 29 labels).
    """

    characters: str

    def __post_init__(self) -> None:
        require(bool(self.characters), "data.alphabet", "hold at least one character", self.characters)
        repeated = sorted({c for c in self.characters if self.characters.count(c) > 1})
        require(not repeated, "data.alphabet", "hold each character once", self.characters, f"Repeated: {repeated}.")
        nfc = unicodedata.is_normalized("NFC", self.characters)
        require(nfc, "data.alphabet", "be in Unicode's composed form (NFC)", self.characters)
        odd = [c for c in self.characters if unicodedata.category(c) in NO_CHARACTERS and c != " "]
        rule = "hold no white space but plain spaces and no control characters"
        require(not odd, "data.alphabet", rule, self.characters, f"Remove {odd}.")

    blank_index = 0

    @functools.cached_property
    def _labels(self) -> dict[str, int]:
        return {character: index for index, character in enumerate(self.characters, start=1)}

    @property
    def size(self) -> int:
        """Labels with blank (V)."""
        return len(self.characters) + 1

    def normalise(self, text: str) -> str:
        """Composed Unicode (NFC), single spaces, and the alphabet's case where it knows only one."""
        if self.characters == self.characters.upper():
            text = text.upper()
        elif self.characters == self.characters.lower():
            text = text.lower()
        return " ".join(unicodedata.normalize("NFC", text).split())  # last: a change of case can leave text decomposed

    def unknown(self, text: str) -> list[str]:
        """The characters of the normalised text that have no label, sorted, each once."""
        return sorted(set(self.normalise(text)) - self._labels.keys())

    def encode(self, text: str) -> list[int]:
        """The labels of `text`, normalised.

        Raises:
            InputError: a character is not in the alphabet.
        """
        unknown = self.unknown(text)
        if unknown:
            raise InputError(
                f"The transcript must use the alphabet {self.characters!r}, got {unknown} in {shorten(repr(text))}. "
                "Mend the transcript or add the characters to data.alphabet."
            )
        return [self._labels[c] for c in self.normalise(text)]

    def decode(self, labels: Iterable[int]) -> str:
        """The text of `labels`, none of them blank."""
        return "".join(self.characters[label - 1] for label in labels)

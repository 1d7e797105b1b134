"""Rules that make texts alike before they are scored, read from a TOML file."""

import dataclasses
import functools
import tomllib
import unicodedata
from pathlib import Path
from typing import Any, Literal

from ds2_jax.data.manifest import read_text
from ds2_jax.system.checks import build, require
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import SHAPES, is_punctuation

INSIDE_WORDS = "".join(SHAPES)
"""Apostrophes and hyphens, which stay between two letters: it's, twenty-one."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is done to both texts: case, removed words, punctuation, replacements.

    Attributes:
        case: "lower" or "upper" writes all in one case.
        punctuation: "remove" replaces punctuation by spaces and drops invisible characters. Apostrophes and hyphens
            between letters or digits stay, in their ASCII form, and so do characters that are read aloud, such as %.
        remove: words that do not count, such as "uh" or "<unk>". A word such as "[noise]" is removed before its
            brackets are.
        replace: words or phrases and their replacements. The longest phrase that fits is replaced, from left to right;
            replacements are not replaced again. No phrase may have a word of `remove`.
    """

    case: Literal["keep", "lower", "upper"] = "keep"
    punctuation: Literal["keep", "remove"] = "keep"
    remove: tuple[str, ...] = ()
    replace: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for phrase, _ in self.replace:
            gone = [word for word in self._one_case(phrase).split() if self._is_removed(word)]
            require(not gone, f"replace {phrase!r}", "have no word of remove", gone, "Leave the word out of one.")

    def __call__(self, text: str) -> str:
        """Applies the rules to a text. Composes Unicode (NFC) and leaves single spaces, whatever the rules are."""
        words = [word for word in self._words(text) if word not in self._removed]
        phrases, found, place = self._phrases, [], 0
        while place < len(words):
            lengths = range(min(self._longest, len(words) - place), 0, -1)
            length = next((n for n in lengths if tuple(words[place : place + n]) in phrases), 0)
            found += phrases[tuple(words[place : place + length])] if length else [words[place]]
            place += length or 1
        return " ".join(found)

    def _words(self, text: str) -> list[str]:
        """Splits a text into words in one case and without punctuation, except words to be removed: [noise]."""
        words = self._one_case(text).split()
        if self.punctuation == "keep":
            return words
        return " ".join(_without_punctuation(word) for word in words if not self._is_removed(word)).split()

    def _is_removed(self, word: str) -> bool:
        """Whether a word such as [noise] is to be removed, with punctuation around it or not."""
        around = [word.replace(each, "", 1) for each in self._removed if each in word]
        return any(not _without_punctuation(rest).strip() for rest in around)

    def _one_case(self, text: str) -> str:
        changed = text.lower() if self.case == "lower" else text.upper() if self.case == "upper" else text
        return unicodedata.normalize("NFC", changed)  # last: a change of case can leave text decomposed

    @functools.cached_property
    def _removed(self) -> frozenset[str]:
        return frozenset(map(self._one_case, self.remove))

    @functools.cached_property
    def _phrases(self) -> dict[tuple[str, ...], list[str]]:
        return {tuple(self._words(each)): self._words(instead) for each, instead in self.replace}

    @functools.cached_property
    def _longest(self) -> int:
        return max(map(len, self._phrases), default=0)

    def __str__(self) -> str:
        listed = [f"case {self.case}"] if self.case != "keep" else []
        listed += ["no punctuation"] if self.punctuation == "remove" else []
        listed += [f"{len(self.remove)} words to remove"] if self.remove else []
        listed += [f"{len(self.replace)} words or phrases to replace"] if self.replace else []
        return ", ".join(listed) or "texts as they are"


def _without_punctuation(word: str) -> str:
    """Does what `Rules.punctuation` says to a word."""

    def stays(place: int) -> bool:
        if not is_punctuation(word[place]):
            return True
        before, after = word[place - 1 : place], word[place + 1 : place + 2]
        return word[place] in INSIDE_WORDS and before.isalnum() and after.isalnum()

    plain = {each: shapes[0] for shapes in SHAPES for each in shapes}

    def instead(character: str) -> str:
        return "" if unicodedata.category(character) == "Cf" else " "  # an invisible character divides no word

    return "".join(plain.get(c, c) if stays(place) else instead(c) for place, c in enumerate(word))


def read_rules(path: Path) -> Rules:
    """Reads rules from a TOML file.

        case = "lower"
        punctuation = "remove"
        remove = ["uh", "<unk>"]
        [replace]
        okay = "ok"
        "can not" = "cannot"

    Raises:
        InputError: the file cannot be read, is not TOML, or has an unknown or wrong rule.
    """
    try:
        table: dict[str, Any] = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and deep nesting, too
        raise InputError(f"{path} must be TOML, got: {error}. Correct it.") from error
    known = [field.name for field in dataclasses.fields(Rules)]
    for name in table:
        require(name in known, f"{path}: {name}", f"be one of {', '.join(known)}", name, "Correct it.")
    remove, replace = table.pop("remove", []), table.pop("replace", {})
    listed = isinstance(remove, list) and all(isinstance(each, str) and len(each.split()) == 1 for each in remove)
    advice = 'Write a phrase as [replace] "you know" = "".'
    require(listed, f"{path}: remove", 'be a list of single words, such as ["uh"]', remove, advice)
    mapped = isinstance(replace, dict) and all(isinstance(each, str) for each in replace.values())
    rule, advice = "be a table of words or phrases and their replacements", 'Write [replace] "can not" = "cannot".'
    require(mapped and all(map(str.strip, replace)), f"{path}: replace", rule, replace, advice)
    given = {name: build(Rules.__annotations__[name], value, f"{path}: {name}.") for name, value in table.items()}
    try:
        return Rules(**given, remove=tuple(remove), replace=tuple(replace.items()))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error

"""Reads sentences for a language model from text files and manifests, and normalises them like transcripts."""

import collections
import contextlib
import dataclasses
import gzip
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ds2_jax.config.places import is_tfds
from ds2_jax.data.splits import read_utterances
from ds2_jax.lm.kneser_ney import END, SPECIAL, START, UNKNOWN
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.inflate import inflate
from ds2_jax.text.alphabet import Alphabet

OnUnknown = Literal["error", "skip"]
STANDARD_INPUT = Path("-")
GZIP = b"\x1f\x8b"
NUM_EXAMPLES = 3


@dataclasses.dataclass
class Text:
    """The sentences of one or more texts.

    Attributes:
        words: the vocabulary: `SPECIAL`, then the other words, sorted.
        tokens: [S] int64, indices into `words`: the concatenated sentences, each from START to END.
        num_empty: number of lines and transcripts without a word.
        num_unknown: number of sentences that the alphabet cannot spell. They are not in the tokens.
        characters: the characters that are not in the alphabet, and words of `SPECIAL`, each with the number of
            sentences that contain it.
        examples: some of these sentences, with file and line.
    """

    words: list[str]
    tokens: np.ndarray
    num_empty: int = 0
    num_unknown: int = 0
    characters: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    examples: list[str] = dataclasses.field(default_factory=list)

    @property
    def num_sentences(self) -> int:
        """Number of sentences in the tokens."""
        return int(np.count_nonzero(self.tokens == START))

    @property
    def num_words(self) -> int:
        """Number of words in the tokens, without START and END."""
        return len(self.tokens) - 2 * self.num_sentences

    def in_vocabulary(self, words: Sequence[str]) -> np.ndarray:
        """Returns the tokens as indices into another vocabulary, [S] int64; UNKNOWN for words that it lacks."""
        places = {word: place for place, word in enumerate(words)}
        theirs = np.array([places.get(word, UNKNOWN) for word in self.words], np.int64)
        return np.take(theirs, self.tokens)


def read_texts(paths: Sequence[Path], alphabet: Alphabet, on_unknown: OnUnknown) -> Text:
    """Reads sentences. White space separates words. If the alphabet has no space, each character is a word.

    Args:
        paths: text in UTF-8 with one sentence a line, plain or gzipped, or "-" for standard input. Manifests (.jsonl,
            .json) and TensorFlow data sets (tfds:) are read for their transcripts.
        alphabet: the alphabet, which normalises the sentences and must be able to spell them. It may lack the space.
        on_unknown: what to do with sentences that contain other characters, or words of `SPECIAL`.

    Raises:
        InputError: a file cannot be read, is not UTF-8 or a complete gzip file, or has no sentence. Or `on_unknown` is
            "error", and a sentence cannot be spelled or contains a word of `SPECIAL`.
    """
    text = Text([], np.zeros(0, np.int64))
    places: collections.defaultdict[str, int] = collections.defaultdict()
    places.default_factory = places.__len__
    places.update({word: place for place, word in enumerate(SPECIAL)})
    tokens = array("i")
    characters = {*alphabet.characters, " "}
    spaced = alphabet.spaced
    for path in paths:
        size = len(tokens)
        lines = tqdm(_lines(path), str(path), unit=" sentences", leave=False, disable=not sys.stderr.isatty())
        for place, line in lines:
            special = {word for word in line.lower().split() if word in SPECIAL} if "<" in line else set()
            if special and on_unknown == "error":
                rule, advice = (
                    f"hold no {', '.join(SPECIAL)}",
                    "Remove it, or leave the sentence out with --on-unknown skip",
                )
                require(False, _name(path, place), rule, min(special), f"{advice}: the model adds its own.")
            sentence = alphabet.normalise(line)
            if not sentence:
                text.num_empty += 1
            elif characters.issuperset(sentence) and not special:
                tokens.append(START)
                tokens.extend(map(places.__getitem__, sentence.split() if spaced else sentence.replace(" ", "")))
                tokens.append(END)
            else:
                text.num_unknown += 1
                text.characters.update(special or set(sentence) - characters)
                if len(text.examples) < NUM_EXAMPLES:
                    text.examples.append(f"{_name(path, place)}: {shorten(repr(sentence))}")
        _require_sentences(path, text, some=len(tokens) > size, alphabet=alphabet, on_unknown=on_unknown)
    if text.num_unknown and on_unknown == "error":
        raise InputError(
            _why_unknown(text, alphabet, "Leave these sentences out with --on-unknown skip, or give another")
        )
    text.words = [*SPECIAL, *sorted(word for word in places if word not in SPECIAL)]
    sorted_places = {word: place for place, word in enumerate(text.words)}
    text.tokens = np.array([sorted_places[word] for word in places], np.int64)[np.frombuffer(tokens, np.int32)]
    return text


def _require_sentences(path: Path, text: Text, *, some: bool, alphabet: Alphabet, on_unknown: OnUnknown) -> None:
    if some or (text.num_unknown and on_unknown == "error"):
        return
    if text.num_unknown:
        raise InputError(_why_unknown(text, alphabet, "No sentence is left; give another"))
    raise InputError(f"{_name(path)} must hold at least one sentence, got none. Give another text.")


def _why_unknown(text: Text, alphabet: Alphabet, advice: str) -> str:
    characters = ", ".join(f"{character!r} in {count:,}" for character, count in text.characters.most_common(10))
    return (
        f"Every sentence must use the alphabet {alphabet.characters!r}, got {text.num_unknown:,} sentences with other "
        f"characters: {characters}. The first: {'; '.join(text.examples)}. {advice} "
        "--data.alphabet or --data.remove."
    )


def _name(path: Path, place: int | str = "") -> str:
    file = "Standard input" if path == STANDARD_INPUT else str(path)
    return file + (f", line {place}" if isinstance(place, int) else f", {place}" if place else "")


def _lines(path: Path) -> Iterator[tuple[int | str, str]]:
    """Yields the lines of a text with their numbers, or the transcripts of a manifest with their ids."""
    if is_tfds(path) or path.suffix in (".jsonl", ".json"):
        return ((utterance.id, utterance.transcript) for utterance in read_utterances(path))
    return _text_lines(path)


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    name = _name(path)
    if path == STANDARD_INPUT and sys.stdin is None:
        raise InputError("Standard input must be open, got a closed one. Send it a text.")
    number = 1
    try:
        with contextlib.ExitStack() as stack:
            file: Any = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(path.open("rb"))
            if file.peek(2)[:2] == GZIP:
                file = stack.enter_context(inflate(file))
            for number, line in enumerate(file, start=1):  # bytes split at line feeds only
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        rule = f"must be UTF-8 text, got {error.reason} in line {number}"
        raise InputError(f"{name} {rule}. Convert it, for example with iconv.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{name} must be a complete gzip file, got: {error}. Fetch it again.") from error
    except OSError as error:
        raise InputError(f"{name} must be a readable file, got: {error.strerror}. Correct the path.") from error

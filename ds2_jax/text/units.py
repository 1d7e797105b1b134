"""Units of text that are longer than a character: the pieces of words of a SentencePiece model."""

import dataclasses
import functools
import itertools
import math
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.files import check_is_readable

CHARACTERS = "characters"
WORD_START = "▁"
"""SentencePiece's sign for the space before a word."""
DIGITS = 9
"""Digits of a score. They tell apart all 32-bit floats, which SentencePiece's scores are."""
Kind = Literal["unigram", "bpe"]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The pieces of a SentencePiece model, which divide words.

    Attributes:
        kind: "unigram" divides a word into the pieces with the largest sum of scores. "bpe" begins with characters and
            joins the two neighbours whose piece has the largest score, again and again.
        texts: each piece; one that begins a word starts with a space.
        scores: of each piece; for unigram, log-probabilities.

    Raises:
        InputError: a piece is empty or occurs twice, or has a space after its start.

    Source: Kudo 2018, "Subword Regularization"; Sennrich et al. 2016, "Neural Machine Translation of Rare Words with
        Subword Units".
    """

    kind: Kind
    texts: tuple[str, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        require(bool(self.texts), "data.units", "hold pieces", "none", "Give another model.")
        require(len(set(self.texts)) == len(self.texts), "data.units", "hold each piece once", self.texts)
        odd = [text for text in self.texts if not text or " " in text[1:]]
        require(not odd, "data.units", "have spaces only where a word begins", odd, "Train with lm units.")

    def __str__(self) -> str:
        """Writes the pieces as one line, which `read_units` reads."""
        pairs = zip(self.texts, self.scores, strict=True)
        return " ".join([self.kind, *(f"{text.replace(' ', WORD_START)}:{score:.{DIGITS}g}" for text, score in pairs)])

    def encode(self, text: str) -> list[int]:
        """Divides the words of a text; returns the indices of the pieces.

        Args:
            text: words separated by single spaces, of characters that are pieces.
        """
        return [index for word in text.split() for index in self._encoded(word)]

    @functools.cached_property
    def _indices(self) -> dict[str, int]:
        return {text: index for index, text in enumerate(self.texts)}

    @functools.cached_property
    def _longest(self) -> int:
        return max(map(len, self.texts))

    @functools.cached_property
    def _divided(self) -> dict[str, list[int]]:
        return {}

    def _encoded(self, word: str) -> list[int]:
        """Divides a word. The result is kept, because a text has few different words."""
        if word not in self._divided:
            divide = self._most_likely if self.kind == "unigram" else self._joined
            self._divided[word] = [self._indices[piece] for piece in divide(f" {word}")]
        return self._divided[word]

    def _most_likely(self, word: str) -> list[str]:
        best = [(0.0, 0)] + [(-math.inf, 0)] * len(word)  # score of the best division up to each place; its last piece
        for end in range(1, len(word) + 1):
            for start in range(max(0, end - self._longest), end):
                if (index := self._indices.get(word[start:end])) is not None:
                    score = best[start][0] + self.scores[index]
                    if score > best[end][0]:
                        best[end] = score, start
        pieces, end = list[str](), len(word)
        while end:
            start = best[end][1]
            pieces.append(word[start:end])
            end = start
        return pieces[::-1]

    def _joined(self, word: str) -> list[str]:
        pieces = list(word)
        while True:
            joined = [self._indices.get(one + other) for one, other in itertools.pairwise(pieces)]
            scores = [-math.inf if index is None else self.scores[index] for index in joined]
            best = max(scores, default=-math.inf)
            if best == -math.inf:
                return pieces
            place = scores.index(best)
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]


def read_units(units: str) -> Pieces | None:
    """Reads the setting `data.units`.

    Args:
        units: "characters", the file of a SentencePiece model, or what `str` makes of pieces.

    Returns:
        The pieces; None for characters.

    Raises:
        InputError: the file does not exist, is no SentencePiece model or has pieces of another kind, or the package
            sentencepiece is needed and missing.
    """
    if names_file(units):
        return read_model(Path(units))
    return None if units == CHARACTERS else _parse(*units.split(" ", 1))


def names_file(units: str) -> bool:
    """Whether the setting `data.units` is the file of a model, and neither "characters" nor pieces."""
    kind, _, pieces = units.partition(" ")
    return units != CHARACTERS and not (kind in get_args(Kind) and pieces)


def check_names_no_file(units: str) -> None:
    """Checks the setting `data.units` of a model, which must not make a command open other files.

    Raises:
        InputError: it names one.
    """
    require(
        not names_file(units),
        "data.units",
        "be characters, or pieces, in the settings of a model",
        units,
        "Restore it.",
    )


@functools.lru_cache(maxsize=8)
def _parse(kind: str, pieces: str) -> Pieces:
    pairs = [each.rpartition(":") for each in pieces.split(" ")]
    try:
        scores = tuple(float(score) for _, _, score in pairs)
    except ValueError as error:
        raise InputError(f"data.units must be PIECE:SCORE, got {shorten(repr(pieces))}. Restore it.") from error
    require(all(map(math.isfinite, scores)), "data.units", "have finite scores", pieces, "Restore it.")
    return Pieces(cast(Kind, kind), tuple(piece.replace(WORD_START, " ") for piece, _, _ in pairs), scores)


def read_model(path: Path) -> Pieces:
    """Reads the pieces of a SentencePiece model from its file.

    Raises:
        InputError: see `read_units`.
    """
    if not path.exists():
        raise InputError(f"data.units {path} must be a file, got none. Make it with lm units, or correct the path.")
    check_is_readable(path, "data.units")
    sentencepiece = load_sentencepiece("data.units")
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise InputError(f"data.units must be a SentencePiece model, got {path}. Make one with lm units.") from error
    ids = [i for i in range(model.get_piece_size()) if not (model.is_control(i) or model.is_unknown(i))]
    require(not any(map(model.is_byte, ids)), "data.units", "have no bytes as pieces", str(path), "Train it without.")
    texts = tuple(model.id_to_piece(i).replace(WORD_START, " ") for i in ids)
    scores = tuple(float(f"{model.get_score(i):.{DIGITS}g}") for i in ids)
    # The package does not tell the kind. So take the one that divides words as the model does.
    words = [one.strip() + other.strip() for one, other in itertools.pairwise(["", *texts])]
    wanted = [[piece.replace(WORD_START, " ") for piece in each] for each in model.encode(words, out_type=str)]
    for kind in get_args(Kind):
        pieces = Pieces(kind, texts, scores)
        if all([texts[i] for i in pieces.encode(word)] == each for word, each in zip(words, wanted, strict=True)):
            return pieces
    rule, advice = "divide words by unigram or BPE and not change them", "Make another with lm units."
    raise InputError(f"data.units {path} must {rule}, got another SentencePiece model. {advice}")


def load_sentencepiece(what: str) -> Any:
    """Imports the package sentencepiece.

    Raises:
        InputError: it is missing; `what` needs it.
    """
    try:
        import sentencepiece
    except ImportError as error:
        advice = "Install it: pip install 'sentencepiece>=0.2.1,<0.3'."
        raise InputError(f"{what} must find the package sentencepiece, got: {error}. {advice}") from error
    return sentencepiece

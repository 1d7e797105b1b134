"""Modified Kneser-Ney smoothing: from sentences to an n-gram model with back-off, and to its ARPA file.

An n-gram is a row of its order's level: its last word, and the rows of the next lower order for what is left without
the last word (its prefix, the context) and without the first (its suffix, what the estimate is interpolated with).

Source: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1998, sections 4.1.6 and
5.2.2; the start of sentences and the unknown word as in Heafield et al., "Scalable Modified Kneser-Ney Language Model
Estimation", 2013, section 3. Differs: discounts that are undefined, or not above 0, are `FALLBACK`.
"""

import gzip
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds2_jax.system.errors import InputError
from ds2_jax.system.files import writing

SPECIAL = ("<unk>", "<s>", "</s>")
"""The first words of every vocabulary."""
UNKNOWN, START, END = range(3)
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of n-grams seen once, twice and more often, for orders that have too few n-grams for their own."""
NEVER = -99.0
"""What ARPA files have for the logarithm of 0."""
ROWS_AT_ONCE = 200_000
"""N-grams that are turned into text together."""


class Level(NamedTuple):
    """The n-grams of one order, [n] each, sorted by their words.

    Attributes:
        words: int64, the last word.
        prefixes: int64, row in the next lower order of the words before the last; 0 for unigrams.
        suffixes: int64, row in the next lower order of the words behind the first; 0 for unigrams.
        counts: int64, adjusted: how often it occurs for the highest order and behind <s>, else how many different words
            it occurs behind. 0 for the unigrams <unk> and <s>.
    """

    words: np.ndarray
    prefixes: np.ndarray
    suffixes: np.ndarray
    counts: np.ndarray


class Discounts(NamedTuple):
    """What is taken off counts of 1, 2, and 3 or more, and given to the next lower order.

    Attributes:
        amounts: [3], each above 0.
        counts_of_counts: [4], how many n-grams have an adjusted count of 1, 2, 3, 4.
        fallback: whether the amounts are `FALLBACK`.
    """

    amounts: tuple[float, ...]
    counts_of_counts: tuple[int, ...]
    fallback: bool


class Model(NamedTuple):
    """An interpolated n-gram model, an entry an order, from unigrams on.

    Attributes:
        levels: its n-grams.
        discounts: what they were estimated with.
        log_probs: [n] float64, log10 of the probability of the last word behind the others; `NEVER` for <s>.
        backoffs: [n] float64, log10 of the weight of the shorter context behind this n-gram; 0 where nothing follows.
    """

    levels: Sequence[Level]
    discounts: Sequence[Discounts]
    log_probs: Sequence[np.ndarray]
    backoffs: Sequence[np.ndarray]


def count_ngrams(tokens: np.ndarray, order: int, num_words: int) -> list[Level]:
    """Counts n-grams; none spans two sentences.

    Args:
        tokens: [S] int, sentences end to end, each from START to END. No other token is either of these, or UNKNOWN.
        order: of the longest n-grams, at least 1 and at most the tokens of the longest sentence.
        num_words: of the vocabulary, `SPECIAL` included.

    Returns:
        A level for each order. The first has every word of the vocabulary.
    """
    starts = np.flatnonzero(tokens == START)
    ends = np.append(starts[1:], len(tokens))
    left = np.repeat(ends, ends - starts) - np.arange(len(tokens))  # tokens from here to the sentence's end
    rows = tokens.astype(np.int64)  # [S] row of the n-gram that starts here
    counts = np.bincount(tokens, minlength=num_words)
    counts[START] = 0  # it is given, never predicted
    zeros = np.zeros(num_words, np.int64)
    levels = [Level(np.arange(num_words), zeros, zeros, counts)]
    for size in range(2, order + 1):
        places = np.flatnonzero(left >= size)
        keys = rows[places] * num_words + tokens[places + size - 1]
        # Keys sort as their words do, because the rows of the prefixes do.
        keys, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        level = Level(keys % num_words, keys // num_words, rows[places[first] + 1], counts)
        below = levels[-1]
        behind = np.bincount(level.suffixes, minlength=len(below.words))
        if size == 2:
            below.counts[:] = behind
        else:  # what begins with <s> has nothing before it
            below.counts[behind > 0] = behind[behind > 0]
        levels.append(level)
        rows[places] = inverse
    return levels


def estimate(levels: Sequence[Level]) -> Model:
    """Discounts every order and interpolates it with the next lower one, unigrams with the uniform distribution.

    Args:
        levels: from `count_ngrams`, of at least one sentence.
    """
    discounts = [_discounts(level.counts) for level in levels]
    lower = np.array([1 / (len(levels[0].words) - 1)])  # all words but <s>, <unk> among them
    log_probs, backoffs = [], []
    for level, discount in zip(levels, discounts, strict=True):
        amounts = np.array([0.0, *discount.amounts])[np.minimum(level.counts, 3)]
        totals = np.bincount(level.prefixes, level.counts, minlength=len(lower))
        given = np.bincount(level.prefixes, amounts, minlength=len(lower))
        weights = np.divide(given, totals, out=np.ones_like(given), where=totals > 0)
        probs = (level.counts - amounts) / totals[level.prefixes] + weights[level.prefixes] * lower[level.suffixes]
        log_probs.append(np.log10(probs))
        backoffs.append(np.log10(weights))
        lower = probs
    log_probs[0][START] = NEVER
    return Model(levels, discounts, log_probs, [*backoffs[1:], np.zeros(len(lower))])


def _discounts(counts: np.ndarray) -> Discounts:
    n1, n2, n3, n4 = (int(n) for n in np.bincount(np.minimum(counts, 5), minlength=6)[1:5])
    if n1 and n2 and n3:
        share = n1 / (n1 + 2 * n2)
        amounts = (1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
        if min(amounts) > 0:
            return Discounts(amounts, (n1, n2, n3, n4), fallback=False)
    return Discounts(FALLBACK, (n1, n2, n3, n4), fallback=True)


def score(model: Model, tokens: np.ndarray) -> np.ndarray:
    """Scores sentences with the longest n-grams that the model has.

    Args:
        model: from `estimate`.
        tokens: [S] int, sentences end to end, each from START to END; UNKNOWN for words that the model lacks.

    Returns:
        [S] float64, log10 of the probability of each token behind those before it in its sentence; 0 for START.
    """
    num_words = len(model.levels[0].words)
    scores = np.take(model.log_probs[0], tokens)
    contexts = tokens.astype(np.int64)  # [S] row of the n-gram that ends here, -1 where the level has none
    for size, level in enumerate(model.levels[1:], start=2):
        before = np.append(-1, contexts[:-1])  # which ends at the token before
        keys = level.prefixes * num_words + level.words
        wanted = before * num_words + tokens
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = (before >= 0) & (keys[places] == wanted)
        scores = np.where(found, model.log_probs[size - 1][places], scores)
        missed = (before >= 0) & ~found
        scores[missed] += model.backoffs[size - 2][before[missed]]
        contexts = np.where(found, places, -1)
    scores[tokens == START] = 0.0
    return scores


def write_arpa(path: Path, model: Model, words: Sequence[str]) -> None:
    """Writes an ARPA file, the n-grams of each order sorted by their words; a crash leaves the old file.

    Args:
        path: compressed with gzip where its name ends in .gz, the same bytes at any time.
        model: from `estimate`.
        words: of the vocabulary, `SPECIAL` first.

    Raises:
        InputError: it is a folder or cannot be written.
    """
    if path.is_dir():
        raise InputError(f"--out must be a file, got {path}, which is a folder. Add a name, such as lm.arpa.gz.")
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("wb") as file:
                raw = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.name.endswith(".gz") else file
                with io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as text:
                    text.writelines(_arpa_lines(model, words))
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _arpa_lines(model: Model, words: Sequence[str]) -> Iterator[str]:
    """Lines of the file, many to a string."""
    yield "\\data\\\n"
    for order, level in enumerate(model.levels, start=1):
        yield f"ngram {order}={len(level.words)}\n"
    vocabulary = np.array(words, object)
    for order, level in enumerate(model.levels, start=1):
        yield f"\n\\{order}-grams:\n"
        last = order == len(model.levels)
        form = "%.6f\t" + " ".join(["%s"] * order) + ("\n" if last else "\t%.6f\n")
        for begin in range(0, len(level.words), ROWS_AT_ONCE):
            rows = np.arange(begin, min(begin + ROWS_AT_ONCE, len(level.words)))
            columns = [model.log_probs[order - 1][rows], *_spell(model.levels[:order], rows, vocabulary)]
            columns += [] if last else [model.backoffs[order - 1][rows]]
            yield "".join(map(form.__mod__, zip(*(column.tolist() for column in columns), strict=True)))
    yield "\n\\end\\\n"


def _spell(levels: Sequence[Level], rows: np.ndarray, vocabulary: np.ndarray) -> list[np.ndarray]:
    """The words of n-grams of the last level, [n] object for each place, from the first on."""
    columns = []
    for level in reversed(levels):
        columns.append(vocabulary[level.words[rows]])
        rows = level.prefixes[rows]
    return columns[::-1]

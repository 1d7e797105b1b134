"""Modified Kneser-Ney smoothing: estimates an n-gram model with back-off from sentences and writes an ARPA file.

An n-gram is a row in the level of its order. It stores its last word and two rows of the next lower order: its prefix
(the n-gram without the last word, which is the context) and its suffix (the n-gram without the first word, with which
the estimate is interpolated).

Source: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1998, sections 4.1.6 and
5.2.2. The start of sentences and the unknown word follow Heafield et al., "Scalable Modified Kneser-Ney Language Model
Estimation", 2013, section 3.
Differs: discounts that are undefined or not positive are replaced by `FALLBACK`.
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
"""Discounts of n-grams counted once, twice and more often, for orders from which discounts cannot be estimated."""
NEVER = -99.0
"""Stands for the logarithm of 0 in ARPA files."""
ROWS_AT_ONCE = 200_000
"""Number of n-grams that are formatted together."""


class Level(NamedTuple):
    """The n-grams of one order, [n] each, sorted by their words.

    Attributes:
        words: int64, the last word.
        prefixes: int64, row of the prefix in the next lower order; 0 for unigrams.
        suffixes: int64, row of the suffix in the next lower order; 0 for unigrams.
        counts: int64, adjusted counts. For n-grams of the highest order and those that begin with <s>, the number of
            occurrences. For others, the number of different words that precede them. 0 for the unigrams <unk> and <s>.
    """

    words: np.ndarray
    prefixes: np.ndarray
    suffixes: np.ndarray
    counts: np.ndarray


class Discounts(NamedTuple):
    """The discounts that are subtracted from counts of 1, 2, and 3 or more, and given to the next lower order.

    Attributes:
        amounts: [3], the discounts, all positive.
        counts_of_counts: [4], the number of n-grams with an adjusted count of 1, 2, 3 and 4.
        fallback: whether the discounts are `FALLBACK`.
    """

    amounts: tuple[float, ...]
    counts_of_counts: tuple[int, ...]
    fallback: bool


class Model(NamedTuple):
    """An interpolated n-gram model. Each attribute has one entry for each order, unigrams first.

    Attributes:
        levels: the n-grams.
        discounts: the discounts of the estimate.
        log_probs: [n] float64, log10 probability of the last word given the others; `NEVER` for <s>.
        backoffs: [n] float64, log10 of the back-off weight after this n-gram; 0 if no word follows it in the text.
    """

    levels: Sequence[Level]
    discounts: Sequence[Discounts]
    log_probs: Sequence[np.ndarray]
    backoffs: Sequence[np.ndarray]


def count_ngrams(tokens: np.ndarray, order: int, num_words: int) -> list[Level]:
    """Counts n-grams. No n-gram spans two sentences.

    Args:
        tokens: [S] int, the concatenated sentences, each from START to END. The tokens between are none of `SPECIAL`.
        order: order of the longest n-grams, at least 1 and at most the number of tokens in the longest sentence.
        num_words: size of the vocabulary, including `SPECIAL`.

    Returns:
        A level for each order. The first has every word of the vocabulary.
    """
    starts = np.flatnonzero(tokens == START)
    ends = np.append(starts[1:], len(tokens))
    left = np.repeat(ends, ends - starts) - np.arange(len(tokens))  # tokens from here to the end of the sentence
    rows = tokens.astype(np.int64)  # [S] row of the n-gram that starts here
    counts = np.bincount(tokens, minlength=num_words)
    counts[START] = 0  # never predicted
    zeros = np.zeros(num_words, np.int64)
    levels = [Level(np.arange(num_words), zeros, zeros, counts)]
    for size in range(2, order + 1):
        places = np.flatnonzero(left >= size)
        keys = rows[places] * num_words + tokens[places + size - 1]
        # Sorting the keys sorts the n-grams by their words, because prefix rows are already in word order.
        keys, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        level = Level(keys % num_words, keys // num_words, rows[places[first] + 1], counts)
        below = levels[-1]
        behind = np.bincount(level.suffixes, minlength=len(below.words))
        if size == 2:
            below.counts[:] = behind
        else:  # no word precedes n-grams that begin with <s>
            below.counts[behind > 0] = behind[behind > 0]
        levels.append(level)
        rows[places] = inverse
    return levels


def estimate(levels: Sequence[Level]) -> Model:
    """Discounts each order and interpolates it with the next lower one, and unigrams with the uniform distribution.

    Args:
        levels: the result of `count_ngrams` for at least one sentence.
    """
    discounts = [_discounts(level.counts) for level in levels]
    lower = np.array([1 / (len(levels[0].words) - 1)])  # all words except <s>, including <unk>
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
    """Scores sentences with the longest n-grams of the model.

    Args:
        model: the result of `estimate`.
        tokens: [S] int, the concatenated sentences, each from START to END. UNKNOWN stands for unknown words.

    Returns:
        [S] float64, log10 probability of each token given the tokens before it in its sentence; 0 for START.
    """
    num_words = len(model.levels[0].words)
    scores = np.take(model.log_probs[0], tokens)
    contexts = tokens.astype(np.int64)  # [S] row of the n-gram that ends here, -1 if the level has none
    for size, level in enumerate(model.levels[1:], start=2):
        before = np.append(-1, contexts[:-1])  # the n-gram that ends at the previous token
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
    """Writes an ARPA file. The n-grams of each order are sorted by their words. A crash leaves the old file.

    Args:
        path: the file, compressed with gzip if its name ends in .gz. The same model always gives the same bytes.
        model: the result of `estimate`.
        words: the vocabulary, `SPECIAL` first.

    Raises:
        InputError: the path is a folder or cannot be written.
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
    """Yields the lines of the file, many in each string."""
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
    """Returns the words of n-grams of the last level: [n] object for each position, the first position first."""
    columns = []
    for level in reversed(levels):
        columns.append(vocabulary[level.words[rows]])
        rows = level.prefixes[rows]
    return columns[::-1]

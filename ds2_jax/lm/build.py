"""`lm build`: builds an n-gram model from text and writes it as an ARPA file."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from ds2_jax.lm.kneser_ney import END, FALLBACK, START, UNKNOWN, Model, count_ngrams, estimate, score, write_arpa
from ds2_jax.lm.text import OnUnknown, Text, read_texts
from ds2_jax.runs.overrides import AlphabetSettings, read_settings
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.program import command
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

MAX_ORDER = 9
UNCHANGED = AlphabetSettings()
Texts = Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="TEXT [TEXT ...]", help_behavior_hint="(required)"),
]


class Fit(NamedTuple):
    """How well a model predicts a text.

    Attributes:
        perplexity: perplexity per word. It counts ends of sentences, but no unknown words.
        num_words: number of words in the text.
        num_unknown: number of words that are not in the vocabulary.
    """

    perplexity: float
    num_words: int
    num_unknown: int


def build(
    texts: Texts,
    out: Path,
    order: int = 3,
    config: Path | None = None,
    run: Path | None = None,
    data: AlphabetSettings = UNCHANGED,
    on_unknown: OnUnknown = "error",
    test: Path | None = None,
) -> int:
    """Builds an n-gram model from text, with interpolated modified Kneser-Ney smoothing and without pruning.

    Sentences are normalised like transcripts, and the alphabet must be able to spell them. N-grams consist of words. If
    the alphabet has no space, they consist of characters, and spaces in the text are ignored. The vocabulary contains
    all words of the text. Where discounts cannot be estimated from the n-grams of an order, they are 0.5, 1 and 1.5,
    and a warning says so.

    Args:
        texts: UTF-8 text with one sentence a line, plain or gzipped, or - for standard input. Manifests (.jsonl, .json)
            and TensorFlow data sets (tfds:NAME#SPLIT) are read for their transcripts.
        out: ARPA file to write, compressed if its name ends in .gz. An existing file is replaced.
        order: number of words in the longest n-grams, 1 to 9.
        config: configuration file or name of a recipe whose alphabet to use. The default alphabet is English.
        run: folder of a training run whose alphabet to use instead.
        data: settings that replace those of --config or --run.
        on_unknown: what to do with a sentence that has characters outside the alphabet, or the words <s>, </s> or
            <unk>. error: stop and list them. skip: leave the sentence out and count it.
        test: another text, not among TEXT, on which to measure the model's perplexity.

    Returns:
        0.

    Raises:
        InputError: the settings or a text cannot be read, a sentence cannot be spelled, the order is out of range or
            too large for the text, or `out` cannot be written.
    """
    require(1 <= order <= MAX_ORDER, "--order", f"be 1 to {MAX_ORDER}", order)
    check_places([*texts, *([test] if test else [])], out)
    settings, source = read_settings(config, run, data=data)
    alphabet = Alphabet.of_characters(settings.data)
    print(f"alphabet {alphabet.characters!r}: {source}", flush=True)
    text = read_texts(texts, alphabet, on_unknown)
    print("\n".join(describe_text(text, spaced=alphabet.spaced)), flush=True)
    held_out = read_texts([test], alphabet, on_unknown) if test is not None else None
    model = make_model(text, order)
    print("\n".join(describe_model(model)), flush=True)
    for warning in warnings(model):
        logger.warning(f"warning: {warning}")
    write_arpa(out, model, text.words)
    if held_out is not None:
        print(f"{test}: {describe_fit(fit(model, text.words, held_out))}")
        print("\n".join(_left_out(held_out)), end="\n" if held_out.num_unknown or held_out.num_empty else "")
    use = command("evaluate", run or "RUN", "--lm", out)
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB. To use it: {use}")
    return 0


def check_places(texts: Sequence[Path], out: Path) -> None:
    """Raises InputError if there is no text, or `out` is a folder or one of the texts."""
    if not texts:
        raise InputError("TEXT must name at least one file, got none. Add it, or - for standard input.")
    if out.is_dir():
        raise InputError(f"--out must be a file, got {out}, which is a folder. Name the file.")
    if any(out.exists() and path.exists() and out.samefile(path) for path in texts):
        raise InputError(f"--out must differ from every text, got {out} for both. Give another name.")


def make_model(text: Text, order: int) -> Model:
    """Estimates the n-gram model of a text.

    Raises:
        InputError: no sentence is long enough for the order.
    """
    starts, ends = np.flatnonzero(text.tokens == START), np.flatnonzero(text.tokens == END)
    longest = int((ends - starts).max()) + 1
    rule = f"be at most {longest}, the number of words in the longest sentence including <s> and </s>"
    require(order <= longest, "--order", rule, order, "Give a smaller one.")
    return estimate(count_ngrams(text.tokens, order, len(text.words)))


def fit(model: Model, words: Sequence[str], text: Text) -> Fit:
    """Measures how well a model with these words predicts a text."""
    tokens = text.in_vocabulary(words)
    scored = (tokens != START) & (tokens != UNKNOWN)
    scores = score(model, tokens)[scored]
    return Fit(float(10 ** -scores.mean()), text.num_words, int(np.count_nonzero(tokens == UNKNOWN)))


def describe_text(text: Text, *, spaced: bool) -> Iterator[str]:
    """Describes what was read, and which part of it is not used."""
    unit = "words" if spaced else "characters"
    different = len(text.words) - 3
    yield f"{text.num_sentences:,} sentences, {text.num_words:,} {unit}, {different:,} different"
    yield from _left_out(text)


def _left_out(text: Text) -> Iterator[str]:
    if text.num_empty:
        yield f"  {text.num_empty:,} left out because they have no words"
    if text.num_unknown:
        characters = ", ".join(f"{character!r} in {count:,}" for character, count in text.characters.most_common(10))
        yield f"  {text.num_unknown:,} left out because of characters outside the alphabet: {characters}"
        yield f"  the first: {'; '.join(text.examples)}"


def describe_model(model: Model) -> Iterator[str]:
    """Lists the number of n-grams and the discounts of each order."""
    yield f"{'order':>5}  {'n-grams':>11}  {'D1':>6}  {'D2':>6}  {'D3+':>6}"
    for order, (level, discounts) in enumerate(zip(model.levels, model.discounts, strict=True), start=1):
        amounts = "  ".join(f"{amount:6.4f}" for amount in discounts.amounts)
        yield f"{order:5}  {len(level.words):11,}  {amounts}"


def warnings(model: Model) -> Iterator[str]:
    """Warns of orders that use the fallback discounts."""
    for order, discounts in enumerate(model.discounts, start=1):
        if discounts.fallback:
            counts = ", ".join(f"{count:,}" for count in discounts.counts_of_counts)
            amounts = ", ".join(f"{amount:g}" for amount in FALLBACK)
            yield (
                f"no discounts can be estimated from the {order}-grams ({counts} of them were counted once, twice, 3 "
                f"and 4 times), so the usual {amounts} are used"
            )


def describe_fit(fitted: Fit) -> str:
    """Describes a fit in words."""
    unknown = f"{fitted.num_unknown:,} of {fitted.num_words:,} ({fitted.num_unknown / fitted.num_words:.2%})"
    return f"perplexity {fitted.perplexity:.2f}, with ends of sentences but without unknown words, which are {unknown}"

"""Helpers for tests of the beam search: random outputs, a toy language model, and scores summed over all paths."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ds2_jax.decoding.beam.search import BeamHypothesis
from ds2_jax.decoding.ngram.language_model import LanguageModel, WordScore
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.text.alphabet import Alphabet

UNPRUNED = DecodingOptions(beam_width=2000, beam_threshold=math.inf, label_threshold=-math.inf, max_labels=1000)


def random_log_probs(num_frames: int, num_labels: int, seed: int, sharpness: float = 1.0) -> np.ndarray:
    """Draws logits from a normal distribution and returns their log probabilities, [T', V] float32."""
    logits = np.random.default_rng(seed).normal(0, sharpness, (num_frames, num_labels))
    log_probs: np.ndarray = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return log_probs.astype(np.float32)


def one_hot(labels: list[int], num_labels: int) -> np.ndarray:
    """Returns [T', V] float32 with probability 1 for the label of each frame and 0 for others."""
    with np.errstate(divide="ignore"):
        return np.log(np.eye(num_labels, dtype=np.float32)[labels])


def spoken(text: str | Sequence[int], alphabet: Alphabet, peak: float, seed: int = 0) -> np.ndarray:
    """Draws outputs for a text or labels: two frames for each, one of them blank. A higher `peak` is more certain.

    Returns:
        [T', V] float32, log-probabilities.
    """
    labels = np.zeros(2 * len(text), np.int64)
    labels[::2] = [alphabet.units.index(each) + 1 if isinstance(each, str) else each for each in text]
    logits = np.random.default_rng(seed).normal(0, 1, (len(labels), alphabet.size))
    logits[np.arange(len(labels)), labels] += peak
    log_probs: np.ndarray = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return log_probs.astype(np.float32)


def words_of(labels: tuple[int, ...] | list[int], alphabet: Alphabet) -> tuple[str, ...]:
    """Splits labels into words at spaces, or into characters if the alphabet has no space."""
    text = alphabet.decode(labels)
    return tuple(text.split() if " " in alphabet.characters else text)


def sums_over_paths(log_probs: np.ndarray, alphabet: Alphabet) -> dict[tuple[str, ...], float]:
    """Sums the probability of all paths that spell the same words; returns its logarithm for each text."""
    sums: dict[tuple[str, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        words = words_of([label for label, _ in itertools.groupby(path) if label], alphabet)
        log_prob = sum(float(log_probs[frame, label]) for frame, label in enumerate(path))
        sums[words] = float(np.logaddexp(sums.get(words, -math.inf), log_prob))
    return {words: log_prob for words, log_prob in sums.items() if log_prob > -math.inf}


def by_words(hypotheses: list[BeamHypothesis], alphabet: Alphabet) -> dict[tuple[str, ...], BeamHypothesis]:
    """Maps words to their hypothesis, and checks that no words occur twice."""
    found = {words_of(each.labels, alphabet): each for each in hypotheses}
    assert len(found) == len(hypotheses)
    return found


class ToyModel(LanguageModel):
    """A bigram model with drawn probabilities: decimal logarithms for (previous word, word)."""

    def __init__(self, *vocabulary: str, seed: int = 0) -> None:
        self.order, self.vocabulary, self.begin_state = 2, tuple(sorted(vocabulary)), 0
        names = ["<s>", *self.vocabulary, "<unk>"]
        scores = np.random.default_rng(seed).uniform(-3, 0, (len(names), len(names) + 1))
        self.log10 = {
            (before, word): float(scores[i, j])
            for i, before in enumerate(names)
            for j, word in enumerate([*names[1:], "</s>"])
        }
        self.names = names

    def next_word(self, state: int, word: str) -> tuple[float, int]:
        known = word if word in (*self.vocabulary, "</s>") else "<unk>"
        following = 0 if known == "</s>" else self.names.index(known)
        return self.log10[self.names[state], known], following

    def word_scores(self, sentence: str | Sequence[str], *, begin: bool = True, end: bool = True) -> list[WordScore]:
        raise NotImplementedError  # a search does not call it


def language_score(
    words: tuple[str, ...], model: ToyModel, options: DecodingOptions, hot: Mapping[str, float] | None = None
) -> float:
    """Computes from the definition what the language model and hot words of one word add to the score of a text."""
    assert options.alpha is not None
    assert options.beta is not None
    score, before = 0.0, "<s>"
    for word in words:
        known = word in model.vocabulary
        score += options.alpha * math.log(10) * model.log10[before, word if known else "<unk>"] + options.beta
        before = word if known else "<unk>"
        if not known and word not in (hot or {}):
            score -= options.unknown_penalty * max(1.0, len(word) / 5)
        score += (hot or {}).get(word, 0.0)
    return score + options.alpha * math.log(10) * model.log10[before, "</s>"]

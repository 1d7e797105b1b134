"""Prefix beam search: the likeliest texts of an utterance, with a language model and hot words where there are any."""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ds2_jax.alphabet import Alphabet
from ds2_jax.decoding import beam_kernel as kernel
from ds2_jax.decoding.beam_kernel import HotWords, Rules, Search, Vocabulary
from ds2_jax.decoding.hot_words import automaton, spell
from ds2_jax.decoding.lexicon import empty_vocabulary, make_vocabulary
from ds2_jax.decoding.word_model import UNKNOWN, LanguageModel, WordByWord, WordModel
from ds2_jax.errors import InputError
from ds2_jax.settings import require

NATS = math.log(10)
"""In one unit of a decimal logarithm."""
FIRST_NODES = 4096
"""Room in a new trie."""


@dataclasses.dataclass(frozen=True)
class BeamOptions:
    """How a search is pruned, and what a language model counts.

    Attributes:
        width: the most prefixes that a frame leaves.
        threshold: nats; a prefix whose score is further below the best one's is dropped.
        max_labels: only this many labels, the likeliest of a frame, may follow a prefix.
        label_threshold: nats; labels whose log probability in a frame is below follow none.
        alpha: weight of the language model's log probabilities.
        beta: nats for each word (each label where the alphabet has no space).
        unknown_penalty: nats, taken off for each word that the language model does not know and that is not hot, on top
            of what the model gives for `<unk>`; off a partial word as soon as no known word begins with it.
        closed: no words but the language model's and the hot ones.
    """

    width: int = 128
    threshold: float = 20.0
    max_labels: int = 40
    label_threshold: float = -12.0
    alpha: float = 0.5
    beta: float = 1.5
    unknown_penalty: float = 10.0
    closed: bool = False

    def __post_init__(self) -> None:
        require(self.width >= 1, "--beam-width", "be at least 1", self.width)
        require(self.threshold > 0, "--beam-threshold", "be above 0", self.threshold)
        require(self.max_labels >= 1, "--max-labels", "be at least 1", self.max_labels)
        require(self.label_threshold <= 0, "--label-threshold", "be at most 0", self.label_threshold)
        require(0 <= self.alpha < math.inf, "--alpha", "be at least 0 and finite", self.alpha)
        require(math.isfinite(self.beta), "--beta", "be finite", self.beta)
        finite = 0 <= self.unknown_penalty < math.inf
        require(finite, "--unknown-penalty", "be at least 0 and finite", self.unknown_penalty)


class BeamHypothesis(NamedTuple):
    """A text, as labels.

    Attributes:
        labels: never blank; where several label sequences give the text (they differ in spaces at the ends or repeated
            ones), the likeliest.
        log_prob: nats, of all alignments of all those sequences that the search has kept.
        score: nats, what hypotheses are ranked by: `log_prob` and what language model and hot words add.
    """

    labels: list[int]
    log_prob: float
    score: float


class BeamSearch:
    """Prefix beam search for one alphabet, language model and set of hot words.

    Args:
        alphabet: what the labels stand for.
        options: pruning and weights.
        model: language model of words or, where the alphabet has no space, of its characters.
        name: of the model's file.
        hot_words: words and phrases, each with its boost in nats; below 0 they are heard less easily.

    Raises:
        InputError: the alphabet cannot spell a hot word or any word of the model; a boost is not finite; a closed
            vocabulary is asked for without a language model.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        options: BeamOptions,
        model: LanguageModel | None = None,
        name: str = "",
        hot_words: Mapping[str, float] | None = None,
    ) -> None:
        require(
            not options.closed or model is not None,
            "--closed-vocabulary",
            "go with a language model",
            "none",
            "Add --lm FILE.",
        )
        self._num_labels, self._options = alphabet.size, options
        self._model = WordByWord(model) if model else None
        spelt = spell(hot_words or {}, alphabet)
        self._hot_words = automaton(spelt, alphabet)
        hot = {part for labels in spelt for part in _words(alphabet.decode(labels), alphabet)}
        self._vocabulary = make_vocabulary(model, alphabet, name, hot) if model else empty_vocabulary()
        self._rules = Rules(
            width=options.width,
            threshold=options.threshold,
            max_labels=min(options.max_labels, alphabet.size - 1),
            label_threshold=options.label_threshold,
            space=alphabet.characters.find(" ") + 1 or -1,
            scored=model is not None,
            closed=options.closed,
            unknown_penalty=options.unknown_penalty,
            largest_credit=float(self._hot_words.credits.max()),
        )

    def __call__(self, log_probs: np.ndarray, num_best: int = 1) -> list[BeamHypothesis]:
        """Searches an utterance.

        Args:
            log_probs: [T', V] float32, natural logarithms; -inf is allowed.
            num_best: the most hypotheses to return.

        Returns:
            Hypotheses of distinct texts, the best first, of equal ones by their labels. None only where nothing is
            possible: a frame without a possible label, or a closed vocabulary that allows none.

        Raises:
            InputError: `log_probs` holds NaN.
        """
        progress = self.start()
        progress.read(log_probs)
        return progress.hypotheses(num_best)

    def start(self) -> "Progress":
        """A search that has read no frame."""
        return Progress(self._rules, self._vocabulary, self._hot_words, self._model, self._options, self._num_labels)


def _words(text: str, alphabet: Alphabet) -> list[str]:
    return text.split() if " " in alphabet.characters else list(text)


class Progress:
    """A search under way: what `BeamSearch.start` gives. Reads an utterance in parts, and says what it would be."""

    def __init__(
        self,
        rules: Rules,
        vocabulary: Vocabulary,
        hot_words: HotWords,
        model: WordModel | None,
        options: BeamOptions,
        num_labels: int,
    ) -> None:
        self._rules, self._vocabulary, self._hot_words = rules, vocabulary, hot_words
        self._model, self._options = model, options
        num_candidates = rules.width * (1 + rules.max_labels)
        self._search = Search(
            counts=np.array([1, 1, 0, 0]),  # the root, active
            nodes=np.zeros(max(FIRST_NODES, 4 * rules.width), kernel.NODE),
            actives=np.zeros(rules.width, kernel.ACTIVE),
            following=np.zeros(rules.width, kernel.ACTIVE),
            asking=np.zeros(rules.width, np.int64),
            words=np.zeros(rules.width, np.int64),
            candidates=np.zeros(num_candidates, kernel.CANDIDATE),
            scores=np.zeros(num_candidates),
            order=np.zeros(num_candidates, np.int64),
            taken=np.zeros((rules.width, num_labels), np.bool_),
            labels=np.zeros(num_labels, np.int64),
            row=np.zeros(num_labels),
        )
        root = self._search.nodes[0]
        root["parent"] = root["label"] = root["child"] = root["sibling"] = -1
        root["high"] = len(vocabulary.ids)
        root["state"] = root["word_state"] = model.start if model else 0
        self._search.actives["label"][0] = -np.inf

    def read(self, log_probs: np.ndarray) -> None:
        """Reads the frames that follow, as `BeamSearch.__call__` does."""
        log_probs = np.ascontiguousarray(log_probs, np.float32)
        bad = np.isnan(log_probs).any(1)
        if bad.any():
            raise InputError(
                f"The model's output must be numbers, got NaN in frame {int(bad.argmax())} of {len(bad)}. "
                "Its weights are broken: train again, or take an earlier checkpoint."
            )
        self._search.counts[kernel.FRAME] = 0
        while True:
            wants = kernel.advance(log_probs, self._search, self._rules, self._vocabulary, self._hot_words)
            if wants == kernel.DONE:
                return
            if wants == kernel.ASKS:
                self._answer()
            else:
                nodes = self._search.nodes
                self._search = self._search._replace(nodes=np.concatenate([nodes, np.zeros_like(nodes)]))

    def _answer(self) -> None:
        assert self._model is not None
        count = self._search.counts[kernel.ASKING]
        nodes, asking, words = self._search.nodes, self._search.asking[:count], self._search.words[:count]
        known = words >= 0
        numbers = np.where(known, self._vocabulary.ids[words], UNKNOWN)
        scores, states = self._model.score(nodes["state"][asking], numbers)
        scores = self._options.alpha * NATS * scores + self._options.beta
        nodes["word_score"][asking] = np.where(known, scores, scores - self._options.unknown_penalty)
        nodes["word_state"][asking] = states

    def hypotheses(self, num_best: int) -> list[BeamHypothesis]:
        """What the frames read so far say if the utterance ends with them, as `BeamSearch.__call__` returns it."""
        if self._model is not None and kernel.ask(self._search, self._vocabulary):
            self._answer()
        search = self._search
        words, states = kernel.finals(search, self._vocabulary, self._hot_words, self._rules)
        if self._model is not None:
            words += self._options.alpha * NATS * self._model.end(states)
        texts: dict[bytes, list[int]] = {}
        for slot in np.flatnonzero(words > -np.inf).tolist():
            text = kernel.text_of(search.actives["node"][slot], search.nodes, self._rules.space)
            texts.setdefault(text.tobytes(), []).append(slot)
        hypotheses = []
        for slots in texts.values():
            log_probs = search.actives["total"][slots]
            best = slots[int(log_probs.argmax())]
            log_prob = float(np.logaddexp.reduce(log_probs))
            labels = kernel.labels_of(search.actives["node"][best], search.nodes)
            hypotheses.append(BeamHypothesis(labels.tolist(), log_prob, log_prob + float(words[best])))
        return sorted(hypotheses, key=lambda each: (-each.score, each.labels))[:num_best]

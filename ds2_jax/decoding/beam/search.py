"""Prefix beam search: finds the most likely texts of an utterance, optionally with a language model and hot words."""

import copy
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from ds2_jax.decoding.beam import kernel
from ds2_jax.decoding.beam.arrays import (
    ACTIVE,
    CANDIDATE,
    NODE,
    HotWords,
    Rules,
    Search,
    Spelling,
    Vocabulary,
)
from ds2_jax.decoding.beam.hot_words import automaton, spell
from ds2_jax.decoding.beam.lexicon import empty_vocabulary, make_vocabulary, spelling_of
from ds2_jax.decoding.beam.results import best_node, finals, labels_of, text_of
from ds2_jax.decoding.beam.trie import common_ancestor, cut, drop_rivals
from ds2_jax.decoding.beam.word_model import UNKNOWN, WordModel, word_model
from ds2_jax.decoding.ngram.language_model import LanguageModel
from ds2_jax.decoding.options import DEFAULT_ALPHA, DEFAULT_BETA, DecodingOptions
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

FIRST_NODES = 4096
"""Initial size of the trie."""
SPAN = 512
"""Number of frames after which old rivals are dropped, see RIVAL_LABELS."""
RIVAL_LABELS = 1024
"""A prefix that differs from the best one before the last 1024 labels of that one is dropped. These are more than a
minute of speech, and several with pieces of words. Without this rule, a word with an almost equal rival could stay
undecided for hours, and all labels after it would be in the trie once for each of many active prefixes."""


class BeamHypothesis(NamedTuple):
    """A text, as labels.

    Attributes:
        labels: the labels, without blanks. Label sequences that differ only in repeated spaces, in spaces at the ends,
            or in how they divide words give the same text; this is the most likely of them.
        log_prob: log-probability in nats of all alignments of these sequences that the search has not pruned.
        score: score in nats that ranks hypotheses: `log_prob` plus the scores of language model and hot words.
    """

    labels: list[int]
    log_prob: float
    score: float


class BeamSearch:
    """Prefix beam search with one set of options.

    Args:
        alphabet: what the labels stand for.
        options: pruning, weights and hot words.
        model: the language model of `options.lm`. It models words, or characters if the alphabet has no space.

    Raises:
        InputError: the alphabet cannot spell a hot word, or can spell no word of the model, or a boost is beyond
            LARGEST_WEIGHT.
    """

    def __init__(self, alphabet: Alphabet, options: DecodingOptions, model: LanguageModel | None = None) -> None:
        self._alphabet, self._model = alphabet, model
        self._spelling = spelling_of(alphabet)
        spelt = spell(options.hot_words, alphabet)
        self._hot_words = automaton(spelt, alphabet)
        self._vocabulary = empty_vocabulary()
        if model:
            texts = ("".join(alphabet.characters[letter - 1] for letter in word) for word in spelt)
            hot = {word for text in texts for word in (text.split() if alphabet.spaced else text)}
            self._vocabulary = make_vocabulary(model.with_own_states(), alphabet, str(options.lm), hot)
        self._rules = Rules(
            width=options.width,
            threshold=options.beam_threshold,
            max_labels=min(options.max_labels, alphabet.size - 1),
            label_threshold=options.label_threshold,
            space=alphabet.units.index(" ") + 1 if alphabet.spaced else -1,
            spaced=alphabet.spaced,
            pieces=alphabet.pieces is not None,
            scored=model is not None,
            closed=options.closed_vocabulary,
            unknown_penalty=options.unknown_penalty,
            largest_credit=float(self._hot_words.credits.max()),
        )
        self._weights = (
            math.log(10) * (DEFAULT_ALPHA if options.alpha is None else options.alpha),
            DEFAULT_BETA if options.beta is None else options.beta,
        )

    def __call__(self, log_probs: np.ndarray, num_best: int = 1) -> list[BeamHypothesis]:
        """Searches an utterance.

        Args:
            log_probs: [T', V] float32, natural logarithms; -inf is allowed.
            num_best: the largest number of hypotheses to return.

        Returns:
            Hypotheses with different texts, the best first. Ties are sorted by labels. The list is empty if a
            frame has no possible label, or if a closed vocabulary allows none of the texts in the beam.

        Raises:
            InputError: `log_probs` has NaN or +inf.
        """
        progress = self.start()
        progress.read(log_probs)
        return progress.hypotheses(num_best)

    def knows(self, word: str) -> bool:
        """Whether the language model or the hot words have a word; True without a language model of words."""
        return word in self._known if self._rules.scored and self._rules.spaced else True

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        text = "".join(self._alphabet.characters[letter - 1] for letter in self._vocabulary.letters.tolist())
        return frozenset(text[start:end] for start, end in itertools.pairwise(self._vocabulary.starts.tolist()))

    def weighted(self, alpha: float, beta: float) -> "BeamSearch":
        """Returns this search with other weights. Both share the vocabulary, because building it is slow."""
        other = copy.copy(self)
        other._weights = (math.log(10) * alpha, beta)
        return other

    def start(self) -> "PartialSearch":
        """Starts a search. Any number of searches may run at the same time."""
        model = word_model(self._model) if self._model else None
        return PartialSearch(self._rules, self._spelling, self._vocabulary, self._hot_words, model, self._weights)


class PartialSearch:
    """A running search, made by `BeamSearch.start`. It reads an utterance in parts and gives hypotheses at any time."""

    def __init__(
        self,
        rules: Rules,
        spelling: Spelling,
        vocabulary: Vocabulary,
        hot_words: HotWords,
        model: WordModel | None,
        weights: tuple[float, float],
    ) -> None:
        self._rules, self._spelling, self._vocabulary, self._hot_words = rules, spelling, vocabulary, hot_words
        num_labels = len(spelling.begins)
        self._model, (self._scale, self._beta) = model, weights  # the scale turns log10 into weighted nats
        num_candidates = 2 * rules.width  # when these are full, `_extend` in kernel.py keeps the best
        self._search = Search(
            counts=np.array([1, 1, 0, 0]),  # one node, the root, is active
            nodes=np.zeros(max(FIRST_NODES, 4 * rules.width), NODE),
            actives=np.zeros(rules.width, ACTIVE),
            following=np.zeros(rules.width, ACTIVE),
            asking=np.zeros(rules.width, np.int64),
            words=np.zeros(rules.width, np.int64),
            candidates=np.zeros(num_candidates, CANDIDATE),
            scores=np.zeros(num_candidates),
            order=np.zeros(num_candidates, np.int64),
            taken=np.zeros((rules.width, num_labels), np.bool_),
            labels=np.zeros(num_labels, np.int64),
            row=np.zeros(num_labels),
        )
        root = self._search.nodes[0]
        root["parent"] = root["label"] = root["child"] = root["sibling"] = root["word"] = -1
        root["high"] = len(vocabulary.ids)
        root["state"] = root["word_state"] = model.begin() if model else 0
        self._search.actives["label"][0] = -np.inf
        self._root_labels = np.zeros(0, np.int32)
        self._num_frames = 0

    def read(self, log_probs: np.ndarray) -> None:
        """Reads the next frames. Arguments and errors are those of `BeamSearch.__call__`."""
        log_probs = np.ascontiguousarray(log_probs, np.float32)
        assert log_probs.shape[1] == len(self._search.row)
        bad = ~(log_probs < np.inf)
        if bad.any():
            frame, label = np.argwhere(bad)[0]
            raise InputError(
                f"The model's output must be numbers below infinity, got {log_probs[frame, label]} in frame {frame} of "
                f"{len(log_probs)}. Use weights from before the training diverged."
            )
        while len(log_probs):
            block = log_probs[: SPAN - self._num_frames % SPAN]
            self._advance(block)
            self._num_frames += len(block)
            if self._num_frames % SPAN == 0:
                self._drop_rivals()
            log_probs = log_probs[len(block) :]

    def _advance(self, log_probs: np.ndarray) -> None:
        self._search.counts[kernel.FRAME] = 0
        while True:
            wants = kernel.advance(
                log_probs, self._search, self._rules, self._spelling, self._vocabulary, self._hot_words
            )
            if wants == kernel.DONE:
                return
            if wants == kernel.ASKS:
                self._answer()
            else:
                self._make_room()

    def _drop_rivals(self) -> None:
        self._search.counts[kernel.ACTIVES] = drop_rivals(
            self._best_node(), self._actives(), self._search.nodes, RIVAL_LABELS
        )

    def _best_node(self) -> int:
        if not self._rules.spaced:
            self._score_words()
        return best_node(self._actives(), self._search.nodes, self._rules.spaced)

    def _make_room(self) -> None:
        """Cuts the trie, and doubles its size if it would soon be full again."""
        self._cut()
        nodes = self._search.nodes
        if self._search.counts[kernel.NODES] + self._rules.width > len(nodes) // 2:
            self._search = self._search._replace(nodes=np.concatenate([nodes, np.zeros_like(nodes)]))

    def _cut(self) -> None:
        """Drops all prefixes that no hypothesis can begin with any more, see trie.py."""
        counts, nodes, actives = self._search.counts, self._search.nodes, self._actives()
        if len(actives) == 0:
            return
        root = common_ancestor(actives, nodes)
        self._root_labels = np.concatenate([self._root_labels, labels_of(root, nodes)])
        counts[kernel.NODES] = cut(root, actives, nodes, counts[kernel.NODES])
        if self._model is not None:
            left = nodes[: counts[kernel.NODES]]
            self._model.keep(np.concatenate([left["state"], left["word_state"]]))

    def _actives(self) -> np.ndarray:
        return self._search.actives[: self._search.counts[kernel.ACTIVES]]

    def _answer(self) -> None:
        assert self._model is not None
        count = self._search.counts[kernel.ASKING]
        nodes, asking, words = self._search.nodes, self._search.asking[:count], self._search.words[:count]
        known = words >= 0
        numbers = np.where(known, self._vocabulary.ids[words], UNKNOWN)
        scores, states = self._model.score(nodes["state"][asking], numbers)
        scores = self._scale * scores + self._beta
        penalties = self._rules.unknown_penalty * np.maximum(1.0, nodes["length"][asking] / kernel.LETTERS)
        nodes["word_score"][asking] = np.where(known, scores, scores - penalties)
        nodes["word_state"][asking] = states

    def _score_words(self) -> None:
        """Gets the scores of the active prefixes' last words."""
        if self._model is not None and kernel.ask(self._search):
            self._answer()

    def _labels_of(self, node: int) -> np.ndarray:
        return np.concatenate([self._root_labels, labels_of(node, self._search.nodes)])

    def best(self) -> tuple[list[int], int]:
        """Finds the prefix that ranks best in the beam now, and how much of it is settled.

        Returns:
            The labels of this prefix, and the number N of labels that no later frame can change. All prefixes in the
            beam begin with the first N labels, and so do the hypotheses after later frames. The last word of the
            prefix, which may be incomplete, has no score of the language model yet. If nothing is left in the beam, the
            labels are the last ones that were known to be settled.
        """
        self._cut()
        return self._labels_of(self._best_node()).tolist(), len(self._root_labels)

    def hypotheses(self, num_best: int) -> list[BeamHypothesis]:
        """Returns the hypotheses of `BeamSearch.__call__` as if the utterance ended with the frames read so far."""
        self._score_words()
        nodes, actives = self._search.nodes, self._actives()
        words, states = finals(actives, nodes, self._hot_words.awards, self._rules.closed)
        if self._model is not None:
            words += self._scale * self._model.end(states)
        texts: dict[bytes, list[int]] = {}
        for slot in np.flatnonzero(words > -np.inf).tolist():
            text = text_of(actives["node"][slot], nodes, self._spelling, self._rules.spaced)
            texts.setdefault(text.tobytes(), []).append(slot)
        found = []
        for slots in texts.values():
            log_probs = actives["total"][slots].tolist()
            log_prob = log_probs[0] if len(slots) == 1 else float(np.logaddexp.reduce(log_probs))
            best = slots[log_probs.index(max(log_probs))]
            found.append((log_prob + float(words[best]), log_prob, best))
        found.sort(reverse=True)
        least = found[:num_best][-1][0] if found else 0.0  # ties at this score are sorted by labels
        hypotheses = [
            BeamHypothesis(self._labels_of(actives["node"][slot]).tolist(), log_prob, score)
            for score, log_prob, slot in found
            if score >= least
        ]
        return sorted(hypotheses, key=lambda each: (-each.score, each.labels))[:num_best]

"""The decoding options of `evaluate` and `transcribe`, and their checks."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError

Combination = Literal["average", "rover"]
"""How several models recognise together: see `runs.ensembles`."""
HotWord = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="WORD=BOOST")]

DEFAULT_ALPHA, DEFAULT_BETA = 0.5, 0.5
LARGEST_WEIGHT = 1000.0
"""The largest weight of a language model, a word or a boost. It is far above useful values, and sums of scores stay far
from overflow."""
WIDEST = 2**16
"""The largest number of prefixes in a beam. A wider beam would need gigabytes."""


@dataclasses.dataclass(frozen=True)
class DecodingOptions:
    """Greedy decoding by default. A language model, hot words, a beam width or `num_best` > 1 select beam search."""

    lm: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """n-gram language model: an ARPA file, plain or gzipped, or a KenLM binary. It models words, or characters if the
    alphabet has no space."""
    alpha: float | None = None
    """Weight of the language model's log-probabilities. The default is what `lm tune` found for this run, or 0.5."""
    beta: float | None = None
    """Nats to add for each word, or for each character if the alphabet has no space. The default is what `lm tune`
    found for this run, or 0.5."""
    unknown_penalty: float = 5.0
    """Nats to subtract for each word of up to five letters that the language model does not know, in addition to its
    score for <unk>. A longer word pays in proportion to its length, so that known words are not glued together. The
    penalty applies to a partial word as soon as no known word begins with it. Hot words are known."""
    closed_vocabulary: bool = False
    """Allow only words of the language model and hot words."""
    hot_word: HotWord = ()
    """A word or phrase to recognise more easily, and its boost in nats. A negative boost makes it less likely. You can
    repeat this option."""
    num_best: int = 1
    """Largest number of hypotheses to return for each utterance."""
    beam_width: int | None = None
    """Number of prefixes that beam search keeps at each frame; 128 by default."""
    beam_threshold: float = 14.0
    """Beam search drops prefixes whose score is more than this many nats below the best one."""
    max_labels: int = 40
    """Largest number of labels by which a frame may extend a prefix. The most likely labels of the frame are used."""
    label_threshold: float = -8.0
    """Smallest log-probability, in nats, with which a label of a frame may extend a prefix."""

    def __post_init__(self) -> None:
        alpha, beta = self.alpha or 0.0, self.beta or 0.0
        penalty, up_to = self.unknown_penalty, f"be 0 to {LARGEST_WEIGHT:g}"
        require(0 <= alpha <= LARGEST_WEIGHT, "--alpha", up_to, self.alpha)
        require(abs(beta) <= LARGEST_WEIGHT, "--beta", f"be {-LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}", self.beta)
        require(0 <= penalty <= LARGEST_WEIGHT, "--unknown-penalty", up_to, penalty)
        if self.lm is None:
            for name in ("alpha", "beta"):
                value = getattr(self, name)
                require(value is None, f"--{name}", "be used with a language model", value, "Add --lm FILE.")
            closed = self.closed_vocabulary
            require(not closed, "--closed-vocabulary", "be used with a language model", closed, "Add --lm FILE.")
        require(self.num_best >= 1, "--num-best", "be at least 1", self.num_best)
        require(self.num_best <= WIDEST, "--num-best", f"be at most {WIDEST}", self.num_best)
        require(1 <= self.width <= WIDEST, "--beam-width", f"be 1 to {WIDEST}", self.beam_width)
        advice = f"Widen the beam: --beam-width {self.num_best}."
        require(self.num_best <= self.width, "--num-best", "be at most the beam's width", self.num_best, advice)
        require(self.beam_threshold > 0, "--beam-threshold", "be above 0", self.beam_threshold)
        require(self.max_labels >= 1, "--max-labels", "be at least 1", self.max_labels)
        require(self.label_threshold <= 0, "--label-threshold", "be at most 0", self.label_threshold)
        self.hot_words  # noqa: B018 - checks them

    @property
    def beam(self) -> bool:
        """Whether to use beam search."""
        return bool(self.lm or self.hot_word or self.num_best > 1 or self.beam_width is not None)

    @property
    def width(self) -> int:
        """Number of prefixes in the beam."""
        return 128 if self.beam_width is None else self.beam_width

    @property
    def hot_words(self) -> dict[str, float]:
        """The boost in nats of each hot word.

        Raises:
            InputError: an option is not of the form WORD=BOOST, or a word occurs twice.
        """
        found = {}
        for each in self.hot_word:
            word, _, boost = each.rpartition("=")
            try:
                found[word] = float(boost)
            except ValueError:
                raise InputError(
                    f"--hot-word must be WORD=BOOST, with the boost in nats, got {each!r}. "
                    f"Try --hot-word {shlex.quote((word or each or 'WORD') + '=3')}."
                ) from None
            require(bool(word), "--hot-word", "be WORD=BOOST", each)
        require(len(found) == len(self.hot_word), "--hot-word", "name each word once", ", ".join(self.hot_word))
        return found

    def __str__(self) -> str:
        if not self.beam:
            return "greedy"
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        others = [
            f"{name.replace('_', ' ')} {value}" for name, value in given.items() if value != getattr(GREEDY, name)
        ]
        return ", ".join(["beam search", *others])


GREEDY = DecodingOptions()
"""The default options."""

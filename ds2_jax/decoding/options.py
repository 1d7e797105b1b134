"""How utterances are decoded: what `evaluate` and `transcribe` take, and its rules."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError

HotWord = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="WORD=BOOST")]

DEFAULT_ALPHA, DEFAULT_BETA = 0.5, 0.5
LARGEST_WEIGHT = 1000.0
"""Of a language model, a word or a boost: far beyond what is of use, and far below where sums of scores overflow."""
WIDEST = 2**16
"""Prefixes: a wider beam would want gigabytes."""


@dataclasses.dataclass(frozen=True)
class DecodingOptions:
    """Greedy decoding by default; a language model, hot words, a width or several readings ask for beam search."""

    lm: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """n-gram language model: an ARPA file, plain or gzipped, or a KenLM binary. Of words, or of characters where the
    alphabet has no space."""
    alpha: float | None = None
    """Weight of the language model's log probabilities; by default what `lm tune` found for this run, or 0.5."""
    beta: float | None = None
    """Nats for each word, or each character where the alphabet has no space; by default as `alpha`, or 0.5."""
    unknown_penalty: float = 5.0
    """Nats taken off for each word that the language model does not know, on top of what it gives for <unk>; taken off
    a partial word as soon as no known word begins with it. Hot words are known."""
    closed_vocabulary: bool = False
    """No words but the language model's and the hot words."""
    hot_word: HotWord = ()
    """A word or phrase to be heard more easily, and by how many nats; below 0 less easily. May be given repeatedly."""
    num_best: int = 1
    """Readings of an utterance to find."""
    beam_width: int | None = None
    """Prefixes that beam search keeps at each frame, 128 by default."""
    beam_threshold: float = 14.0
    """Nats: prefixes that are further below the best one are dropped."""
    max_labels: int = 40
    """Labels, the likeliest of a frame, that may follow a prefix."""
    label_threshold: float = -8.0
    """Nats: a label whose log probability in a frame is below follows no prefix."""

    def __post_init__(self) -> None:
        alpha, beta = self.alpha or 0.0, self.beta or 0.0
        penalty, up_to = self.unknown_penalty, f"be 0 to {LARGEST_WEIGHT:g}"
        require(0 <= alpha <= LARGEST_WEIGHT, "--alpha", up_to, self.alpha)
        require(abs(beta) <= LARGEST_WEIGHT, "--beta", f"be {-LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}", self.beta)
        require(0 <= penalty <= LARGEST_WEIGHT, "--unknown-penalty", up_to, penalty)
        if self.lm is None:
            for name in ("alpha", "beta"):
                value = getattr(self, name)
                require(value is None, f"--{name}", "go with a language model", value, "Add --lm FILE.")
            closed = self.closed_vocabulary
            require(not closed, "--closed-vocabulary", "go with a language model", closed, "Add --lm FILE.")
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
        """Whether beam search is asked for."""
        return bool(self.lm or self.hot_word or self.num_best > 1 or self.beam_width is not None)

    @property
    def width(self) -> int:
        """Of the beam."""
        return 128 if self.beam_width is None else self.beam_width

    @property
    def hot_words(self) -> dict[str, float]:
        """Boosts in nats by word.

        Raises:
            InputError: one is not of the form WORD=BOOST, or is named twice.
        """
        found = {}
        for each in self.hot_word:
            word, _, boost = each.rpartition("=")
            try:
                found[word] = float(boost)
            except ValueError:
                raise InputError(
                    f"--hot-word must be WORD=BOOST, with the boost in nats, got {each!r}. "
                    f"Try --hot-word {(word or each or 'WORD') + '=3'!r}."
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
"""What none is given for."""

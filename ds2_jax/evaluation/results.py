"""The results of a split, their error rates, and the files that store them."""

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ds2_jax.data.manifest import Utterance
from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.evaluation.error_rates import ErrorCount, Weights, char_errors, word_errors
from ds2_jax.evaluation.provenance import Provenance
from ds2_jax.system.checks import build, require
from ds2_jax.system.errors import NO_JSON, InputError, advice_for
from ds2_jax.system.files import write_text


@dataclasses.dataclass(frozen=True)
class Result:
    """What was said in an utterance, and what was recognised.

    Attributes:
        utterance: the utterance of the manifest.
        reference: its normalised transcript.
        hypothesis: the text of the best reading.
        readings: all readings of the decoder, the best first; empty if the result was read from a file.
        weights: how word errors are weighed against each other.
    """

    utterance: Utterance
    reference: str
    hypothesis: str
    readings: Sequence[Hypothesis] = ()
    weights: Weights = "equal"

    @functools.cached_property
    def words(self) -> ErrorCount:
        """Word errors."""
        return word_errors(self.reference, self.hypothesis, self.weights)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of a split and their corpus error rates.

    Attributes:
        results: one for each utterance.
        loss: mean CTC loss of the utterances that CTC can align, in nats; None if the texts come from elsewhere.
        unalignable: number of utterances without a loss: too few frames, an empty transcript, or characters outside the
            alphabet.
        left_out: number of utterances that were not evaluated; the run's files of skipped utterances list the reasons.
        provenance: what made the results; None for those of older versions.
    """

    results: Sequence[Result]
    loss: float | None
    unalignable: int = 0
    left_out: int = 0
    provenance: Provenance | None = None

    @functools.cached_property
    def words(self) -> ErrorCount:
        """Word errors of the split."""
        return sum((result.words for result in self.results), start=ErrorCount())

    def characters(self, *, spaces: bool) -> ErrorCount:
        """Character errors of the split, with or without the spaces between words."""
        pairs = ((result.reference, result.hypothesis) for result in self.results)
        return sum((char_errors(*pair, spaces=spaces) for pair in pairs), start=ErrorCount())

    @property
    def rates(self) -> dict[str, float]:
        """The error rates as fractions, and the loss if it is known."""
        return {
            **({} if self.loss is None else {"loss": self.loss}),
            "wer": self.words.rate,
            "cer": self.characters(spaces=False).rate,
            "cer_with_spaces": self.characters(spaces=True).rate,
        }

    @property
    def summary(self) -> dict[str, Any]:
        """The error rates with their counts, and what made them, for JSON."""
        counts = {
            "wer_counts": self.words,
            "cer_counts": self.characters(spaces=False),
            "cer_with_spaces_counts": self.characters(spaces=True),
        }
        details = {name: dataclasses.asdict(count) for name, count in counts.items()}
        numbers = {"utterances": len(self.results), "unalignable": self.unalignable, "left_out": self.left_out}
        made_by = {"provenance": dataclasses.asdict(self.provenance)} if self.provenance else {}
        return numbers | self.rates | details | made_by

    def __str__(self) -> str:
        words, characters = self.words, self.characters(spaces=False)
        with_spaces = self.characters(spaces=True)
        rates = (
            f"WER {words.rate:.2%} ({words.edits} errors in {words.reference_length} words: "
            f"{words.substitutions} substituted, {words.deletions} deleted, {words.insertions} inserted), "
            f"CER {characters.rate:.2%} ({characters.edits} in {characters.reference_length} characters; "
            f"{with_spaces.rate:.2%} with spaces)"
        )
        if not words.reference_length:
            rates = f"no words in the references, so no error rate; {words.insertions} words recognised"
        return (
            f"{rates}, {len(self.results)} utterances"
            + (
                f"; {self.unalignable} without a loss (too short, empty, or unknown characters)"
                if self.unalignable
                else ""
            )
            + (f"; {self.left_out} left out" if self.left_out else "")
        )


def write_evaluation(folder: Path, name: str, evaluation: Evaluation) -> Path:
    """Writes NAME.json (rates, counts, provenance) and NAME.jsonl (one utterance a line, most word errors first).

    Returns:
        The path of NAME.jsonl.

    Raises:
        InputError: the loss is not finite, so the weights are useless; or a file cannot be written.
    """
    if evaluation.loss is None or not np.isfinite(evaluation.loss):
        advice = "The weights are useless: train anew with a lower optim.learning_rate or optim.clip_norm."
        raise InputError(f"The loss of {name} must be finite, got {evaluation.loss}. {advice}")
    path = folder / f"{name}.jsonl"  # first: if NAME.json exists, both files do
    write_utterances(path, evaluation.results)
    write_text(folder / f"{name}.json", json.dumps(evaluation.summary, indent=2, allow_nan=False) + "\n")
    return path


def write_utterances(path: Path, results: Sequence[Result]) -> None:
    """Writes one utterance a line as JSON, those with the most word errors first.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [
        {
            "id": result.utterance.id,
            "word_errors": result.words.edits,
            "reference": result.reference,
            "hypothesis": result.hypothesis,
            "speaker": result.utterance.speaker,
            "audio": str(result.utterance.audio),
        }
        for result in sorted(results, key=lambda result: -result.words.edits)
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_evaluation(folder: Path, name: str) -> Evaluation | None:
    """Reads what `write_evaluation` wrote; None if there is no such evaluation.

    The utterances are in the order of the file, worst first, and have durations of 0.

    Raises:
        InputError: the files are damaged.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").split("\n")  # U+2028 may stand in a transcript
        results = []
        for row in map(json.loads, filter(None, lines)):
            names = ("audio", "reference", "id", "speaker", "hypothesis")
            audio, reference, name, speaker, hypothesis = (build(str, row[each], f"{each}.") for each in names)
            results.append(Result(Utterance(Path(audio), 0.0, reference, name, speaker), reference, hypothesis))
        loss = build(float, summary["loss"], "loss.")
        require(math.isfinite(loss), "loss", "be finite", loss)
        unalignable, left_out = (build(int, summary[each], f"{each}.") for each in ("unalignable", "left_out"))
        made_by = Provenance.read(summary["provenance"]) if "provenance" in summary else None
        return Evaluation(results, loss, unalignable, left_out, made_by)
    except (OSError, KeyError, TypeError, InputError, *NO_JSON) as error:
        reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise InputError(
            f"{path} and {path.stem}.jsonl must hold an evaluation, got {reason}. "
            f"{advice_for(error, f'Delete {path} to evaluate again.')}"
        ) from error

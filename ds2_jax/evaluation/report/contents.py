"""Computes the contents of a report, which the page shows and report.json stores."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ds2_jax.evaluation.error_rates import ErrorCount, char_errors
from ds2_jax.evaluation.reliability import Bin, Reliability, reliability, reliability_bins, right_words
from ds2_jax.evaluation.report.bootstrap import CONFIDENCE, NUM_RESAMPLES, SEED, Bootstrap, Comparison, Interval
from ds2_jax.evaluation.report.breakdown import Confusion, Group, by_length, by_speaker, confusions
from ds2_jax.evaluation.results import Evaluation, Result


class Origin(NamedTuple):
    """What was evaluated and how, for the heading.

    Attributes:
        run: the folder of the run, as the user gave it.
        manifest: the manifest that was evaluated.
        decoding: a description of the decoder.
    """

    run: str
    manifest: str
    decoding: str

    @property
    def title(self) -> str:
        """The heading."""
        return self.run

    @property
    def shown(self) -> dict[str, str]:
        """The lines below the heading."""
        return {"Run": self.run, "Utterances": self.manifest, "Decoding": self.decoding}


class ScoreOrigin(NamedTuple):
    """What was scored and how, for the heading.

    Attributes:
        hypotheses: the file of recognised texts.
        references: the file of references.
        rules: a description of the rules.
    """

    hypotheses: str
    references: str
    rules: str

    @property
    def title(self) -> str:
        """The heading."""
        return self.hypotheses

    @property
    def shown(self) -> dict[str, str]:
        """The lines below the heading."""
        return {"Recognised": self.hypotheses, "References": self.references, "Rules": self.rules}


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything in a report except pictures and sounds.

    Attributes:
        origin: what was evaluated and how.
        evaluation: the results.
        bootstrap: the bootstrap; it and the intervals are None if the references have no words.
        words: interval of the word error rate.
        characters: interval of the character error rate, without spaces.
        speakers: the result of `by_speaker`.
        lengths: the result of `by_length`.
        confusions: word errors by kind.
        reliability: measures of the words' confidences; None if nothing was recognised.
        bins: the words by confidence.
        comparison: comparison with another run; None if there is none.
    """

    origin: Origin | ScoreOrigin
    evaluation: Evaluation
    bootstrap: Bootstrap | None
    words: Interval | None
    characters: Interval | None
    speakers: Sequence[Group]
    lengths: Sequence[Group]
    confusions: Mapping[str, Sequence[Confusion]]
    reliability: Reliability | None
    bins: Sequence[Bin]
    comparison: Comparison | None


def contents(origin: Origin | ScoreOrigin, evaluation: Evaluation, comparison: Comparison | None) -> Contents:
    """Computes a report; `Contents` describes the arguments."""
    results = evaluation.results
    bootstrap = Bootstrap(results) if evaluation.words.reference_length else None
    sure, right = word_confidences(results)
    return Contents(
        origin=origin,
        evaluation=evaluation,
        bootstrap=bootstrap,
        words=bootstrap.interval([result.words for result in results]) if bootstrap else None,
        characters=bootstrap.interval(character_counts(results)) if bootstrap else None,
        speakers=by_speaker(results),
        lengths=by_length(results),
        confusions=confusions(results),
        reliability=reliability(sure, right),
        bins=reliability_bins(sure, right),
        comparison=comparison,
    )


def character_counts(results: Sequence[Result]) -> list[ErrorCount]:
    """Counts the character errors of each utterance, without spaces."""
    return [char_errors(result.reference, result.hypothesis, spaces=False) for result in results]


def word_confidences(results: Sequence[Result]) -> tuple[list[float], list[bool]]:
    """Lists the confidence of every recognised word, and whether it is right."""
    read = [result for result in results if result.readings]
    confidences = [word.confidence for result in read for word in result.readings[0].words]
    right = [each for result in read for each in right_words(result.reference, result.hypothesis)]
    return confidences, right


def as_json(contents: Contents, worst: Sequence[Result]) -> dict[str, Any]:
    """Returns the report as a JSON object; rates are fractions, times are seconds."""
    bootstrap, comparison = contents.bootstrap, contents.comparison
    return {
        **contents.origin._asdict(),
        **contents.evaluation.summary,
        "bootstrap": bootstrap
        and {
            "unit": bootstrap.unit,
            "units": bootstrap.num_units,
            "resamples": NUM_RESAMPLES,
            "seed": SEED,
            "confidence": CONFIDENCE,
        },
        "wer_interval": contents.words,
        "cer_interval": contents.characters,
        "comparison": comparison
        and {
            **vars(comparison),
            "difference": comparison.difference,
            "higher": comparison.higher,
        },
        "speakers": list(map(_group, contents.speakers)),
        "lengths": list(map(_group, contents.lengths)),
        "confusions": {kind: [each._asdict() for each in found] for kind, found in contents.confusions.items()},
        "calibration": contents.reliability
        and dataclasses.asdict(contents.reliability) | {"bins": list(map(dataclasses.asdict, contents.bins))},
        "worst_utterances": list(map(_utterance, worst)),
    }


def _group(group: Group) -> dict[str, Any]:
    return dataclasses.asdict(group) | {"wer": group.words.rate, "cer": group.characters.rate}


def _utterance(result: Result) -> dict[str, Any]:
    heard: dict[str, Any] = {}
    if result.readings:
        best = result.readings[0]
        words = [{name: getattr(word, name) for name in ("text", "start", "end", "confidence")} for word in best.words]
        heard = {"confidence": best.confidence, "words": words}
    return {
        "id": result.utterance.id,
        "speaker": result.utterance.speaker,
        "audio": str(result.utterance.audio),
        "duration": result.utterance.duration,
        "word_errors": result.words.edits,
        "reference": result.reference,
        "hypothesis": result.hypothesis,
        **heard,
    }

"""What a report says, in numbers: the page shows it, report.json keeps it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ds2_jax.evaluation.error_rates import ErrorCount, char_errors
from ds2_jax.evaluation.reliability import Bin, Reliability, reliability, reliability_bins, right_words
from ds2_jax.evaluation.report.bootstrap import CONFIDENCE, NUM_RESAMPLES, SEED, Bootstrap, Comparison, Interval
from ds2_jax.evaluation.report.breakdown import Confusion, Group, by_length, by_speaker, confusions
from ds2_jax.evaluation.report.worst import Example
from ds2_jax.evaluation.results import Evaluation, Result


class Origin(NamedTuple):
    """Where an evaluation comes from, for the heading.

    Attributes:
        run: folder of the run, as it was named.
        manifest: what was evaluated.
        decoding: how the model's output was read.
    """

    run: str
    manifest: str
    decoding: str


@dataclasses.dataclass(frozen=True)
class Contents:
    """All that a report says but for pictures and sounds.

    Attributes:
        origin: of the evaluation.
        evaluation: its results.
        bootstrap: what was drawn; None where no word is said, and then no interval.
        words: of the word error rate.
        characters: of the character error rate, without spaces.
        speakers: `by_speaker`.
        lengths: `by_length`.
        confusions: word errors by kind.
        reliability: of the words' confidences; None where nothing was recognised.
        bins: of the same.
        comparison: with another run; None where there is none.
    """

    origin: Origin
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


def contents(origin: Origin, evaluation: Evaluation, comparison: Comparison | None) -> Contents:
    """Works out a report; the attributes of `Contents` tell the arguments."""
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
    """Of each utterance, without spaces."""
    return [char_errors(result.reference, result.hypothesis, spaces=False) for result in results]


def word_confidences(results: Sequence[Result]) -> tuple[list[float], list[bool]]:
    """The confidence of every recognised word, and whether it is right."""
    confidences = [word.confidence for result in results for word in result.readings[0].words]
    right = [each for result in results for each in right_words(result.reference, result.hypothesis)]
    return confidences, right


def as_json(contents: Contents, examples: Sequence[Example]) -> dict[str, Any]:
    """The report as an object of JSON; rates are fractions, times seconds."""
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
        "worst_utterances": [_utterance(example.result) for example in examples],
    }


def _group(group: Group) -> dict[str, Any]:
    return dataclasses.asdict(group) | {"wer": group.words.rate, "cer": group.characters.rate}


def _utterance(result: Result) -> dict[str, Any]:
    best = result.readings[0]
    words = [{name: getattr(word, name) for name in ("text", "start", "end", "confidence")} for word in best.words]
    return {
        "id": result.utterance.id,
        "speaker": result.utterance.speaker,
        "audio": str(result.utterance.audio),
        "duration": result.utterance.duration,
        "word_errors": result.words.edits,
        "reference": result.reference,
        "hypothesis": result.hypothesis,
        "confidence": best.confidence,
        "words": words,
    }

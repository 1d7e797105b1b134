"""Describes an evaluation in lines of text, which `evaluate` and training print."""

import dataclasses
from pathlib import Path

from ds2_jax.evaluation.error_rates import ErrorCount
from ds2_jax.evaluation.provenance import Provenance
from ds2_jax.evaluation.reliability import reliability
from ds2_jax.evaluation.report.bootstrap import Bootstrap
from ds2_jax.evaluation.report.contents import word_confidences
from ds2_jax.evaluation.results import Evaluation, write_evaluation
from ds2_jax.evaluation.time_errors import TimeErrors, gather, time_errors

SHOWN_SPEAKERS = 10
SHOWN_UTTERANCES = 5


def account(evaluation: Evaluation, title: str) -> str:
    """Describes an evaluation: its error rates, the worst speakers and a few utterances.

    Args:
        evaluation: the results of a split.
        title: the name of the split.
    """
    by_speaker: dict[str, ErrorCount] = {}
    for result in evaluation.results:
        speaker = result.utterance.speaker
        by_speaker[speaker] = by_speaker.get(speaker, ErrorCount()) + result.words
    lines = [f"{title}: {evaluation}"]
    if evaluation.words.reference_length:
        bootstrap = Bootstrap(evaluation.results)
        low, high = bootstrap.interval([result.words for result in evaluation.results])
        lines.append(f"95 % interval of the WER: {low:.2%} to {high:.2%} ({bootstrap})")
    if len(by_speaker) > 1:
        worst = sorted(by_speaker.items(), key=lambda item: -item[1].rate)[:SHOWN_SPEAKERS]
        heading = (
            "by speaker" if len(worst) == len(by_speaker) else f"the worst {len(worst)} of {len(by_speaker)} speakers"
        )
        lines.append(f"{heading}:")
        for name, n in worst:
            label = f"  {name or '(not known)':20} "
            if n.reference_length:
                lines.append(f"{label}WER {n.rate:7.2%} ({n.edits} errors in {n.reference_length} words)")
            elif n.edits:
                lines.append(f"{label}no words in the references; {n.insertions} recognised")
    lines += confidence_lines(evaluation)
    shown = evaluation.results[:: -(-len(evaluation.results) // SHOWN_UTTERANCES)]
    lines += ["some utterances, reference above hypothesis:"]
    for result in shown:
        lines += [f"  {result.reference}", f"  {result.hypothesis or '(nothing)'}", ""]
    return "\n".join(lines)


def print_and_write(evaluation: Evaluation, provenance: Provenance, title: str, folder: Path) -> Evaluation:
    """Prints an evaluation and writes it into a folder, in files that are named after its provenance.

    Args:
        evaluation: the results of a split.
        provenance: what made them.
        title: the name of the split.
        folder: the folder of evaluations.

    Returns:
        The evaluation with its provenance and the time of writing.

    Raises:
        InputError: see `write_evaluation`. The error rates are printed in any case.
    """
    print(account(evaluation, title), flush=True)
    evaluation = dataclasses.replace(evaluation, provenance=provenance.written_now())
    tell_place(write_evaluation(folder, provenance.name, evaluation))
    return evaluation


def tell_place(path: Path) -> None:
    """Prints where all utterances of an evaluation are listed."""
    print(f"all utterances, worst first: {path}")


def confidence_lines(evaluation: Evaluation) -> list[str]:
    """Describes how good the confidences are, and the word times if the manifest has the true ones."""
    results = [result for result in evaluation.results if result.readings]
    whole = [result.readings[0].confidence for result in results]
    measured = {
        "words": reliability(*word_confidences(results)),
        "utterances": reliability(whole, [result.reference == result.hypothesis for result in results]),
    }
    lines = [f"confidences of {name}: {each}" for name, each in measured.items() if each]
    errors = word_time_errors(evaluation)
    return [*lines, f"word times: {errors}"] if errors else lines


def word_time_errors(evaluation: Evaluation) -> TimeErrors | None:
    """Computes the errors of the best readings' word times; None if the manifest has no true times."""
    errors = []
    for result in evaluation.results:
        for reading in result.readings[:1]:
            spans = [(word.start, word.end) for word in reading.words]
            errors += time_errors(result.utterance, result.reference, reading.text, spans)
    return gather(errors)

"""Reads the results that a run is compared with, and compares."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ds2_jax.data.manifest import Utterance, read_text
from ds2_jax.evaluation.report.bootstrap import Bootstrap, Comparison
from ds2_jax.evaluation.results import Result
from ds2_jax.system.checks import require
from ds2_jax.system.errors import NO_JSON, InputError, shorten


class Rival(NamedTuple):
    """Results to compare with.

    Attributes:
        name: the folder of a run, or the file of an evaluation.
        results: one for each utterance, in any order.
    """

    name: str
    results: Sequence[Result]


def read_rival(path: Path) -> Rival:
    """Reads the utterances of an evaluation that `results.write_evaluation` wrote.

    Raises:
        InputError: the file does not hold them.
    """
    results: dict[str, Result] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # U+2028 may stand in a transcript
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            audio, name, reference, hypothesis = (row[key] for key in ("audio", "id", "reference", "hypothesis"))
            if not all(isinstance(each, str) for each in (audio, name, reference, hypothesis)):
                raise TypeError("the values must be strings")
        except (*NO_JSON, KeyError, TypeError) as error:
            rule = "be an utterance of an evaluation (audio, id, reference, hypothesis)"
            advice = "Give --against the folder of a run, or a .jsonl of its evaluations folder."
            detail = f"{shorten(repr(line))} ({type(error).__name__}: {error})"
            raise InputError(f"{path}, line {number} must {rule}, got {detail}. {advice}") from error
        require(name not in results, f"{path}, line {number}: id", "occur once", name, "Restore the file.")
        results[name] = Result(Utterance(Path(audio), 0.0, reference, name), reference, hypothesis)
    return Rival(str(path), list(results.values()))


def compare(results: Sequence[Result], rival: Rival, manifest: Path) -> Comparison:
    """Compares the results of a run with others of the same utterances.

    Args:
        results: the results of the run.
        rival: the results to compare with.
        manifest: the manifest of the results, which errors name.

    Raises:
        InputError: the utterances differ, two transcripts differ by more than upper and lower case, or no transcript
            has words.
    """
    ours = {result.utterance.id: result.reference for result in results}
    theirs = {result.utterance.id: result for result in rival.results}
    advice = f"Evaluate the other run on {manifest} with the same transcripts."
    if unlike := sorted(ours.keys() ^ theirs.keys()):
        found = f"{len(theirs)}, and {len(unlike)} are not in both, such as {shorten(unlike[0])}"
        raise InputError(f"--against must hold the {len(ours)} utterances of this evaluation, got {found}. {advice}")
    for name, reference in ours.items():
        if reference.casefold() != (other := theirs[name].reference).casefold():
            rule = f"have the reference {shorten(repr(reference))} for utterance {shorten(name)}"
            raise InputError(f"--against must {rule}, apart from case, got {shorten(repr(other))}. {advice}")
    if not sum(result.words.reference_length for result in results):
        advice = "Leave --against out."
        raise InputError(f"{manifest} must hold transcripts with words to compare runs, got none. {advice}")
    words = [result.words for result in results]
    return Bootstrap(results).compare(words, [theirs[name].words for name in ours], rival.name)

"""What a run is compared with: another run, or an earlier evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ds2_jax.data.manifest import NO_JSON, Utterance, read_text
from ds2_jax.errors import InputError, shorten
from ds2_jax.report.bootstrap import Bootstrap, Comparison
from ds2_jax.results import Result


class Rival(NamedTuple):
    """Results to compare with.

    Attributes:
        name: the folder or the file.
        results: one for each utterance, in any order.
    """

    name: str
    results: Sequence[Result]


def read_rival(path: Path) -> Rival:
    """Reads the utterances of an evaluation, as `results.write_evaluation` wrote them.

    Raises:
        InputError: it is no such file.
    """
    results = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # U+2028 may stand in a transcript
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            audio, name, reference, hypothesis = (row[key] for key in ("audio", "id", "reference", "hypothesis"))
            if not all(isinstance(each, str) for each in (audio, name, reference, hypothesis)):
                raise TypeError("they must be strings")
        except (*NO_JSON, KeyError, TypeError) as error:
            rule = "be an utterance of an evaluation (audio, id, reference, hypothesis)"
            advice = "Give --against the folder of a run, or a .jsonl of its evaluations folder."
            detail = f"{shorten(repr(line))} ({type(error).__name__}: {error})"
            raise InputError(f"{path}, line {number} must {rule}, got {detail}. {advice}") from error
        results.append(Result(Utterance(Path(audio), 0.0, reference, name), reference, hypothesis))
    return Rival(str(path), results)


def check_same(results: Sequence[Result], rival: Rival, manifest: Path) -> None:
    """Sees whether a comparison is fair: the same utterances, and the same words said in each but for their case.

    Raises:
        InputError: they differ.
    """
    ours = {result.utterance.id: result.reference for result in results}
    theirs = {result.utterance.id: result.reference for result in rival.results}
    advice = f"Evaluate it on {manifest} with the same transcripts."
    if unlike := sorted(ours.keys() ^ theirs.keys()):
        found = f"{len(theirs)} of which {len(unlike)} are not in both, such as {shorten(unlike[0])}"
        raise InputError(f"--against must hold the {len(ours)} utterances of this evaluation, got {found}. {advice}")
    for name, reference in ours.items():
        if reference.casefold() != theirs[name].casefold():
            rule = f"have the reference {shorten(repr(reference))} for utterance {shorten(name)}"
            raise InputError(f"--against must {rule}, case apart, got {shorten(repr(theirs[name]))}. {advice}")


def compare(results: Sequence[Result], rival: Rival) -> Comparison | None:
    """Compares the results of a run with others of the same utterances; None where no word is said in them."""
    if not sum(result.words.reference_length for result in results):
        return None
    theirs = {result.utterance.id: result.words for result in rival.results}
    ordered = [theirs[result.utterance.id] for result in results]
    return Bootstrap(results).compare([result.words for result in results], ordered)

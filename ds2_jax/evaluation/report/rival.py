"""Reads the results that a run is compared with, and compares."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ds2_jax.data.manifest import Utterance, read_text
from ds2_jax.evaluation.provenance import DIGITS, Provenance
from ds2_jax.evaluation.report.bootstrap import Bootstrap, Comparison
from ds2_jax.evaluation.results import Result, read_evaluation
from ds2_jax.system.checks import require
from ds2_jax.system.errors import NO_JSON, InputError, shorten


class Rival(NamedTuple):
    """Results to compare with.

    Attributes:
        name: the folder of a run, or the file of an evaluation.
        results: one for each utterance, in any order.
        provenance: what made the results; None if it is not known.
    """

    name: str
    results: Sequence[Result]
    provenance: Provenance | None = None

    @property
    def references(self) -> dict[str, str]:
        """The reference of each utterance, by its id."""
        return {result.utterance.id: result.reference for result in self.results}


def read_rival(path: Path) -> Rival:
    """Reads an evaluation that `results.write_evaluation` wrote, from NAME.jsonl, and its provenance from NAME.json.

    Raises:
        InputError: the file does not hold them.
    """
    path = path.with_suffix(".jsonl") if path.suffix == ".json" else path
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
    whole = read_evaluation(path.parent, path.stem) if path.suffix == ".jsonl" else None
    return Rival(str(path), list(results.values()), whole.provenance if whole else None)


def check_comparable(
    references: Mapping[str, str], rival: Rival, manifest: Path, provenance: Provenance | None = None
) -> None:
    """Checks that other results are of the same utterances.

    Args:
        references: the reference of each utterance, by its id.
        rival: the results to compare with.
        manifest: the manifest of the utterances, which errors name.
        provenance: what makes the results of the utterances; None if it is not known.

    Raises:
        InputError: the manifests or the utterances differ, or two references differ by more than upper and lower case.
    """
    theirs = rival.references
    advice = f"Evaluate the other run on {manifest} with the same transcripts."
    if unlike := sorted(references.keys() ^ theirs.keys()):
        found = f"{len(theirs)}, and {len(unlike)} are not in both, such as {shorten(unlike[0])}"
        raise InputError(
            f"--against must hold the {len(references)} utterances of this evaluation, got {found}. {advice}"
        )
    for name, reference in references.items():
        if reference.casefold() != (other := theirs[name]).casefold():
            rule = f"have the reference {shorten(repr(reference))} for utterance {shorten(name)}"
            raise InputError(f"--against must {rule}, apart from case, got {shorten(repr(other))}. {advice}")
    made_by = rival.provenance
    if provenance and made_by and provenance.manifest_digest != made_by.manifest_digest:
        rule = f"be of the manifest {manifest} (digest {provenance.manifest_digest[:DIGITS]})"
        found = f"{rival.name}, made of {made_by.manifest} (digest {made_by.manifest_digest[:DIGITS]})"
        raise InputError(f"--against must {rule}, got {found}, with other durations or transcripts. {advice}")


def compare(
    results: Sequence[Result], rival: Rival, manifest: Path, provenance: Provenance | None = None
) -> Comparison:
    """Compares the results of a run with others of the same utterances.

    Args:
        results: the results of the run.
        rival: the results to compare with.
        manifest: the manifest of the results, which errors name.
        provenance: what made the results; None if it is not known.

    Raises:
        InputError: see `check_comparable`; or no transcript has words.
    """
    check_comparable({result.utterance.id: result.reference for result in results}, rival, manifest, provenance)
    if not sum(result.words.reference_length for result in results):
        advice = "Leave --against out."
        raise InputError(f"{manifest} must hold transcripts with words to compare runs, got none. {advice}")
    theirs = {result.utterance.id: result.words for result in rival.results}
    words = [result.words for result in results]
    return Bootstrap(results).compare(words, [theirs[each.utterance.id] for each in results], rival.name)

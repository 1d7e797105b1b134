"""Runs the command `score`: compares texts of any recogniser with references, in the way of `evaluate`."""

import collections
import logging
from pathlib import Path

from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.account import account, tell_place
from ds2_jax.evaluation.error_rates import Weights
from ds2_jax.evaluation.report.command import NUM_UTTERANCES, make_folder, write_report
from ds2_jax.evaluation.report.contents import ScoreOrigin, contents
from ds2_jax.evaluation.report.rival import Rival, compare
from ds2_jax.evaluation.report.shown import without_sound
from ds2_jax.evaluation.results import Evaluation, Result, write_utterances
from ds2_jax.evaluation.scoring_rules import Rules, read_rules
from ds2_jax.evaluation.transcript_files import HYPOTHESIS_KEYS, REFERENCE_KEYS, Transcripts, read_transcripts
from ds2_jax.evaluation.transcript_pairs import list_names, name_of, pair
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import make_writable

logger = logging.getLogger(__package__)


def score(
    references: Path,
    hypotheses: Path,
    rules_file: Path | None = None,
    *,
    weights: Weights = "equal",
    against: Path | None = None,
    report_folder: Path | None = None,
    out: Path | None = None,
) -> Evaluation:
    """Prints the error rates of hypotheses; writes every utterance and a report if asked.

    Args:
        references: what was said, in a format of `transcript_files.read_transcripts`.
        hypotheses: what was recognised.
        rules_file: the file of `scoring_rules.read_rules`.
        weights: how edits are weighed against each other.
        against: other hypotheses for the same references.
        report_folder: folder for a report.
        out: file for one utterance a line.

    Raises:
        InputError: a file cannot be read or written, or the files do not fit.
    """
    rules = read_rules(rules_file) if rules_file else Rules()
    if report_folder is not None:
        make_folder(report_folder)
    if out is not None:
        check_output(out, references, hypotheses, against)
    said = read_transcripts(references, REFERENCE_KEYS)
    evaluation = _score(said, hypotheses, rules, weights)
    others = _score(said, against, rules, weights) if against else None
    print(account(evaluation, str(hypotheses)), flush=True)
    comparison = None
    if others is not None:
        comparison = compare(evaluation.results, Rival(str(against), others.results), references)
        print(comparison)
    if out is not None:
        write_utterances(out, evaluation.results)
        tell_place(out)
    if report_folder is not None:
        origin = ScoreOrigin(str(hypotheses), str(references), f"{rules}; {weights} weights")
        worst = sorted(evaluation.results, key=lambda result: -result.words.edits)[:NUM_UTTERANCES]
        found = contents(origin, evaluation, comparison)
        print(f"report: {write_report(report_folder, found, list(map(without_sound, worst)))}")
    return evaluation


def _score(said: Transcripts, hypotheses: Path, rules: Rules, weights: Weights) -> Evaluation:
    references, heard = said.path, read_transcripts(hypotheses, HYPOTHESIS_KEYS)
    found = pair(said, heard)
    if not found.pairs:
        raise InputError(f"{references} must hold texts to score, got none. Give another file.")
    what = f"{len(found.pairs):,} references of {references} ({said.form}) and {hypotheses} ({heard.form})"
    logger.info(f"{what}, matched by {found.matched}")
    if found.missing:
        counts = f"{len(found.missing):,} of {len(found.pairs):,} references"
        logger.warning(f"{hypotheses} has nothing for {counts}, which count as deleted: {list_names(found.missing)}")
    if found.ignored:
        logger.info(f"{found.ignored:,} words are in segments that are not scored")
    if len(found.pairs) > 1 and all(text.text == hypothesis for text, hypothesis in found.pairs):
        logger.warning(f"every text of {hypotheses} equals its reference: are these the recognised texts?")
    results, taken = [], collections.Counter[str]()
    for text, hypothesis in found.pairs:
        reference, name = rules(text.text), name_of(text)
        taken[name] += 1
        if taken[name] > 1:  # segments of a recording with the same times
            name = f"{name}#{taken[name]}"
        utterance = Utterance(Path(name), text.end - text.start, reference, name, text.speaker)
        results.append(Result(utterance, reference, rules(hypothesis), weights=weights))
    return Evaluation(results, None)


def check_output(out: Path, *inputs: Path | None) -> None:
    """Checks, before anything is scored, that a file can be written and replaces none that is read.

    Raises:
        InputError: it cannot.
    """
    regular = bool(out.name) and (out.is_file() or not out.exists()) and not out.is_symlink()
    require(regular, "--out", "be a file, not a folder or a link", str(out), "Give another name.")
    same = out.exists() and any(each is not None and each.exists() and out.samefile(each) for each in inputs)
    require(not same, "--out", "be another file than those that are read", str(out), "Give another name.")
    make_writable(out.parent)

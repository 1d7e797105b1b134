"""Runs the command `evaluate`: computes, compares and reports the error rates of a run's best checkpoint."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ds2_jax.config.places import is_tfds
from ds2_jax.corpora import split_manifests
from ds2_jax.data.manifest import Problem
from ds2_jax.data.skipped import Skipped
from ds2_jax.data.splits import read_split
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.evaluation.account import account
from ds2_jax.evaluation.report.command import NUM_UTTERANCES, make_folder, write_report
from ds2_jax.evaluation.report.contents import Origin, contents
from ds2_jax.evaluation.report.rival import Rival, compare, read_rival
from ds2_jax.evaluation.report.worst import Worst
from ds2_jax.evaluation.results import Evaluation, Result, evaluation_name, write_evaluation
from ds2_jax.evaluation.split_outputs import evaluate_split
from ds2_jax.runs import run_folder
from ds2_jax.runs.fitted import run_decoder
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)


def evaluate(
    run: Path,
    manifest: Path | None,
    decoding: DecodingOptions = GREEDY,
    *,
    report_folder: Path | None = None,
    against: Path | None = None,
) -> Evaluation:
    """Evaluates the best checkpoint of a run and writes the results into the run folder.

    Args:
        run: the folder of a training run.
        manifest: the utterances; by default the test split of the run's configuration.
        decoding: the decoding options.
        report_folder: folder for a report as an HTML page and as JSON; None for no report.
        against: what to compare with: the folder of another run, which is decoded in the same way, or the .jsonl of an
            earlier evaluation; None for no comparison.

    Raises:
        InputError: the run or the manifest is missing or damaged, audio cannot be read, results cannot be written, or
            the evaluation to compare with has other utterances.
    """
    config = run_folder.load_config(run)
    manifest = manifest or split_manifests(config.data, build=False).test
    if manifest is None:
        raise InputError("--manifest must be given, got none: the run names no data.test. Add --manifest FILE.")
    if not is_tfds(manifest) and not manifest.is_file():
        advice = "Give the path of a manifest: --manifest FILE."
        raise InputError(
            f"{manifest.absolute()} must be a manifest to evaluate, got a folder or nothing at this path. {advice}"
        )
    if report_folder is not None:
        make_folder(report_folder)
    rival = _rival(against, manifest, decoding) if against else None  # read now: the file may be replaced below
    name = evaluation_name(manifest, decoding)
    listed = run / "evaluations" / f"{name}_skipped.jsonl"
    listed.unlink(missing_ok=True)
    worst = Worst(NUM_UTTERANCES)
    decoder = run_decoder(config, run, decoding)
    evaluation = _evaluate_run(run, manifest, decoder, on_problem=Skipped(listed), on_result=worst)
    comparison = None if rival is None else compare(evaluation.results, rival, manifest)
    path = write_evaluation(run / "evaluations", name, evaluation)
    print(account(evaluation, str(manifest), path))
    if comparison is not None:
        print(comparison)
    if report_folder is not None:
        origin = Origin(str(run), str(manifest), str(decoder))
        page = write_report(report_folder, contents(origin, evaluation, comparison), worst.examples, config, decoder)
        print(f"report: {page}")
    return evaluation


def _evaluate_run(
    run: Path,
    manifest: Path,
    decoder: Decoder,
    *,
    on_problem: Callable[[Problem], None],
    on_result: Callable[[Result, np.ndarray], None] | None = None,
) -> Evaluation:
    """Evaluates the best checkpoint of a run; calls `on_problem` for every utterance that is left out."""
    config = run_folder.load_config(run)
    split = read_split(manifest, config, Alphabet.of(config.data), prune=False)
    for problem in split.problems:
        on_problem(problem)
    return evaluate_split(
        TrainedModel.load(run),
        split,
        decoder,
        title="evaluating",
        on_problem=on_problem if config.data.on_bad_utterance == "skip" else None,
        on_result=on_result,
    )


def _rival(against: Path, manifest: Path, decoding: DecodingOptions) -> Rival:
    """Reads the results to compare with, or evaluates the other run without writing to its folder."""
    if against.is_file():
        return read_rival(against)
    try:
        config = run_folder.load_config(against)
    except InputError as error:
        advice = "Give --against the folder of a run, or a .jsonl of its evaluations folder."
        raise InputError(f"--against: {error} {advice}") from error

    def tell(problem: Problem) -> None:
        logger.warning(f"{against}: left out {problem.id} ({problem.reason}: {problem.detail})")

    decoder = run_decoder(config, against, decoding)
    return Rival(str(against), _evaluate_run(against, manifest, decoder, on_problem=tell).results)

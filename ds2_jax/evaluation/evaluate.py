"""Runs the command `evaluate`: computes, compares and reports the error rates of a run's best checkpoint."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds2_jax.config.places import is_tfds
from ds2_jax.corpora import split_manifests
from ds2_jax.data.manifest import Problem
from ds2_jax.data.skipped import Skipped
from ds2_jax.data.splits import Split, read_split
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.options import GREEDY, Combination, DecodingOptions
from ds2_jax.decoding.unknown_words import UnknownWords
from ds2_jax.engines.engine import EngineName
from ds2_jax.evaluation.account import print_and_write
from ds2_jax.evaluation.condition_settings import NONE, Conditions
from ds2_jax.evaluation.conditions import AS_RECORDED, Condition, list_conditions
from ds2_jax.evaluation.provenance import Provenance
from ds2_jax.evaluation.report.command import NUM_UTTERANCES, make_folder, write_report
from ds2_jax.evaluation.report.contents import Origin, contents
from ds2_jax.evaluation.report.rival import Rival, check_comparable, compare, read_rival
from ds2_jax.evaluation.report.utterance import Illustrator
from ds2_jax.evaluation.report.worst import Worst
from ds2_jax.evaluation.results import Evaluation, Result
from ds2_jax.evaluation.robustness import against_clean, table, write
from ds2_jax.evaluation.split_outputs import evaluate_split
from ds2_jax.runs import run_folder
from ds2_jax.runs.ensembles import describe, open_models
from ds2_jax.runs.fitted import run_decoder, with_tuned
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import home
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.runs.weights import weights_of
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import make_writable
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)


def evaluate(
    run: Path,
    manifest: Path | None,
    decoding: DecodingOptions = GREEDY,
    *,
    report_folder: Path | None = None,
    against: Path | None = None,
    engine: EngineName = "jax",
    conditions: Conditions = NONE,
    others: Sequence[Path] = (),
    combine: Combination = "rover",
) -> Evaluation:
    """Evaluates the best checkpoint of a run and writes the results into the run folder.

    Args:
        run: the folder of a training run.
        manifest: the utterances; by default the test split of the run's configuration.
        decoding: the decoding options.
        report_folder: folder for a report as an HTML page and as JSON; None for no report.
        against: what to compare with: the folder of another run, which is decoded in the same way, or the .jsonl or
            .json of an earlier evaluation; None for no comparison.
        engine: what computes the log-probabilities.
        conditions: under which conditions to evaluate the utterances too.
        others: other models that recognise together with the run.
        combine: how; see `open_models`.

    Raises:
        InputError: the run or the manifest is missing or damaged, audio cannot be read, results cannot be written, or
            the evaluation to compare with has other utterances.
    """
    config = read_config(run)
    manifest = manifest or split_manifests(config.data, build=False).test
    if manifest is None:
        raise InputError("--manifest must be given, got none: the run names no data.test. Add --manifest FILE.")
    if not is_tfds(manifest) and not manifest.is_file():
        advice = "Give the path of a manifest: --manifest FILE."
        raise InputError(
            f"{manifest.absolute()} must be a manifest to evaluate, got a folder or nothing at this path. {advice}"
        )
    listed_conditions = list_conditions(conditions)
    opened = _open(run, manifest, decoding, engine, others, combine)
    if listed_conditions and not any(opened.references.values()):
        raise InputError(f"{manifest} must hold transcripts with words to compare conditions, got none. Correct it.")
    results = home(run) / run_folder.EVALUATIONS
    make_writable(results)  # now, because decoding may take long
    if report_folder is not None:
        make_folder(report_folder)
    rival = (
        _rival(against, opened, manifest, decoding, engine) if against else None
    )  # read now: the file may be replaced below
    listed = results / f"{opened.provenance.name}_skipped.jsonl"
    listed.unlink(missing_ok=True)
    worst = Worst(NUM_UTTERANCES)
    evaluation = opened.evaluate(on_problem=Skipped(listed), on_result=worst)
    evaluation = print_and_write(evaluation, opened.provenance, str(manifest), results)
    if decoding.lm:
        unknown = UnknownWords(opened.decoder.knows)
        for result in evaluation.results:
            unknown.add(result.hypothesis)
        if hint := unknown.hint(run, decoding.lm):
            logger.info(hint)
    comparison = None if rival is None else compare(evaluation.results, rival, manifest, opened.provenance)
    if comparison is not None:
        print(comparison)
    if report_folder is not None:
        decoder = str(opened.decoder) + "".join(f", with {each}" for each in opened.provenance.decoding.get("with", []))
        origin = Origin(str(run), str(manifest), decoder)
        found = contents(origin, evaluation, comparison)
        shown = list(map(Illustrator(config, opened.decoder), worst.examples))
        print(f"report: {write_report(report_folder, found, shown)}")
    if listed_conditions:
        _compare_conditions(opened, evaluation, conditions, listed_conditions, home(run) / run_folder.CONDITIONS)
    return evaluation


def _compare_conditions(
    opened: "_Opened", clean: Evaluation, settings: Conditions, conditions: Sequence[Condition], folder: Path
) -> None:
    """Evaluates the utterances under every condition, prints a table and writes it with a picture.

    Raises:
        InputError: a file cannot be read or written, or nothing is left under a condition.
    """

    def tell(problem: Problem) -> None:
        logger.warning(f"left out {problem.id} ({problem.reason}: {problem.detail})")

    heard = []
    sound = opened._replace(split=dataclasses.replace(opened.split, problems=()))  # these were told before
    for condition in conditions:
        logger.info(f"evaluating: {condition.name}")
        heard.append((condition.name, sound.evaluate(on_problem=tell, condition=condition)))
    assert clean.provenance is not None
    rows = against_clean(clean, heard)
    print(table(rows))
    print(f"picture and numbers: {write(folder, clean.provenance.name, settings, rows)}")


class _Opened(NamedTuple):
    """The weights of a run, a split, and how to decode it."""

    model: TrainedModel
    split: Split
    decoder: Decoder
    provenance: Provenance

    @property
    def references(self) -> dict[str, str]:
        """The normalised transcript of each utterance, by its id."""
        alphabet = self.model.alphabet
        return {each.id: alphabet.normalise(each.transcript) for each in self.split.utterances}

    def evaluate(
        self,
        *,
        on_problem: Callable[[Problem], None],
        on_result: Callable[[Result, np.ndarray], None] | None = None,
        condition: Condition = AS_RECORDED,
    ) -> Evaluation:
        """Decodes the split under a condition; calls `on_problem` for every utterance that is left out."""
        for problem in self.split.problems:
            on_problem(problem)
        return evaluate_split(
            self.model,
            self.split,
            self.decoder,
            title="evaluating",
            on_problem=on_problem if self.model.config.data.on_bad_utterance == "skip" else None,
            on_result=on_result,
            condition=condition,
        )


def _open(
    run: Path,
    manifest: Path,
    decoding: DecodingOptions,
    engine: EngineName,
    others: Sequence[Path] = (),
    combine: Combination = "rover",
) -> _Opened:
    """Loads the best weights of a run and of other models, reads a manifest, and makes the decoder."""
    config = read_config(run)
    split = read_split(manifest, config, Alphabet.of(config.data), prune=False)
    filled = with_tuned(decoding, run) if decoding.lm else decoding
    if others:
        together = open_models(run, others, engine, combine)
        decoder, model = together.decoder(decoding), TrainedModel.by_engine(together)
    else:
        decoder = run_decoder(config, run, filled)
        model = TrainedModel.load(run, engine=engine)
    described = describe(others, combine)
    provenance = Provenance.of(manifest, split, weights_of(run, config), filled, described)
    return _Opened(model, split, decoder, provenance)


def _rival(against: Path, ours: _Opened, manifest: Path, decoding: DecodingOptions, engine: EngineName) -> Rival:
    """Reads the results to compare with, or evaluates the other run without writing to its folder.

    Raises:
        InputError: the results cannot be read, or are of other utterances.
    """
    if against.is_file() and against.suffix not in (".onnx", ".safetensors"):
        rival = read_rival(against)
        if ours.model.config.data.on_bad_utterance == "error":  # otherwise only decoding shows which are left out
            check_comparable(ours.references, rival, manifest, ours.provenance)
        return rival
    try:
        read_config(against)
    except InputError as error:
        advice = "Give --against the folder of a run, or a .jsonl of its evaluations folder."
        raise InputError(f"--against: {error} {advice}") from error

    def tell(problem: Problem) -> None:
        logger.warning(f"{against}: left out {problem.id} ({problem.reason}: {problem.detail})")

    theirs = _open(against, manifest, decoding, engine)
    return Rival(str(against), theirs.evaluate(on_problem=tell).results)

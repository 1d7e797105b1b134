"""A split -> hypotheses -> error rates, and the report of them."""

import dataclasses
import functools
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ds2_jax.config import Config
from ds2_jax.config.places import TFDS, is_tfds
from ds2_jax.corpora import split_manifests
from ds2_jax.data.manifest import Problem
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import plan_evaluation
from ds2_jax.data.skipped import Skipped
from ds2_jax.data.splits import Split, read_split
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.evaluation.error_rates import ErrorCount
from ds2_jax.evaluation.reliability import reliability
from ds2_jax.evaluation.report.bootstrap import Bootstrap
from ds2_jax.evaluation.report.command import NUM_UTTERANCES, make_folder, write_report
from ds2_jax.evaluation.report.contents import Origin, contents, word_confidences
from ds2_jax.evaluation.report.rival import Rival, compare, read_rival
from ds2_jax.evaluation.report.worst import Worst
from ds2_jax.evaluation.results import Evaluation, Result, write_evaluation
from ds2_jax.evaluation.word_times import TimeErrors, gather, time_errors
from ds2_jax.model.inference import eval_step
from ds2_jax.parallel.mesh import data_mesh, fetch_rows, parallel_eval_step, row_layout
from ds2_jax.parallel.rows import RowLayout
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import load_variables
from ds2_jax.runs.fitted import run_decoder
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

SHOWN_SPEAKERS = 10
SHOWN_UTTERANCES = 5


def make_eval_step(config: Config, mesh: Mesh) -> Callable[..., Any]:
    """`steps.eval_step` of a configuration, over the devices of a mesh."""
    num_labels = Alphabet.of(config.data).size
    step = functools.partial(eval_step, config=config, num_labels=num_labels)
    return parallel_eval_step(step, mesh, config.parallel)


class Output(NamedTuple):
    """What the model gives for an utterance.

    Attributes:
        utterance_index: in the split.
        log_probs: [T', V] float32, natural logarithms, no padding.
        loss: nats; None where CTC cannot align the transcript.
    """

    utterance_index: int
    log_probs: np.ndarray
    loss: float | None


def model_outputs(
    eval_step: Callable[..., Any],
    variables: Any,
    split: Split,
    *,
    config: Config,
    layout: RowLayout,
    title: str,
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Output]:
    """Runs the model over a split, in batches of similar length; in several processes each gets all outputs.

    Args:
        eval_step: compiled by `parallel.parallel_eval_step`.
        variables: params and batch_stats, on the devices.
        split: its used utterances, at least one, whatever their transcripts hold.
        config: of the run.
        layout: of a batch's rows on the devices.
        title: shown on the progress bar.
        on_problem: told of every utterance whose audio cannot be read, which is left out; None: it stops the
            iteration.

    Yields:
        Each utterance's output, in the order of the batches.

    Raises:
        InputError: an audio file cannot be read.
    """
    alphabet = Alphabet.of(config.data)
    sample_rate, hop_length = config.features.sample_rate, config.features.hop_length
    plan = plan_evaluation(
        split.num_samples(sample_rate),
        batch_size=config.data.batch_size,
        batch_samples=math.ceil(config.data.batch_seconds * sample_rate),
        num_buckets=config.data.num_buckets,
        hop_length=hop_length,
    )
    # A transcript outside the alphabet still counts in the error rates, but has no labels and so no loss.
    readable = [
        dataclasses.replace(utterance, transcript="") if alphabet.unknown(utterance.transcript) else utterance
        for utterance in split.utterances
    ]
    stream = batches(
        plan,
        readable,
        alphabet,
        sample_rate=sample_rate,
        hop_length=hop_length,
        label_width=max(len(alphabet.normalise(utterance.transcript)) for utterance in readable),
        layout=layout,
        num_workers=config.data.num_workers,
        on_problem=on_problem,
    )
    for batch in tqdm(stream, title, total=len(plan), unit="batch", leave=False, disable=not sys.stderr.isatty()):
        asked = np.full(len(batch["indices"]), interrupts.requested(), np.int32)
        rows = {**eval_step(variables, batch), "num_labels": batch["num_labels"], "signals": asked}
        output = fetch_rows(rows)
        if stop := int(output["signals"].max()):  # of any process: all stop at the same batch
            raise interrupts.Stopped(stop)
        counted = output["alignable"] & (output["num_labels"] > 0)
        for row, index in enumerate(output["indices"].tolist()):
            if index >= 0:
                log_probs = output["log_probs"][row, : output["output_lengths"][row]]
                yield Output(index, log_probs, float(output["losses"][row]) if counted[row] else None)


def evaluate_utterances(
    eval_step: Callable[..., Any],
    variables: Any,
    split: Split,
    *,
    config: Config,
    layout: RowLayout,
    title: str,
    decoder: Decoder,
    on_problem: Callable[[Problem], None] | None = None,
    on_result: Callable[[Result, np.ndarray], None] | None = None,
) -> Evaluation:
    """Runs the model over a split, which may be empty, and decodes; arguments and errors as `model_outputs`.

    `on_result` is told of every utterance's result with its log-probabilities, [T', V] float32, which are not kept.
    """
    if not split.utterances:
        return Evaluation([], 0.0, 0)
    alphabet = Alphabet.of(config.data)
    results: dict[int, Result] = {}
    losses = []
    for index, log_probs, loss in model_outputs(
        eval_step,
        variables,
        split,
        config=config,
        layout=layout,
        title=title,
        on_problem=on_problem,
    ):
        utterance = split.utterances[index]
        readings = decoder(log_probs, utterance.duration)
        results[index] = Result(utterance, alphabet.normalise(utterance.transcript), readings[0].text, readings)
        if on_result is not None:
            on_result(results[index], log_probs)
        if loss is not None:
            losses.append(loss)
    in_order = [results[index] for index in sorted(results)]
    left_out = len(split.problems) + len(split.utterances) - len(results)
    return Evaluation(in_order, sum(losses) / max(len(losses), 1), len(results) - len(losses), left_out)


def report(evaluation: Evaluation, title: str, path: Path) -> str:
    """What a person reads of an evaluation: error rates, the worst speakers, a few utterances.

    Args:
        evaluation: of a split.
        title: names the split.
        path: from `write_evaluation`.
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
        lines += [
            f"  {name:20} WER {n.rate:7.2%} ({n.edits} errors in {n.reference_length} words)"
            for name, n in worst
            if n.reference_length
        ]
    lines += beside_the_text(evaluation)
    shown = evaluation.results[:: -(-len(evaluation.results) // SHOWN_UTTERANCES)]
    lines += ["some utterances, reference above hypothesis:"]
    for result in shown:
        lines += [f"  {result.reference}", f"  {result.hypothesis or '(nothing)'}", ""]
    return "\n".join([*lines, f"all utterances, worst first: {path}"])


def beside_the_text(evaluation: Evaluation) -> list[str]:
    """How good confidences are, and word times where the manifest tells the true ones; nothing without readings."""
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
    """Of the best readings; None where the manifest tells no true times."""
    errors = []
    for result in evaluation.results:
        for reading in result.readings[:1]:
            spans = [(word.start, word.end) for word in reading.words]
            errors += time_errors(result.utterance, result.reference, reading.text, spans)
    return gather(errors)


def evaluation_name(manifest: Path, decoding: DecodingOptions = GREEDY) -> str:
    """Names the results: FOLDER-STEM of a manifest, since many are called test.jsonl, or SET-SPLIT of a tfds: name.

    Those of beam search have names of their own, +LM or +beam at the end: greedy decoding's stay to compare with.
    """
    if decoding.beam:
        return f"{evaluation_name(manifest)}+{decoding.lm.name.partition('.')[0] if decoding.lm else 'beam'}"
    if is_tfds(manifest):
        where, _, split = str(manifest).rpartition("#")
        return re.sub(r"[^\w.+-]+", "-", f"{where.removeprefix(TFDS).rstrip('/').rpartition('/')[2]}-{split}")
    return f"{manifest.absolute().parent.name}-{manifest.stem}"


def evaluate(
    run: Path,
    manifest: Path | None,
    decoding: DecodingOptions = GREEDY,
    *,
    report_folder: Path | None = None,
    against: Path | None = None,
) -> Evaluation:
    """Evaluates the best checkpoint of a run and writes what it found into the run folder.

    Args:
        run: folder of the run.
        manifest: utterances; by default the test split of the run's configuration.
        decoding: how to decode.
        report_folder: takes a page for the browser and the same in JSON; None: no report.
        against: what to compare with: the folder of another run, which is decoded likewise, or the utterances of an
            earlier evaluation, the .jsonl of an evaluations folder; None: nothing.

    Raises:
        InputError: no run, no manifest, audio that cannot be read, or another evaluation of other utterances.
    """
    config = run_folder.load_config(run)
    manifest = manifest or split_manifests(config.data, build=False).test
    if manifest is None:
        raise InputError("--manifest must be given, got none: the run names no data.test. Add --manifest FILE.")
    if not is_tfds(manifest) and not manifest.is_file():
        advice = "Give the path of a manifest: --manifest FILE."
        raise InputError(f"{manifest.absolute()} must be a manifest to evaluate, got no such file. {advice}")
    if report_folder is not None:
        make_folder(report_folder)
    rival = _rival(against, manifest, decoding) if against else None  # first: it may be the file that is replaced below
    name = evaluation_name(manifest, decoding)
    listed = run / "evaluations" / f"{name}_skipped.jsonl"
    listed.unlink(missing_ok=True)
    worst = Worst(NUM_UTTERANCES)
    decoder = run_decoder(config, run, decoding)
    evaluation = _evaluate_run(run, config, manifest, decoder, on_problem=Skipped(listed), on_result=worst)
    comparison = None if rival is None else compare(evaluation.results, rival, manifest)
    path = write_evaluation(run / "evaluations", name, evaluation)
    print(report(evaluation, str(manifest), path))
    if comparison is not None:
        print(comparison)
    if report_folder is not None:
        origin = Origin(str(run), str(manifest), str(decoder))
        page = write_report(report_folder, contents(origin, evaluation, comparison), worst.examples, config, decoder)
        print(f"report: {page}")
    return evaluation


def _evaluate_run(
    run: Path,
    config: Config,
    manifest: Path,
    decoder: Decoder,
    *,
    on_problem: Callable[[Problem], None],
    on_result: Callable[[Result, np.ndarray], None] | None = None,
) -> Evaluation:
    """Evaluates the best checkpoint of a run; tells of every utterance that is left out."""
    split = read_split(manifest, config, Alphabet.of(config.data), prune=False)
    for problem in split.problems:
        on_problem(problem)
    mesh = data_mesh()
    variables = load_variables(run, config, mesh)
    return evaluate_utterances(
        make_eval_step(config, mesh),
        variables,
        split,
        config=config,
        layout=row_layout(mesh),
        title="evaluating",
        decoder=decoder,
        on_problem=on_problem if config.data.on_bad_utterance == "skip" else None,
        on_result=on_result,
    )


def _rival(against: Path, manifest: Path, decoding: DecodingOptions) -> Rival:
    """The results to compare with; of another run, which is left as it is."""
    if against.is_file():
        return read_rival(against)
    try:
        config = run_folder.load_config(against)
    except InputError as error:
        advice = "Give --against the folder of a run, or a .jsonl of its evaluations folder."
        raise InputError(f"--against: {error} {advice}") from error

    def tell(problem: Problem) -> None:
        logger.info(f"left out of {against}: {problem.id} ({problem.reason}: {problem.detail})")

    decoder = run_decoder(config, against, decoding)
    return Rival(str(against), _evaluate_run(against, config, manifest, decoder, on_problem=tell).results)

"""A split -> hypotheses -> error rates, and the file that shows them utterance by utterance."""

import dataclasses
import functools
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ds2_jax import interrupts, parallel, steps
from ds2_jax import run as run_lib
from ds2_jax.alphabet import Alphabet
from ds2_jax.checkpoint import load_variables
from ds2_jax.config import Config
from ds2_jax.corpora import split_manifests
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import plan_evaluation
from ds2_jax.data.splits import Split, read_split
from ds2_jax.decoding.greedy import greedy_decode, transcript_and_words
from ds2_jax.error_rates import ErrorCount, char_errors, word_errors
from ds2_jax.errors import InputError
from ds2_jax.files import TFDS, is_tfds, write_text
from ds2_jax.progress import Skipped

SHOWN_SPEAKERS = 10
SHOWN_UTTERANCES = 5


@dataclasses.dataclass(frozen=True)
class Result:
    """One utterance: what was said, what was recognised."""

    utterance: Utterance
    reference: str
    hypothesis: str

    @functools.cached_property
    def words(self) -> ErrorCount:
        """Word errors."""
        return word_errors(self.reference, self.hypothesis)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of a split and their corpus error rates.

    Attributes:
        results: one for each utterance.
        loss: nats per utterance that CTC can align.
        unalignable: utterances without a loss: too few frames, or characters outside the alphabet.
        left_out: utterances of the split that were not evaluated; training lists why.
    """

    results: Sequence[Result]
    loss: float
    unalignable: int
    left_out: int = 0

    @functools.cached_property
    def words(self) -> ErrorCount:
        """Word errors of the split."""
        return sum((result.words for result in self.results), start=ErrorCount())

    def characters(self, *, spaces: bool) -> ErrorCount:
        """Character errors of the split, with or without the spaces between words."""
        pairs = ((result.reference, result.hypothesis) for result in self.results)
        return sum((char_errors(*pair, spaces=spaces) for pair in pairs), start=ErrorCount())

    @property
    def rates(self) -> dict[str, float]:
        """Error rates as fractions, and the loss."""
        return {
            "loss": self.loss,
            "wer": self.words.rate,
            "cer": self.characters(spaces=False).rate,
            "cer_with_spaces": self.characters(spaces=True).rate,
        }

    @property
    def summary(self) -> dict[str, Any]:
        """Rates with the counts behind them, for JSON."""
        counts = {
            "wer_counts": self.words,
            "cer_counts": self.characters(spaces=False),
            "cer_with_spaces_counts": self.characters(spaces=True),
        }
        details = {name: dataclasses.asdict(count) for name, count in counts.items()}
        numbers = {"utterances": len(self.results), "unalignable": self.unalignable, "left_out": self.left_out}
        return numbers | self.rates | details

    def __str__(self) -> str:
        words, characters = self.words, self.characters(spaces=False)
        with_spaces = self.characters(spaces=True)
        rates = (
            f"WER {words.rate:.2%} ({words.edits} errors in {words.reference_length} words: "
            f"{words.substitutions} substituted, {words.deletions} deleted, {words.insertions} inserted), "
            f"CER {characters.rate:.2%} ({characters.edits} in {characters.reference_length} characters; "
            f"{with_spaces.rate:.2%} with spaces)"
        )
        if not words.reference_length:
            rates = f"no words in the references, so no error rate; {words.insertions} words recognised"
        return (
            f"{rates}, {len(self.results)} utterances"
            + (f"; {self.unalignable} without a loss (too short, or of other characters)" if self.unalignable else "")
            + (f"; {self.left_out} left out" if self.left_out else "")
        )


def make_eval_step(config: Config, mesh: Mesh) -> Callable[..., Any]:
    """`steps.eval_step` of a configuration, over the devices of a mesh."""
    num_labels = Alphabet.of(config.data).size
    step = functools.partial(steps.eval_step, config=config, num_labels=num_labels)
    return parallel.parallel_eval_step(step, mesh, config.parallel)


def evaluate_utterances(
    eval_step: Callable[..., Any],
    variables: Any,
    split: Split,
    *,
    config: Config,
    num_devices: int,
    title: str,
    on_problem: Callable[[Problem], None] | None = None,
) -> Evaluation:
    """Decodes utterances greedily, in batches of similar length.

    Args:
        eval_step: compiled by `parallel.parallel_eval_step`.
        variables: params and batch_stats, on the devices.
        split: its used utterances, or none; all of them are decoded, whatever their transcripts hold.
        config: of the run.
        num_devices: rows of a batch are filled up to a multiple of it.
        title: shown on the progress bar.
        on_problem: told of every utterance whose audio cannot be read, which is left out; None: it stops the
            evaluation.

    Raises:
        InputError: an audio file cannot be read.
    """
    utterances = split.utterances
    if not utterances:
        return Evaluation([], 0.0, 0)
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
        for utterance in utterances
    ]
    seconds_per_frame = config.model.time_reduction * config.features.window_stride
    hypotheses: dict[int, str] = {}
    loss_sum, num_aligned = 0.0, 0
    stream = batches(
        plan,
        readable,
        alphabet,
        sample_rate=sample_rate,
        hop_length=hop_length,
        label_width=max(len(alphabet.normalise(utterance.transcript)) for utterance in readable),
        row_multiple=num_devices,
        num_workers=config.data.num_workers,
        on_problem=on_problem,
    )
    for batch in tqdm(stream, title, total=len(plan), unit="batch", leave=False, disable=not sys.stderr.isatty()):
        interrupts.check()
        output = {name: np.asarray(value) for name, value in eval_step(variables, batch).items()}
        counted = output["alignable"] & (batch["num_labels"] > 0)
        loss_sum += float(output["losses"][counted].sum())
        num_aligned += int(counted.sum())
        decoded = greedy_decode(output["best_labels"], output["output_lengths"])
        for index, spans in zip(batch["indices"], decoded, strict=True):
            if index >= 0:
                hypotheses[int(index)] = transcript_and_words(spans, alphabet, seconds_per_frame)[0]
    results = [
        Result(utterance, alphabet.normalise(utterance.transcript), hypotheses[index])
        for index, utterance in enumerate(utterances)
        if index in hypotheses
    ]
    left_out = len(split.problems) + len(utterances) - len(results)
    return Evaluation(results, loss_sum / max(num_aligned, 1), len(results) - num_aligned, left_out)


def write_evaluation(folder: Path, name: str, evaluation: Evaluation) -> Path:
    """Writes NAME.json (rates and counts) and NAME.jsonl (an utterance a line, most word errors first).

    Returns:
        The path of NAME.jsonl.

    Raises:
        InputError: the loss is not finite, so the weights are not worth a result; or a file cannot be written.
    """
    if not np.isfinite(evaluation.loss):
        raise InputError(f"The loss of {name} must be finite, got {evaluation.loss}. Use weights from before that.")
    lines = [
        {
            "id": result.utterance.id,
            "word_errors": result.words.edits,
            "reference": result.reference,
            "hypothesis": result.hypothesis,
            "speaker": result.utterance.speaker,
            "audio": str(result.utterance.audio),
        }
        for result in sorted(evaluation.results, key=lambda result: -result.words.edits)
    ]
    path = folder / f"{name}.jsonl"  # before the other, whose presence says that both are there
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_text(folder / f"{name}.json", json.dumps(evaluation.summary, indent=2, allow_nan=False) + "\n")
    return path


def read_evaluation(folder: Path, name: str) -> Evaluation | None:
    """Inverse of `write_evaluation`, but for the order and the durations; None where there is none.

    Raises:
        InputError: the files are damaged.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").split("\n")  # U+2028 may stand in a transcript
        results = []
        for row in map(json.loads, filter(None, lines)):
            utterance = Utterance(Path(row["audio"]), 0.0, row["reference"], row["id"], row["speaker"])
            results.append(Result(utterance, row["reference"], row["hypothesis"]))
        return Evaluation(results, summary["loss"], summary["unalignable"], summary["left_out"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} and {path.stem}.jsonl must hold an evaluation, got {type(error).__name__}: {error}. "
            f"Delete {path} to evaluate again."
        ) from error


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
    shown = evaluation.results[:: -(-len(evaluation.results) // SHOWN_UTTERANCES)]
    lines += ["some utterances, reference above hypothesis:"]
    for result in shown:
        lines += [f"  {result.reference}", f"  {result.hypothesis or '(nothing)'}", ""]
    return "\n".join([*lines, f"all utterances, worst first: {path}"])


def evaluation_name(manifest: Path) -> str:
    """Names the results: FOLDER-STEM of a manifest, since many are called test.jsonl, or SET-SPLIT of a tfds: name."""
    if is_tfds(manifest):
        where, _, split = str(manifest).rpartition("#")
        return re.sub(r"[^\w.+-]+", "-", f"{where.removeprefix(TFDS).rstrip('/').rpartition('/')[2]}-{split}")
    return f"{manifest.absolute().parent.name}-{manifest.stem}"


def evaluate(run: Path, manifest: Path | None) -> Evaluation:
    """Evaluates the best checkpoint of a run and writes what it found into the run folder.

    Args:
        run: folder of the run.
        manifest: utterances; by default the test split of the run's configuration.

    Raises:
        InputError: no run, no manifest, or audio that cannot be read.
    """
    config = run_lib.load_config(run)
    manifest = manifest or split_manifests(config.data, build=False).test
    if manifest is None:
        raise InputError("--manifest must be given, got none: the run names no data.test. Add --manifest FILE.")
    if not is_tfds(manifest) and not manifest.is_file():
        advice = "Give the path of a manifest: --manifest FILE."
        raise InputError(f"{manifest.absolute()} must be a manifest to evaluate, got no such file. {advice}")
    split = read_split(manifest, config, Alphabet.of(config.data), prune=False)
    name = evaluation_name(manifest)
    listed = run / "evaluations" / f"{name}_skipped.jsonl"
    listed.unlink(missing_ok=True)
    skipped = Skipped(listed)
    for problem in split.problems:
        skipped(problem)
    mesh = parallel.data_mesh()
    variables = load_variables(run, config, mesh)
    evaluation = evaluate_utterances(
        make_eval_step(config, mesh),
        variables,
        split,
        config=config,
        num_devices=mesh.size,
        title="evaluating",
        on_problem=skipped if config.data.on_bad_utterance == "skip" else None,
    )
    path = write_evaluation(run / "evaluations", name, evaluation)
    print(report(evaluation, str(manifest), path))
    return evaluation

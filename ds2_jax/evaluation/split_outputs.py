"""Runs a model over a split and decodes its outputs."""

import math
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ds2_jax.audio.waveform import is_constant
from ds2_jax.data.manifest import Problem
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import plan_evaluation
from ds2_jax.data.splits import Split
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.evaluation.conditions import AS_RECORDED, Condition
from ds2_jax.evaluation.results import Evaluation, Result
from ds2_jax.parallel.mesh import fetch_rows
from ds2_jax.parallel.processes import exchange
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system import interrupts


class UtteranceOutput(NamedTuple):
    """The model's output for an utterance.

    Attributes:
        utterance_index: the utterance's position in the split.
        log_probs: [T', V] float32, natural logarithms, without padding; no frames if the recording is constant.
        loss: CTC loss in nats; None if CTC cannot align the transcript, or if the transcript has no labels.
    """

    utterance_index: int
    log_probs: np.ndarray
    loss: float | None


def split_outputs(
    model: TrainedModel,
    split: Split,
    *,
    title: str,
    on_problem: Callable[[Problem], None] | None = None,
    condition: Condition = AS_RECORDED,
) -> Iterator[UtteranceOutput]:
    """Runs a model over a split in batches of similar length. Every process gets all outputs.

    Args:
        model: the model.
        split: one or more utterances; their transcripts may be outside the alphabet.
        title: label of the progress bar.
        on_problem: called for every utterance whose audio cannot be read, which is then left out. With None, such an
            utterance raises InputError.
        condition: what is done to the recordings first.

    Yields:
        The output of each utterance, in the order of the batches.

    Raises:
        InputError: an audio file cannot be read and `on_problem` is None.
        Stopped: a signal asked a process of the run to stop.
    """
    data, features = model.config.data, model.config.features

    def change(index: int, waveform: np.ndarray) -> np.ndarray:
        return condition.change(waveform, features.sample_rate, split.utterances[index].id)

    plan = plan_evaluation(
        condition.num_samples(split.num_samples(features.sample_rate), features.hop_length),
        batch_size=data.batch_size,
        batch_samples=math.ceil(data.batch_seconds * features.sample_rate),
        num_buckets=data.num_buckets,
        hop_length=features.hop_length,
    )
    # A transcript outside the alphabet still counts in the error rates, but has no labels and so no loss.
    stream = batches(
        plan,
        split,
        sample_rate=features.sample_rate,
        hop_length=features.hop_length,
        layout=model.layout,
        num_workers=data.num_workers,
        perturb=None if condition is AS_RECORDED else change,
        on_problem=on_problem,
    )
    for batch in tqdm(stream, title, total=len(plan), unit="batch", leave=False, disable=not sys.stderr.isatty()):
        silent = _silent_rows(batch)
        output = fetch_rows({**model.score(batch), "num_labels": batch["num_labels"], "silent": silent})
        if stop := max(exchange("asked to stop", interrupts.requested())):  # all processes stop at the same batch
            raise interrupts.Stopped(stop)
        counted = output["alignable"] & (output["num_labels"] > 0)
        for row, index in enumerate(output["indices"].tolist()):
            if index >= 0:
                # Constant sound has no text; transcribing does not run the model on it either.
                num_frames = 0 if output["silent"][row] else output["output_lengths"][row]
                log_probs = output["log_probs"][row, :num_frames]
                yield UtteranceOutput(index, log_probs, float(output["losses"][row]) if counted[row] else None)


def _silent_rows(batch: dict[str, np.ndarray]) -> np.ndarray:
    """Finds the rows of a batch that are constant: [B] bool."""
    rows = zip(batch["waveforms"], batch["num_samples"], strict=True)
    return np.array([is_constant(waveform[:num_samples]) for waveform, num_samples in rows])


def evaluate_split(
    model: TrainedModel,
    split: Split,
    decoder: Decoder,
    *,
    title: str,
    on_problem: Callable[[Problem], None] | None = None,
    on_result: Callable[[Result, np.ndarray], None] | None = None,
    condition: Condition = AS_RECORDED,
) -> Evaluation:
    """Runs a model over a split, which may be empty, and decodes its outputs.

    Args:
        model: the model.
        split: the utterances.
        decoder: decodes the log-probabilities.
        title: label of the progress bar.
        on_problem: see `split_outputs`.
        on_result: called with every result and its log-probabilities, [T', V] float32, which are not stored. If several
            models vote, they are those of the first.
        condition: see `split_outputs`.

    Raises:
        InputError, Stopped: see `split_outputs`.
    """
    if not split.utterances:
        return Evaluation([], 0.0, 0)
    results: dict[int, Result] = {}
    losses = []
    for index, log_probs, loss in split_outputs(model, split, title=title, on_problem=on_problem, condition=condition):
        utterance = split.utterances[index]
        readings = decoder(log_probs, utterance.duration / condition.speed)
        results[index] = Result(utterance, model.alphabet.normalise(utterance.transcript), readings[0].text, readings)
        if on_result is not None:
            on_result(results[index], log_probs[:, : model.alphabet.size])
        if loss is not None:
            losses.append(loss)
    in_order = [results[index] for index in sorted(results)]
    left_out = len(split.problems) + len(split.utterances) - len(results)
    return Evaluation(in_order, sum(losses) / max(len(losses), 1), len(results) - len(losses), left_out)

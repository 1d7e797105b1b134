"""The command `replay`: repeats a step whose loss or gradient was not finite, and prints the cause."""

import dataclasses
import functools
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.model import update as update_lib
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, init_state
from ds2_jax.parallel.mesh import data_mesh, parallel_train_step, replicate
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.runs.checksums import named_leaves
from ds2_jax.system.compilation import enable_cache
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training.replay.batch_file import FailedStep, read_batch
from ds2_jax.training.replay.diagnosis import Diagnosis, keep_rows, make_diagnose, smallest_groups

logger = logging.getLogger(__package__)

REPRODUCED = 1
"""Exit code if the loss or the gradient is not finite here either."""
NUM_SHOWN = 12
"""Number of parameters in the table of gradients."""
NUM_GROUPS = 4
"""The search ends after this many failing groups of utterances: with so many, the recordings are not the cause."""


class Replay(NamedTuple):
    """A repeated step and its results."""

    failed: FailedStep
    config: Config
    mesh: Mesh
    state: TrainState
    """State before the step, as NumPy arrays."""
    loss: float
    grad_norm: float

    @property
    def finite(self) -> bool:
        """Whether training would have made the update."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def replay(file: Path, run: Path | None) -> int:
    """Runs the command `replay`.

    Args:
        file: file of a failed step.
        run: folder of the run; None: the folder two levels above `file`.

    Returns:
        The exit code: `REPRODUCED`, or 0 if loss and gradient are finite.
    """
    enable_cache()
    again = make_again(read_batch(file), run or file.absolute().parent.parent)
    print("\n".join(account(again)))
    logger.info("compiling the step once more, to find where its values stop being finite")
    diagnose = make_diagnose(again.config, Alphabet.of(again.config.data).size, again.mesh)

    variables = replicate(again.state.variables, again.mesh)

    def with_rows(rows: Sequence[int]) -> Diagnosis:
        return diagnose(variables, keep_rows(again.failed.batch, rows), again.failed.epoch)

    diagnosis = diagnose(variables, again.failed.batch, again.failed.epoch)
    print(
        "\n".join([*rows_table(again, diagnosis), *layers_table(again, diagnosis), *gradients_table(again, diagnosis)])
    )
    groups: list[list[int]] = []
    if not (again.finite or diagnosis.finite or not_finite(again.state)):
        logger.info("looking for the utterances that cause the failure, in up to a few dozen steps")
        full = np.flatnonzero(again.failed.batch["indices"] >= 0).tolist()
        fails = smallest_groups(full, lambda rows: not with_rows(rows).finite)
        groups = list(itertools.islice(fails, NUM_GROUPS))
    print("\n" + "\n".join(conclusion(again, diagnosis, groups)))
    return 0 if again.finite else REPRODUCED


def make_again(failed: FailedStep, run: Path) -> Replay:
    """Restores the state before a step and makes that step as training did.

    Raises:
        InputError: the run has no such checkpoint, or the batch does not fit the settings of the run.
    """
    config = run_folder.load_config(run)
    alphabet = Alphabet.of(config.data)
    num_parts = failed.num_devices * config.optim.accumulate
    labels = failed.batch["labels"]
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= alphabet.size or len(labels) % num_parts:
        raise InputError(
            f"FILE must hold a batch of the run {run}, got one of another alphabet or another optim.accumulate. Give "
            "the run of this batch with --run."
        )
    devices = jax.local_devices()
    if len(devices) < failed.num_devices:
        failed, devices = for_one_device(failed, config.optim.accumulate), devices[:1]
    mesh = data_mesh(devices[: failed.num_devices])
    tx = make_optimizer(config, failed.steps_per_epoch, failed.steps_per_epoch * config.epochs)
    state = restore(run, config, failed.step - 1, functools.partial(init_state, config, alphabet.size, tx), mesh)
    before = jax.device_get(state)  # the step reuses the memory of `state`
    step = functools.partial(update_lib.train_step, config=config, num_labels=alphabet.size, tx=tx)
    train_step = parallel_train_step(step, mesh, config.parallel)
    given = update_lib.step_arguments(config, failed.steps_per_epoch)(failed.step - 1)
    _, metrics, _ = train_step(state, failed.batch, jnp.int32(failed.epoch), given=given)
    return Replay(failed, config, mesh, before, float(metrics["loss"]), float(metrics["grad_norm"]))


def restore(run: Path, config: Config, step: int, init: Any, mesh: Mesh) -> TrainState:
    """Restores the state of a run after `step` updates.

    Args:
        run: folder of the run.
        config: settings of the run.
        step: number of updates made. For 0, the initial state is drawn again if it was not saved.
        init: makes the initial state.
        mesh: the devices that receive the state.

    Raises:
        InputError: the checkpoint does not exist any more, is damaged, or has other settings.
    """
    saved = run_folder.saved_steps(run)
    if step not in saved:
        if step == 0:
            drawn: TrainState = replicate(init(), mesh)
            return drawn
        there = ", ".join(map(str, saved)) or "none"
        raise InputError(
            f"{run} must still have the checkpoint of step {step}, before the one to replay, got {there}. The run has "
            "probably continued since. If the step fails again, training saves a new file."
        )
    copies = NamedSharding(mesh, PartitionSpec())
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=copies), jax.eval_shape(init))
    with Checkpoints(run, config) as checkpoints:
        return checkpoints.restore(step, like)


def for_one_device(failed: FailedStep, num_micro_batches: int) -> FailedStep:
    """Reorders the rows of a batch so that one device computes the same micro-batches."""
    logger.info(f"this step failed on {failed.num_devices} devices; one repeats it here, so the last bits may differ")
    order = np.arange(len(failed.ids)).reshape(failed.num_devices, num_micro_batches, -1).swapaxes(0, 1).ravel()
    return dataclasses.replace(
        failed,
        num_devices=1,
        batch={name: value[order] for name, value in failed.batch.items()},
        ids=[failed.ids[i] for i in order],
        audio=[failed.audio[i] for i in order],
    )


def account(again: Replay) -> Iterator[str]:
    """Yields lines on the repeated step, with its results in training and now."""
    failed, device = again.failed, again.mesh.devices.flat[0].device_kind
    num_rows = sum(map(bool, failed.ids))
    yield f"step {failed.step} (epoch {failed.epoch + 1}): {num_rows} utterances, on {again.mesh.size} x {device}"
    yield f"then: loss {failed.loss}, gradient norm {failed.grad_norm}, on {failed.made_on}"
    same = all(
        np.array_equal(np.float32(a), np.float32(b), equal_nan=True)
        for a, b in ((failed.loss, again.loss), (failed.grad_norm, again.grad_norm))
    )
    yield f"now:  loss {again.loss}, gradient norm {again.grad_norm}{', the same bits' if same else ''}"
    broken = not_finite(again.state)
    yield f"the state before it (step {failed.step - 1}): " + (f"not finite: {listed(broken)}" if broken else "finite")


def rows_table(again: Replay, diagnosis: Diagnosis) -> Iterator[str]:
    """Yields a line for each utterance with figures of its waveform, its lengths and its loss."""
    batch, config = again.failed.batch, again.config
    yield "\nutterances (a peak of 1 is full scale; bad: samples that are not finite; unaligned: no CTC loss):"
    yield "   seconds      peak       bad  labels  frames       loss  utterance, audio"
    for row in np.flatnonzero(batch["indices"] >= 0).tolist():
        samples = batch["waveforms"][row, : batch["num_samples"][row]]
        finite = np.isfinite(samples)
        frames = count_frames(len(samples), config.features.hop_length)
        yield (
            f"{len(samples) / config.features.sample_rate:10.2f}{np.abs(samples[finite]).max(initial=0):10.4g}"
            f"{np.count_nonzero(~finite):10,}{batch['num_labels'][row]:8}"
            f"{conv_output_lengths(frames, config.model.time_reduction):8}"
            + (f"{diagnosis.losses[row]:11.5g}" if diagnosis.alignable[row] else "  unaligned")
            + f"  {name_of(again, row)}, {printable(again.failed.audio[row])}"
        )


def layers_table(again: Replay, diagnosis: Diagnosis) -> Iterator[str]:
    """Yields a line for each layer, in the order of computation."""
    yield "\nlayers, in order of computation (largest finite value; values that are not finite):"
    for name, values in diagnosis.layers.items():
        rows = np.flatnonzero(values.not_finite)
        where = f" in {of_rows(again, rows)}" if len(rows) else ""
        yield f"  {name:24}{values.largest.max():12.4g}{values.not_finite.sum():12,}{where}"


def gradients_table(again: Replay, diagnosis: Diagnosis) -> Iterator[str]:
    """Yields lines on the parameters with the largest gradients; gradients that are not finite come first."""
    sizes = {name: np.size(leaf) for name, leaf in named_leaves(again.state.params).items()}
    ordered = sorted(
        diagnosis.gradients.items(), key=lambda item: (item[1].not_finite == 0, -float(item[1].largest), item[0])
    )
    shown = f"{min(NUM_SHOWN, len(ordered))} of {len(ordered)}"
    yield f"\ngradients (largest finite value; values that are not finite), {shown}:"
    for name, values in ordered[:NUM_SHOWN]:
        yield f"  {name:24}{values.largest:12.4g}{values.not_finite:12,} of {sizes[name]:,}"


def conclusion(again: Replay, diagnosis: Diagnosis, groups: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yields advice for the user.

    Args:
        again: the repeated step.
        diagnosis: where its values stop being finite.
        groups: groups of rows that fail by themselves.
    """
    if again.finite:
        yield (
            "The loss and the gradient are finite here: the failure does not reproduce on this machine, with these "
            "versions and this checkpoint."
        )
        return
    if broken := not_finite(again.state):
        yield (
            f"The state was not finite before the step: {listed(broken)}. Delete the folder of that checkpoint to "
            "continue from the one before it, or start anew (--workdir or --overwrite)."
        )
    if diagnosis.finite:
        yield (
            "The same step, compiled differently for the diagnosis, is finite: its values are near the limits of "
            "float32."
        )
        return
    yield where_it_begins(again, diagnosis)
    if len(groups) >= NUM_GROUPS:
        named = "; ".join(of_rows(again, rows) for rows in groups)
        yield (
            f"Many utterances fail by themselves ({named}, ...): the cause is the weights, not the recordings. "
            "Start anew (--workdir or --overwrite) with a lower optim.learning_rate or optim.clip_norm."
        )
        return
    for rows in groups:
        alone = "alone" if len(rows) == 1 else "alone, but with neither half of them"
        yield f"The step fails with {of_rows(again, rows)} {alone}. Listen to: {audio_of(again, rows)}"


def where_it_begins(again: Replay, diagnosis: Diagnosis) -> str:
    """Names the first layer, loss or gradient that is not finite."""
    for name, values in diagnosis.layers.items():
        if len(rows := np.flatnonzero(values.not_finite)):
            return f"The first layer that is not finite is {name}, in {of_rows(again, rows)}."
    if len(rows := np.flatnonzero(~np.isfinite(diagnosis.losses))):
        return f"All layers are finite; the loss is not, in {of_rows(again, rows)}."
    if not np.isfinite(diagnosis.loss):
        return "The loss of every utterance is finite; their sum is not."
    layers = list(diagnosis.layers)
    place = {name: layers.index(module_of(name, layers)) for name in diagnosis.gradients}
    broken = [name for name, values in diagnosis.gradients.items() if values.not_finite]
    if not broken:
        return "The loss and all gradients are finite; the norm of the gradients is not."
    last = max(broken, key=lambda name: (place[name], name))
    return f"The loss is finite. Gradients are computed from the last layer to the first; that of {last} is not finite."


def module_of(parameter: str, layers: Sequence[str]) -> str:
    """Returns the layer that a parameter belongs to; the last one if no layer has the name of its module."""
    module = parameter.rpartition(".")[0]
    return module if module in layers else layers[-1]


def not_finite(state: TrainState) -> dict[str, int]:
    """Counts the values that are not finite in each array of a state. Arrays without any are left out."""
    leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(vars(state)).items()}
    counts = {name: int(np.count_nonzero(~np.isfinite(leaf))) for name, leaf in leaves.items()}
    return {name: count for name, count in counts.items() if count}


def listed(counts: dict[str, int]) -> str:
    """Lists the first names with their counts."""
    shown = ", ".join(f"{name} ({count:,} values)" for name, count in itertools.islice(counts.items(), NUM_GROUPS))
    return shown + (f" and {len(counts) - NUM_GROUPS} more" if len(counts) > NUM_GROUPS else "")


def of_rows(again: Replay, rows: Sequence[int] | np.ndarray) -> str:
    """Names the utterances of some rows, or counts them."""
    num_full = sum(map(bool, again.failed.ids))
    if len(rows) > 1 and len(rows) >= num_full:
        return f"all {num_full} utterances"
    names = ", ".join(name_of(again, row) for row in rows[:NUM_GROUPS])
    return names + (f" and {len(rows) - NUM_GROUPS} more utterances" if len(rows) > NUM_GROUPS else "")


def audio_of(again: Replay, rows: Sequence[int]) -> str:
    """Lists the audio files of some rows."""
    return ", ".join(printable(again.failed.audio[row]) for row in rows)


def name_of(again: Replay, row: int) -> str:
    """Returns the id of the utterance in a row, as a terminal may show it."""
    return shorten(printable(again.failed.ids[row])) or "an empty row"


def printable(text: str) -> str:
    """Replaces the characters of `text` that a terminal must not receive: the text comes from an untrusted file."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)

"""TrainState and train_step: pure functions of one device's rows, with explicit collectives."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.model import features, spec_augment
from ds2_jax.model.ctc import ctc_losses
from ds2_jax.model.inference import Batch, init_variables, make_model
from ds2_jax.model.masks import is_alignable
from ds2_jax.model.network import DeepSpeech2

Gradient = tuple[jax.Array, Any]
"""Loss and its gradient by the parameters."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes."""

    step: jax.Array
    """[] int32, updates made; ~updates (negative) once a loss or gradient was not finite: nothing changes any more."""
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = dataclasses.field(default_factory=dict)
    """Moving average of params and batch_stats; empty where `optim.ema_decay` is 0."""

    @property
    def variables(self) -> dict[str, Any]:
        """The model's params and batch_stats, as a step changes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> dict[str, Any]:
        """The variables that are evaluated: the average, where there is one."""
        return self.average or self.variables


def init_state(config: Config, num_labels: int, tx: optax.GradientTransformation) -> TrainState:
    """Weights drawn from `config.seed`, statistics and optimiser at their start."""
    variables = init_variables(config, num_labels)
    params, batch_stats = variables["params"], variables["batch_stats"]
    average = jax.tree.map(jnp.copy, variables) if config.optim.ema_decay else {}  # a step reuses both memories
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, jax.jit(tx.init)(params), average)


def train_step(
    state: TrainState,
    batch: Batch,
    epoch: jax.Array,
    *,
    config: Config,
    num_labels: int,
    tx: optax.GradientTransformation,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update; `axis_name` is set when it runs on several devices.

    The objective is the sum of the row losses over the global number of alignable rows. It is differentiated as the
    local sum over the summed count, and the gradients are summed over devices once.

    With `optim.accumulate` the rows are those of its micro-batches, one after the other, each as many. Every one is
    normalised by itself and updates the running statistics; the gradients are added up before the one update.

    Where the loss or the gradient's norm is not finite, the state stays as it was, but for its `step`, and every later
    step leaves it so: the host, which reads metrics late, then still holds what was there before.

    Args:
        state: the same on every device.
        batch: this device's rows: waveforms [B, S], num_samples [B], labels [B, N], num_labels [B], indices [B]; B a
            multiple of `optim.accumulate`.
        epoch: [] int32; keys SpecAugment and dropout together with the utterances' indices.
        config: of the run.
        num_labels: labels with blank (V).
        tx: the optimiser.
        axis_name: of the devices.

    Returns:
        The new state, and metrics over all devices: loss (nats per alignable utterance), grad_norm (before clipping),
        alignable, unalignable and empty (rows), num_samples (valid audio).
    """
    # Known before the gradient: lengths alone decide which rows can be aligned.
    counts = _all_devices(_row_counts(batch, config), axis_name)
    gradient = functools.partial(
        _gradient, make_model(config, num_labels, axis_name), config, counts["alignable"], epoch, state.params
    )
    batch_stats, summed = _accumulate(gradient, state.batch_stats, batch, config.optim.accumulate)
    loss, grads = _all_devices(summed, axis_name)
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    new = _update(state, batch_stats, grads, finite, tx, config.optim.ema_decay)
    return new, {"loss": loss, "grad_norm": grad_norm, **counts}


def _gradient(
    model: DeepSpeech2,
    config: Config,
    num_alignable: jax.Array,
    epoch: jax.Array,
    params: Any,
    batch_stats: Any,
    rows: Batch,
) -> tuple[Any, Gradient]:
    """The statistics after a micro-batch, and what it adds to loss and gradient."""
    keys = spec_augment.row_keys(config.seed, epoch, rows["indices"])
    spectrograms, num_frames = features.extract_features(rows["waveforms"], rows["num_samples"], config.features)
    spectrograms = spec_augment.spec_augment(spectrograms, num_frames, keys, config.augment)

    def objective(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        (logits, output_lengths), updated = model.apply(
            variables, spectrograms, num_frames, training=True, row_keys=keys, mutable=["batch_stats"]
        )
        losses, _ = ctc_losses(logits, output_lengths, rows["labels"], rows["num_labels"])
        return losses.sum() / jnp.maximum(num_alignable, 1), updated["batch_stats"]

    (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(params)
    return batch_stats, (loss, grads)


def _accumulate(
    gradient: Callable[[Any, Batch], tuple[Any, Gradient]], batch_stats: Any, batch: Batch, num_micro_batches: int
) -> tuple[Any, Gradient]:
    """Hands the statistics from micro-batch to micro-batch and adds up the losses and gradients."""
    if num_micro_batches == 1:
        return gradient(batch_stats, batch)

    def add(carry: tuple[Any, Gradient], rows: Batch) -> tuple[tuple[Any, Gradient], None]:
        batch_stats, summed = carry
        batch_stats, one = gradient(batch_stats, rows)
        return (batch_stats, jax.tree.map(jnp.add, summed, one)), None

    micro_batches = {name: value.reshape(num_micro_batches, -1, *value.shape[1:]) for name, value in batch.items()}
    shapes = jax.eval_shape(gradient, batch_stats, {name: value[0] for name, value in micro_batches.items()})[1]
    zeros = jax.tree.map(jnp.zeros_like, shapes)
    return jax.lax.scan(add, (batch_stats, zeros), micro_batches)[0]


def _update(
    state: TrainState,
    batch_stats: Any,
    grads: Any,
    finite: jax.Array,
    tx: optax.GradientTransformation,
    ema_decay: float,
) -> TrainState:
    """The state after an update, or, where the step is not finite or an earlier one was not, as it was."""
    stopped = state.step < 0

    def update(state: TrainState) -> TrainState:
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average:
            average = moving_average(average, {"params": params, "batch_stats": batch_stats}, state.step, ema_decay)
        return TrainState(state.step + 1, params, batch_stats, opt_state, average)

    def keep(state: TrainState) -> TrainState:
        return dataclasses.replace(state, step=jnp.where(stopped, state.step, ~state.step))

    # Both branches write into the old state's memory. A `where` for every array needs the new values beside it:
    # 194 MiB more for 5 x 1024.
    new: TrainState = jax.lax.cond(finite & ~stopped, update, keep, state)
    return new


def moving_average(average: Any, new: Any, step: jax.Array, decay: float) -> Any:
    """The exponential moving average after an update, the first of which is `step` 0.

    The first updates count for more, so that the weights drawn at random are soon forgotten: the average keeps the
    share min(decay, (1 + n) / (10 + n)) of itself in the n-th of them.

    Source: the decay is that of tf.train.ExponentialMovingAverage with its number of updates given.
    """
    count = (step + 1).astype(jnp.float32)
    return optax.incremental_update(new, average, jnp.maximum(1 - decay, 9 / (10 + count)))


def _row_counts(batch: Batch, config: Config) -> dict[str, jax.Array]:
    num_frames = count_frames(batch["num_samples"], config.features.hop_length)
    output_lengths = conv_output_lengths(num_frames, config.model.time_reduction)
    alignable = is_alignable(output_lengths, batch["labels"], batch["num_labels"])
    empty = batch["num_samples"] == 0
    return {
        "alignable": alignable.sum(),
        "unalignable": (~alignable & ~empty).sum(),
        "empty": empty.sum(),
        "num_samples": batch["num_samples"].astype(jnp.float32).sum(),
    }


def _all_devices(tree: Any, axis_name: str | None) -> Any:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)

"""The training state, objective and step: pure functions of one device's rows, with explicit collectives."""

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.model import features, spec_augment
from ds2_jax.model.ctc import ctc_losses
from ds2_jax.model.inference import Batch, init_variables, make_model, statistics_of
from ds2_jax.model.masks import is_alignable
from ds2_jax.model.moving_average import moving_average
from ds2_jax.model.network import DeepSpeech2
from ds2_jax.model.optimizer import learning_rate_schedule

Gradient = tuple[jax.Array, Any]
"""The loss, and its gradient with respect to the parameters."""
SPECTROGRAMS, LOGITS = "spectrograms", "logits"
"""Names of the model's input and output in `Outputs.layers`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a training step changes."""

    step: jax.Array
    """[] int32, number of updates so far."""
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = dataclasses.field(default_factory=dict)
    """Moving average of params and batch_stats; empty if `optim.ema_decay` is 0."""
    stopped: jax.Array = dataclasses.field(default_factory=lambda: jnp.zeros((), bool))
    """[] bool, True after a loss or gradient that was not finite. No later step changes the state."""

    @property
    def variables(self) -> dict[str, Any]:
        """The model's params and batch_stats, without averaging."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> dict[str, Any]:
        """The variables to evaluate: the moving average if there is one, otherwise `variables`."""
        return self.average or self.variables


def init_state(config: Config, num_labels: int, tx: optax.GradientTransformation) -> TrainState:
    """Draws the weights from `config.seed`, and initialises the statistics and the optimiser."""
    variables = init_variables(config, num_labels)
    params, batch_stats = variables["params"], variables["batch_stats"]
    # The average needs its own copy, because the step donates the buffers of both params and average.
    average = jax.tree.map(jnp.copy, variables) if config.optim.ema_decay else {}
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, jax.jit(tx.init)(params), average)


class Outputs(NamedTuple):
    """What the objective computes besides the loss.

    Attributes:
        batch_stats: the running statistics after these rows.
        losses: [B] float32, nats; 0 for a row that cannot be aligned.
        alignable: [B] bool.
        layers: the output of each layer by name, [B, T, ...], in order of computation. Empty without `with_layers`.
    """

    batch_stats: Any
    losses: jax.Array
    alignable: jax.Array
    layers: "OrderedDict[str, jax.Array]"  # JAX sorts the names of a plain dict


def objective(
    params: Any,
    batch_stats: Any,
    rows: Batch,
    *,
    epoch: jax.Array,
    num_alignable: jax.Array,
    config: Config,
    model: DeepSpeech2,
    seed: jax.Array | None = None,
    with_layers: bool = False,
) -> tuple[jax.Array, Outputs]:
    """Computes the loss to differentiate.

    It is the sum of this device's row losses, divided by the number of alignable rows on all devices.

    Args:
        params: the model's parameters.
        batch_stats: the running statistics before these rows.
        rows: a micro-batch of this device.
        epoch: [] int32. Together with the utterances' indices, it determines the draws of SpecAugment and dropout.
        num_alignable: [] int32, alignable rows of the whole batch, over all devices.
        config: the run's configuration.
        model: the configuration's model.
        seed: [] int32, replaces `config.seed`.
        with_layers: whether to return the outputs of the layers too.
    """
    keys = spec_augment.row_keys(config.seed if seed is None else seed, epoch, rows["indices"])
    statistics = statistics_of(batch_stats)
    waveforms, num_samples = rows["waveforms"], rows["num_samples"]
    spectrograms, num_frames = features.extract_features(waveforms, num_samples, config.features, statistics)
    spectrograms = spec_augment.spec_augment(spectrograms, num_frames, keys, config.augment)
    (logits, output_lengths), changed = model.apply(
        {"params": params, "batch_stats": batch_stats},
        spectrograms,
        num_frames,
        training=True,
        row_keys=keys,
        mutable=["batch_stats", "intermediates"] if with_layers else ["batch_stats"],
        capture_intermediates=with_layers,
    )
    losses, alignable = ctc_losses(logits, output_lengths, rows["labels"], rows["num_labels"])
    layers: OrderedDict[str, jax.Array] = OrderedDict()
    if with_layers:
        layers = OrderedDict({SPECTROGRAMS: spectrograms, **_by_name(changed["intermediates"]), LOGITS: logits})
    return losses.sum() / jnp.maximum(num_alignable, 1), Outputs(changed["batch_stats"], losses, alignable, layers)


def _by_name(intermediates: Mapping[str, Any], prefix: str = "") -> dict[str, jax.Array]:
    """Flattens the modules' outputs to a dictionary by name. Flax captures an output when its module returns."""
    found: dict[str, jax.Array] = {}
    for name, value in intermediates.items():
        if isinstance(value, Mapping):
            found |= _by_name(value, f"{prefix}{name}.")
        elif prefix:  # not the model itself
            found[prefix.rstrip(".")] = value[0]
    return found


def train_step(
    state: TrainState,
    batch: Batch,
    epoch: jax.Array,
    *,
    config: Config,
    num_labels: int,
    tx: optax.GradientTransformationExtraArgs,
    seed: jax.Array | None = None,
    learning_rate: jax.Array | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Makes one update of the training state.

    The objective is the sum of the row losses divided by the number of alignable rows on all devices. Each device
    differentiates the sum of its own losses, divided by that number. The gradients are summed over devices once.

    With `optim.accumulate` the batch holds several micro-batches of equal size, one after the other. Each is normalised
    by itself and updates the running statistics. Their gradients are added up for a single update.

    If the loss or the norm of the gradient is not finite, the step changes only `stopped`, and later steps change
    nothing. So the host still has the state from before the failure, although it reads the metrics some steps late.

    Args:
        state: the state, equal on every device.
        batch: this device's rows: waveforms [B, S], num_samples [B], labels [B, N], num_labels [B], indices [B]. B must
            be a multiple of `optim.accumulate`.
        epoch: [] int32. Together with the utterances' indices, it determines the draws of SpecAugment and dropout.
        config: the run's configuration.
        num_labels: number of labels, blank included (V).
        tx: the optimiser.
        seed: [] int32, replaces `config.seed`. As an argument it is no part of the compiled step.
        learning_rate: [] float32, replaces that of the optimiser's schedule, for the same reason.
        axis_name: name of the device axis; None on one device.

    Returns:
        The new state, and metrics over all devices: loss (nats per alignable utterance), grad_norm (before clipping),
        alignable, unalignable and empty (numbers of rows), num_samples (valid samples).
    """
    # Lengths alone decide which rows can be aligned, so the count is known before the gradient.
    counts = _all_devices(row_counts(batch, config), axis_name)
    of_rows = functools.partial(
        objective,
        epoch=epoch,
        num_alignable=counts["alignable"],
        config=config,
        model=make_model(config, num_labels, axis_name),
        seed=seed,
    )

    def gradient(batch_stats: Any, rows: Batch) -> tuple[Any, Gradient]:
        (loss, outputs), grads = jax.value_and_grad(of_rows, has_aux=True)(state.params, batch_stats, rows)
        return outputs.batch_stats, (loss, grads)

    batch_stats, summed = _accumulate(gradient, state.batch_stats, batch, config.optim.accumulate)
    loss, grads = _all_devices(summed, axis_name)
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    given = {} if learning_rate is None else {"learning_rate": learning_rate}
    new = _update(state, batch_stats, grads, finite, functools.partial(tx.update, **given), config.optim.ema_decay)
    return new, {"loss": loss, "grad_norm": grad_norm, **counts}


def step_arguments(config: Config, num_steps: int) -> Callable[[int], dict[str, jax.Array]]:
    """Returns a function that gives a step, counted from 0, the arguments that differ from run to run.

    The compiled step does not contain them. So a run with another seed, learning rate, warm-up or number of epochs
    finds the step in the compilation cache.

    Args:
        config: settings of the run.
        num_steps: steps of an epoch.
    """
    rate = jax.jit(learning_rate_schedule(config.optim, num_steps, num_steps * config.epochs))
    seed = jnp.int32(config.seed)
    return lambda step: {"seed": seed, "learning_rate": rate(jnp.int32(step))}


def _accumulate(
    gradient: Callable[[Any, Batch], tuple[Any, Gradient]], batch_stats: Any, batch: Batch, num_micro_batches: int
) -> tuple[Any, Gradient]:
    """Adds up the losses and gradients of the micro-batches. Each starts from the statistics of the one before it."""
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
    optimise: Callable[..., Any],
    ema_decay: float,
) -> TrainState:
    """Updates the state. A step that is not finite changes only `stopped`, and later steps change nothing."""

    def update(state: TrainState) -> TrainState:
        updates, opt_state = optimise(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average:
            average = moving_average(average, {"params": params, "batch_stats": batch_stats}, state.step, ema_decay)
        return TrainState(state.step + 1, params, batch_stats, opt_state, average, state.stopped)

    def stop(state: TrainState) -> TrainState:
        return dataclasses.replace(state, stopped=jnp.ones_like(state.stopped))

    # Both branches of `cond` write into the old state's memory. A `where` for each array would need memory for the new
    # values too: 194 MiB more for 5 x 1024.
    new: TrainState = jax.lax.cond(finite & ~state.stopped, update, stop, state)
    return new


def row_counts(batch: Batch, config: Config) -> dict[str, jax.Array]:
    """Counts the alignable, unalignable and empty rows of this device, and their valid samples."""
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

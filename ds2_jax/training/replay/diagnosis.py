"""Finds where a training step stops being finite: in which layer, utterance and parameter."""

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.model.inference import Batch, make_model
from ds2_jax.model.masks import mask_from_lengths
from ds2_jax.model.update import SPECTROGRAMS, objective, row_counts
from ds2_jax.parallel.mesh import AXIS
from ds2_jax.runs.checksums import named_leaves

Arrays = Mapping[str, np.ndarray]


class Values(NamedTuple):
    """Statistics of the values of an array."""

    largest: jax.Array
    """float32, largest magnitude of the finite values."""
    not_finite: jax.Array
    """int32, number of values that are not finite."""


class Diagnosis(NamedTuple):
    """The values that a step computes for its loss and gradient.

    Attributes:
        loss: nats per utterance.
        grad_norm: norm of the gradient before clipping.
        losses: [B] float32, nats; 0 for a row that cannot be aligned.
        alignable: [B] bool, whether the row can be aligned.
        layers: [B] each, statistics of the valid frames of each layer's output, in the order of computation.
        gradients: [] each, statistics of each parameter's gradient.
    """

    loss: jax.Array
    grad_norm: jax.Array
    losses: jax.Array
    alignable: jax.Array
    layers: dict[str, Values]
    gradients: dict[str, Values]

    @property
    def finite(self) -> bool:
        """Whether training would have made the update."""
        return bool(np.isfinite([self.loss, self.grad_norm]).all())


def make_diagnose(config: Config, num_labels: int, mesh: Mesh) -> Callable[[Mapping[str, Any], Arrays, int], Diagnosis]:
    """Compiles the diagnosis of a step, with the rows spread over `mesh` as in the training step.

    Returns:
        (variables, batch, epoch) -> Diagnosis of NumPy arrays; variables are params and batch_stats.
    """
    config = dataclasses.replace(config, rematerialise=False)  # the values are the same
    traced = functools.partial(_diagnose, config=config, num_labels=num_labels)
    specs = (P(), P(AXIS), P(AXIS), P())  # loss and norm; rows; layers; gradients
    sharded = jax.shard_map(traced, mesh=mesh, in_specs=(P(), P(AXIS), P()), out_specs=specs, check_vma=False)
    compiled = jax.jit(sharded)

    def diagnose(variables: Mapping[str, Any], batch: Arrays, epoch: int) -> Diagnosis:
        (loss, norm), (losses, alignable), layers, gradients = jax.device_get(
            compiled(variables, batch, jnp.int32(epoch))
        )
        return Diagnosis(loss, norm, losses, alignable, layers, gradients)

    return diagnose


def _diagnose(
    given: Mapping[str, Any], batch: Batch, epoch: jax.Array, *, config: Config, num_labels: int
) -> tuple[Any, Any, Any, dict[str, Values]]:
    """Computes what `update.train_step` computes for the rows of one device, without the update."""
    of_rows = functools.partial(
        objective,
        epoch=epoch,
        num_alignable=jax.lax.psum(row_counts(batch, config)["alignable"], AXIS),
        config=config,
        model=make_model(config, num_labels, AXIS),
        with_layers=True,
    )

    def add(summed: Any, rows: Batch) -> tuple[Any, Any]:
        gradient = jax.value_and_grad(of_rows, has_aux=True)
        (loss, outputs), grads = gradient(given["params"], given["batch_stats"], rows)
        num_frames = count_frames(rows["num_samples"], config.features.hop_length)
        layers = [(name, _row_values(name, value, num_frames, config)) for name, value in outputs.layers.items()]
        kept = outputs.losses, outputs.alignable, OrderedDict(layers)
        return jax.tree.map(jnp.add, summed, (loss, grads)), kept

    num_micro_batches = config.optim.accumulate
    micro_batches = {name: value.reshape(num_micro_batches, -1, *value.shape[1:]) for name, value in batch.items()}
    zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, given["params"])
    summed, kept = jax.lax.scan(add, zeros, micro_batches)
    loss, grads = jax.lax.psum(summed, AXIS)
    losses, alignable, layers = jax.tree.map(lambda value: value.reshape(-1), kept)
    gradients = {name: _values(grad) for name, grad in named_leaves(grads).items()}
    return (loss, optax.tree.norm(grads)), (losses, alignable), layers, gradients


def _row_values(name: str, outputs: jax.Array, num_frames: jax.Array, config: Config) -> Values:
    """Computes statistics, [B] each, of the valid frames of `outputs` [B, T, ...]."""
    strides = config.model.time_strides
    stride = 1 if name == SPECTROGRAMS else strides[0] if name in ("conv_0", "conv_norm_0") else strides[0] * strides[1]
    mask = mask_from_lengths(conv_output_lengths(num_frames, stride), outputs.shape[1])
    mask = mask.reshape(*mask.shape, *(1,) * (outputs.ndim - 2))
    return _values(jnp.where(mask, outputs, 0), tuple(range(1, outputs.ndim)))


def _values(x: jax.Array, axes: tuple[int, ...] | None = None) -> Values:
    finite = jnp.isfinite(x)
    largest = jnp.where(finite, jnp.abs(x), 0).max(axes, initial=0).astype(jnp.float32)
    return Values(largest, (~finite).sum(axes))


def keep_rows(batch: Arrays, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """Empties all rows of a batch but `rows`."""
    kept = np.isin(np.arange(len(batch["indices"])), rows)
    return {
        name: np.where(kept.reshape(-1, *(1,) * (value.ndim - 1)), value, -1 if name == "indices" else 0).astype(
            value.dtype
        )
        for name, value in batch.items()
    }


def smallest_groups(rows: Sequence[int], fails: Callable[[Sequence[int]], bool]) -> Iterator[list[int]]:
    """Halves a group of failing rows again and again, as long as a half fails by itself.

    Args:
        rows: rows that fail together, at least one.
        fails: returns whether the given rows fail when all other rows are empty.

    Yields:
        Groups that fail while neither half does: single rows, or rows that only fail together.
    """
    halves = (rows[: len(rows) // 2], rows[len(rows) // 2 :]) if len(rows) > 1 else ()
    failing = [half for half in halves if fails(half)]
    if not failing:
        yield list(rows)
    for half in failing:
        yield from smallest_groups(half, fails)

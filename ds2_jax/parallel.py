"""One step over all devices: a 1-D mesh, shard_map and pmap, rows to devices and back."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds2_jax.compilation import compiler_options
from ds2_jax.rows import RowLayout

AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """1-D mesh named "data" over `devices` (default: all, of every process)."""
    return Mesh(np.array(devices or jax.devices()), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def row_layout(mesh: Mesh, num_micro_batches: int = 1) -> RowLayout:
    """Which rows of a batch this process gives to the devices of `mesh`."""
    processes = sorted({device.process_index for device in mesh.devices.flat})
    index = processes.index(jax.process_index())
    return RowLayout(mesh.size, num_micro_batches, len(processes), index)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of every array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def parallel_train_step(
    step: Callable[..., Any], mesh: Mesh, mode: Literal["shard_map", "pmap"] = "shard_map"
) -> Callable[..., Any]:
    """Compiles `steps.train_step` for rows spread over the mesh.

    Args:
        step: (state, batch, epoch, axis_name=...) -> (state, metrics), the same on every device.
        mesh: from `data_mesh`.
        mode: both compile the same per-device function; pmap is JAX's older interface, and takes no compiler options.

    Returns:
        (state, batch, epoch) -> (state, metrics); batch holds NumPy arrays [B, ...], B a multiple of the devices. With
        shard_map the old state's memory is reused; pmap keeps it until the caller lets go of it.
    """
    step = functools.partial(step, axis_name=AXIS)
    if mode == "pmap":
        mapped = jax.pmap(step, AXIS, in_axes=(None, 0, None), out_axes=None, devices=mesh.devices.tolist())
        return lambda state, batch, epoch: mapped(state, _split_rows(batch, mesh.size), epoch)
    # check_vma off: optax.ctc_loss starts its scan from constants, which the check refuses (jax 0.10).
    sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXIS), P()), out_specs=(P(), P()), check_vma=False)
    return jax.jit(sharded, donate_argnums=0, compiler_options=compiler_options())


def parallel_eval_step(
    step: Callable[..., Any], mesh: Mesh, mode: Literal["shard_map", "pmap"] = "shard_map"
) -> Callable[..., Any]:
    """Compiles `steps.eval_step` likewise: (variables, batch) -> dict of arrays [B, ...] in the batch's order."""
    if mode == "pmap":
        mapped = jax.pmap(step, AXIS, in_axes=(None, 0), devices=mesh.devices.tolist())
        return lambda variables, batch: {
            name: np.asarray(value).reshape(-1, *value.shape[2:])
            for name, value in mapped(variables, _split_rows(batch, mesh.size)).items()
        }
    sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False)
    return jax.jit(sharded, compiler_options=compiler_options())


def _split_rows(batch: Mapping[str, np.ndarray], num_devices: int) -> dict[str, np.ndarray]:
    return {name: value.reshape(num_devices, -1, *value.shape[1:]) for name, value in batch.items()}

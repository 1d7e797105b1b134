"""Runs a step on all devices of all processes: a 1-D mesh, shard_map and pmap, and moving rows to devices and back."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds2_jax.parallel.rows import RowLayout
from ds2_jax.system.checks import require
from ds2_jax.system.compilation import compiler_options

AXIS = "data"
Mode = Literal["shard_map", "pmap"]


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes a 1-D mesh named "data" over `devices`. The default is all devices of all processes."""
    return Mesh(np.array(devices or jax.devices()), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def row_layout(mesh: Mesh, num_micro_batches: int = 1) -> RowLayout:
    """Returns the layout of the rows of a batch that this process computes on the devices of `mesh`."""
    processes = sorted({device.process_index for device in mesh.devices.flat})
    index = processes.index(jax.process_index())
    return RowLayout(mesh.size, num_micro_batches, len(processes), index)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies every array to every device.

    With several processes, process 0 broadcasts its arrays. Otherwise hosts with different CPUs could start from arrays
    that differ in the last bits.
    """
    copies = NamedSharding(mesh, P())
    if not mesh.is_multi_process:
        return jax.device_put(tree, copies)
    hosts = multihost_utils.broadcast_one_to_all(jax.device_get(tree))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(copies, x, x.shape), hosts)


def to_global(rows: Any, mesh: Mesh) -> Any:
    """Joins the rows of all processes into arrays over all devices. A single process returns its rows unchanged.

    Args:
        rows: this process's rows, NumPy arrays [B, ...], in the order of `row_layout`.
        mesh: a mesh of `data_mesh`.
    """
    if not mesh.is_multi_process:
        return rows
    over_devices = NamedSharding(mesh, P(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(over_devices, x), rows)


def fetch_rows(tree: Any) -> Any:
    """Gathers the rows of every process into NumPy arrays."""
    return multihost_utils.process_allgather(tree, tiled=True)


class TrainStep:
    """`update.train_step`, compiled for rows that are split over the devices. `parallel_train_step` makes it."""

    def __init__(self, step: Callable[..., Any], mesh: Mesh, mode: Mode) -> None:
        self._mesh, self._split = mesh, mode == "pmap"

        def train_step(
            state: Any, batch: dict[str, jax.Array], epoch: jax.Array, given: dict[str, jax.Array], signals: jax.Array
        ) -> tuple[Any, dict[str, Any], jax.Array]:
            state, metrics = step(state, batch, epoch, **given, axis_name=AXIS)
            return state, metrics, jax.lax.pmax(signals.max(), AXIS)

        if mode == "pmap":
            in_axes, devices = (None, 0, None, None, 0), mesh.devices.tolist()
            self._compiled: Any = jax.pmap(train_step, AXIS, in_axes=in_axes, out_axes=None, devices=devices)
            return
        # check_vma is off, because it refuses the constants from which optax.ctc_loss starts its scan (jax 0.10).
        in_specs, out_specs = (P(), P(AXIS), P(), P(), P(AXIS)), (P(), P(), P())
        sharded = jax.shard_map(train_step, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        self._compiled = jax.jit(sharded, donate_argnums=0, compiler_options=compiler_options())

    def __call__(
        self,
        state: Any,
        batch: Mapping[str, np.ndarray],
        epoch: jax.Array,
        signal: int = 0,
        given: Mapping[str, jax.Array] = MappingProxyType({}),
    ) -> tuple[Any, dict[str, jax.Array], jax.Array]:
        """Makes an update.

        Args:
            state: the state before the update. shard_map reuses its memory; pmap does not.
            batch: this process's rows, NumPy arrays [B, ...], where B is a multiple of the process's devices.
            epoch: [] int32.
            signal: a request to stop or to save, which all other processes receive.
            given: other arguments of the step by name, [] arrays that are equal in all processes.

        Returns:
            The new state, the metrics, and the largest signal of any process, [] int32.
        """
        new, metrics, largest = self._compiled(*self._arguments(state, batch, epoch, given, signal))
        return new, metrics, largest

    def lower(
        self, state: Any, batch: Mapping[str, Any], epoch: Any, given: Mapping[str, Any] = MappingProxyType({})
    ) -> jax.stages.Lowered:
        """Lowers the step, like `lower` of `jax.jit`. Shapes may replace arrays."""
        lowered: jax.stages.Lowered = self._compiled.lower(*self._arguments(state, batch, epoch, given, signal=0))
        return lowered

    def _arguments(
        self, state: Any, batch: Mapping[str, Any], epoch: Any, given: Mapping[str, Any], signal: int
    ) -> tuple[Any, ...]:
        rows = batch, np.full(len(self._mesh.local_devices), signal, np.int32)
        batch, signals = _split_rows(rows, self._mesh.size) if self._split else to_global(rows, self._mesh)
        return state, batch, epoch, dict(given), signals


def parallel_train_step(step: Callable[..., Any], mesh: Mesh, mode: Mode = "shard_map") -> TrainStep:
    """Compiles `update.train_step` for rows that are split over the mesh.

    Args:
        step: (state, batch, epoch, axis_name=..., ...) -> (state, metrics), where the results are equal on all devices.
        mesh: a mesh of `data_mesh`.
        mode: shard_map or pmap. Both compile the same per-device function. pmap is JAX's older interface and accepts no
            compiler options.

    Raises:
        InputError: the mode is pmap and there are several processes.
    """
    _check_mode(mode, mesh)
    return TrainStep(step, mesh, mode)


def parallel_eval_step(step: Callable[..., Any], mesh: Mesh, mode: Mode = "shard_map") -> Callable[..., Any]:
    """Compiles `inference.eval_step` for rows that are split over the mesh.

    Returns:
        (variables, batch) -> dict of arrays [B, ...] in the batch's order. With several processes the arrays contain
        the rows of all processes; `fetch_rows` gathers them.
    """
    _check_mode(mode, mesh)
    if mode == "pmap":
        mapped = jax.pmap(step, AXIS, in_axes=(None, 0), devices=mesh.devices.tolist())
        return lambda variables, batch: {
            name: np.asarray(value).reshape(-1, *value.shape[2:])
            for name, value in mapped(variables, _split_rows(batch, mesh.size)).items()
        }
    sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False)
    compiled = jax.jit(sharded, compiler_options=compiler_options())
    return lambda variables, batch: compiled(variables, to_global(batch, mesh))


def _check_mode(mode: Mode, mesh: Mesh) -> None:
    # With several processes, pmap's arguments and results are local to each process. Each call would convert the state
    # from global to local arrays and back.
    advice = "Leave it at its default, or train in one process."
    require(mode != "pmap" or not mesh.is_multi_process, "parallel", "be shard_map in several processes", mode, advice)


def _split_rows(rows: Any, num_devices: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(num_devices, -1, *x.shape[1:]), rows)

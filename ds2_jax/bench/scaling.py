"""Measures how time and memory of a training step grow with frames, batch, layers and simulated devices."""

import dataclasses
import logging
import statistics
from collections.abc import Sequence

from ds2_jax.bench import costs
from ds2_jax.bench.child import Child
from ds2_jax.bench.measure import OURS, compilation_cache
from ds2_jax.bench.size import Size
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

BASE = Size(num_layers=2, hidden_size=256, batch_size=8, num_frames=200)
FACTORS = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Growth:
    """Measurements along one axis.

    Attributes:
        axis: frames, batch, layers or devices.
        values: the measured values of the axis.
        seconds: median seconds of a training step.
        arrays_mib: the step's arguments, results and temporary arrays, by the compiler's figure.
        peak_mib: largest resident memory of the process, including compilation. Libraries take a few hundred MiB.
        flops: operations on the padded batch.
        exponents: k in "proportional to the axis to the power of k", for seconds, arrays_mib and flops.
    """

    axis: str
    values: list[int]
    seconds: list[float]
    arrays_mib: list[float]
    peak_mib: list[float]
    flops: list[float]
    exponents: dict[str, float]


def measure_scaling(runs: int, base: Size = BASE, factors: Sequence[int] = FACTORS) -> list[Growth]:
    """Trains on the CPU at multiples of the base size along each axis, each in a new process.

    Devices are simulated on the machine's cores and share one batch. So along this axis only the overhead of splitting
    a step grows.
    """
    growths, known = [], dict[tuple[Size, int], tuple[float, float, float]]()
    for axis in ("frames", "batch", "layers", "devices"):
        growth = Growth(axis, [], [], [], [], [], {})
        for factor in factors:
            size, devices = grown(base, axis, factor)
            value = {"frames": size.num_frames, "batch": size.batch_size, "layers": size.num_layers, "devices": devices}
            if (size, devices) not in known:
                logger.info(f"measuring how a step grows: {value[axis]} {axis}")
                known[size, devices] = _measure(size, devices, runs)
            seconds, arrays_mib, peak_mib = known[size, devices]
            growth.values.append(value[axis])
            growth.seconds.append(seconds)
            growth.arrays_mib.append(arrays_mib)
            growth.peak_mib.append(peak_mib)
            padded = [size.num_frames] * size.batch_size
            growth.flops.append(costs.train_flops(size.config, Alphabet(size.config.data.alphabet).size, padded))
        for name in ("seconds", "arrays_mib", "flops"):
            growth.exponents[name] = costs.fit_exponent(growth.values, getattr(growth, name))
        growths.append(growth)
    return growths


def grown(base: Size, axis: str, factor: int) -> tuple[Size, int]:
    """Multiplies the base size by `factor` along an axis. Returns the size and the number of devices."""
    field = {"frames": "num_frames", "batch": "batch_size", "layers": "num_layers"}.get(axis)
    if field is None:
        return base, factor
    return dataclasses.replace(base, **{field: getattr(base, field) * factor}), 1


def _measure(size: Size, devices: int, runs: int) -> tuple[float, float, float]:
    """Measures seconds, MiB of arrays and MiB of resident memory of a step."""
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    with compilation_cache() as cache, Child(OURS, cache | environment) as ours:
        ours.ask("load", kind="train", size=size.to_json())
        ours.ask("compile")
        ours.timed("run")
        seconds = statistics.median(ours.timed("run") for _ in range(runs))
        return seconds, ours.ask("arrays_memory"), ours.ask("peak_memory")

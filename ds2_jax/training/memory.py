"""The memory of a training step, by the compiler's figures, and the batch size that fills a device."""

import functools
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds2_jax.config import Config, load_config
from ds2_jax.config.frames import count_frames
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, init_state, train_step
from ds2_jax.parallel.mesh import data_mesh, parallel_train_step
from ds2_jax.system import compilation
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

LABELS_PER_SECOND = 20
"""Assumed, because no transcripts are read; English read aloud has about 14. The memory of CTC grows with it."""
PREALLOCATED = 0.75
"""Share of a GPU's memory that JAX reserves for arrays, unless XLA_CLIENT_MEM_FRACTION sets another."""


def compiled_bytes(
    config: Config,
    num_labels: int,
    *,
    num_rows: int,
    padded_samples: int,
    label_width: int,
    mesh: Mesh,
    compiler_options: Mapping[str, str] | None = None,
) -> int:
    """Compiles the real training step for one shape, without running it, and returns the memory that it needs.

    Args:
        config: settings of the run.
        num_labels: number of labels, including the blank (V).
        num_rows: rows of a batch, over all devices and micro-batches.
        padded_samples: padded length of its waveforms (S).
        label_width: padded length of the label sequences (N).
        mesh: the devices.
        compiler_options: replace the compiler options of the training step.

    Returns:
        Bytes on each device: arguments, results and temporary arrays. With `parallel` pmap, the old state counts too,
        because pmap does not reuse its memory.
    """
    tx = make_optimizer(config, steps_per_epoch=1, total_steps=1)
    of_device = functools.partial(train_step, config=config, num_labels=num_labels, tx=tx)
    step: Any = parallel_train_step(of_device, mesh)
    copies = NamedSharding(mesh, P())
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=copies),
        jax.eval_shape(lambda: _make_state(config, num_labels)),
    )
    counts = jax.ShapeDtypeStruct((num_rows,), jnp.int32)
    batch = {
        "waveforms": jax.ShapeDtypeStruct((num_rows, padded_samples), jnp.float32),
        "num_samples": counts,
        "labels": jax.ShapeDtypeStruct((num_rows, label_width), jnp.int32),
        "num_labels": counts,
        "indices": counts,
    }
    number = jax.ShapeDtypeStruct((), jnp.int32)
    given = {"seed": number, "learning_rate": jax.ShapeDtypeStruct((), jnp.float32)}
    lowered = step.lower(state, batch, number, given)
    held = held_bytes(lowered.compile(compiler_options=compiler_options))
    return held + (_num_bytes(state) if config.parallel == "pmap" else 0)


def held_bytes(compiled: jax.stages.Compiled) -> int:
    """Returns the compiler's figure for a program's arguments, results and temporary arrays: bytes on each device."""
    sizes = compiled.memory_analysis()
    assert sizes is not None
    arguments_and_results = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return int(arguments_and_results + sizes.temp_size_in_bytes)


def batch_seconds(config: Path, memory: float, devices: int) -> int:
    """Runs the command `data batch-seconds` and returns the exit code 0.

    Args:
        config: Python file that defines `config`, or the name of a recipe.
        memory: memory of each device in GB (10^9 bytes).
        devices: number of devices that share a batch.

    Raises:
        InputError: an argument is wrong, or the memory is too small for one utterance.
    """
    require(0 < memory < math.inf, "--memory", "be positive (GB)", memory)
    require(devices >= 1, "--devices", "be at least 1", devices)
    settings = load_config(config)
    longest = settings.data.max_duration
    require(longest < math.inf, "data.max_duration", "be finite here", longest, "Set the longest duration.")
    compilation.enable_cache()
    hop = settings.features.hop_length
    num_frames = count_frames(math.ceil(longest * settings.features.sample_rate), hop)
    seconds_of_row = num_frames * settings.features.window_stride

    def of_rows(num_rows: int) -> int:
        return compiled_bytes(
            settings,
            Alphabet.of(settings.data).size,
            num_rows=num_rows,
            padded_samples=num_frames * hop - 1,
            label_width=math.ceil(longest * LABELS_PER_SECOND),
            mesh=data_mesh(jax.local_devices()[:1]),
            compiler_options=compilation.cautious_options(settings.rematerialise),
        )

    parts = settings.optim.accumulate
    few, many = 4 * parts, 16 * parts
    small, large = of_rows(few), of_rows(many)
    of_second = (large - small) / (many - few) / seconds_of_row
    fixed = small - few * seconds_of_row * of_second
    usable = PREALLOCATED * memory * 1e9
    filled_up = (parts * devices - 1) * longest  # seconds of empty rows in a batch, at most
    seconds = (usable - fixed) / of_second * devices - filled_up
    if seconds < longest:
        raise InputError(
            f"--memory must suffice for one utterance of {longest:g} s, got {memory:g} GB ({usable / 2**20:,.0f} MiB "
            f"for arrays; {fixed / 2**20 + parts * longest * of_second / 2**20:,.0f} MiB are needed). Choose a "
            "smaller model or data.max_duration."
        )
    print(max(int(seconds) // 10 * 10, math.ceil(longest)))  # the estimate is no more precise
    logger.info(
        f"compiled for {jax.devices()[0].platform}, a step needs about {fixed / 2**20:,.0f} MiB, plus "
        f"{of_second / 2**20:.1f} MiB for each second of audio on a device; {usable / 2**20:,.0f} MiB "
        f"({PREALLOCATED:.0%} of {memory:g} GB) are available"
    )
    return 0


def _make_state(config: Config, num_labels: int) -> TrainState:
    return init_state(config, num_labels, make_optimizer(config, steps_per_epoch=1, total_steps=1))


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

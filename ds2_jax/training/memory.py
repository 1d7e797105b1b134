"""What a training step holds in memory: a formula for its parts, and the whole as the compiler lays it out."""

import dataclasses
import functools
import logging
import math
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

FLOAT = 4  # bytes
KEPT_GATES = {"lstm": 4, "gru": 4, "rnn": 1}
"""Units of a frame that model/recurrent.py keeps for each unit of a layer, besides its state."""
LABELS_PER_SECOND = 20
"""Assumed where no transcripts are there; read English has about 14. CTC's share of the memory grows with them."""
PREALLOCATED = 0.75
"""Share of a GPU's memory that JAX takes for its arrays unless XLA_CLIENT_MEM_FRACTION says otherwise."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes on each device, part by part.

    Attributes:
        parameters: the model's.
        gradients: one of each parameter, and with `optim.accumulate` their sum besides.
        optimizer_state: of the optimiser; twice the parameters for AdamW; and with `optim.ema_decay` the average.
        activations: kept by the forward pass for the backward pass, each array once.
        temporaries: the largest that are needed at one time besides: the gradients of one layer's gates, and with
            `rematerialise` what is inside the layer.
    """

    parameters: int
    gradients: int
    optimizer_state: int
    activations: int
    temporaries: int

    @property
    def total(self) -> int:
        """Their sum: gradients grow while activations are freed, so a little more than is there at any one time."""
        return sum(dataclasses.astuple(self))


def estimate(config: Config, num_labels: int, num_rows: int, num_frames: int) -> Estimate:
    """Adds up what a step keeps, by the sizes of the layers.

    Beside the compiler's layout on a CPU (`compiled_bytes`) the sum was within 15 % for two layers or more, and 16 %
    too low where two layers, or three of GRUs in bfloat16, are rematerialised. Less than that the formula knows nothing
    of: the convolutions' temporaries are then the largest, and small batches (10 s) on a CPU take up to 100 MiB more
    for the convolutions' Fourier transforms.

    Args:
        config: of the run.
        num_labels: labels with blank (V).
        num_rows: of this device's part of a batch, all its micro-batches (B).
        num_frames: spectrogram frames of its rows, padding included (T).
    """
    state = jax.eval_shape(lambda: _make_state(config, num_labels))
    parameters = _num_bytes(state.params)
    num_rows = -(-num_rows // config.optim.accumulate)  # one micro-batch at a time
    activations, output_frames = _front_end(config, num_rows, num_frames)
    model = config.model
    frames = num_rows * output_frames
    width = -(-config.features.num_bins // math.prod(model.frequency_strides)) * model.channels[1]
    directions = 1 + model.bidirectional
    gates = FLOAT * frames * directions * model.hidden_size * KEPT_GATES[model.rnn_type]
    inside = gates + FLOAT * frames * directions * model.hidden_size  # and states, of a layer
    for layer in range(model.num_layers):
        activations += FLOAT * frames * width  # its inputs
        if not config.rematerialise:
            activations += inside + (FLOAT * frames * width if layer else 0)  # and the inputs after batch norm
        if layer and model.dropout:
            activations += frames * width  # which ones were kept: a byte each
        width = model.hidden_size
    if not model.bidirectional:
        activations += FLOAT * frames * width * model.lookahead_context  # the product with each tap keeps its frames
    activations += FLOAT * frames * 2 * width  # before and after the head's batch norm
    return Estimate(
        parameters=parameters,
        gradients=parameters * (1 if config.optim.accumulate == 1 else 2),
        optimizer_state=_num_bytes((state.opt_state, state.average)),
        activations=activations,
        temporaries=gates + (inside + FLOAT * frames * model.hidden_size if config.rematerialise else 0),
    )


def _front_end(config: Config, num_rows: int, num_frames: int) -> tuple[int, int]:
    """Bytes that the two convolutions keep, and the frames that they put out."""
    model = config.model
    sizes, channels, total = (num_frames, config.features.num_bins), 1, 0
    for layer in range(2):
        strides = model.time_strides[layer], model.frequency_strides[layer]
        taps = model.time_kernels[layer], model.frequency_kernels[layer]
        folded = [
            (-(-size // stride) + -(-tap // stride) - 1) * stride  # model/conv.py pads them, and folds its strides
            for size, stride, tap in zip(sizes, strides, taps, strict=True)
        ]
        total += jnp.dtype(model.dtype).itemsize * num_rows * math.prod(folded) * channels
        sizes, channels = (-(-sizes[0] // strides[0]), -(-sizes[1] // strides[1])), model.channels[layer]
        total += FLOAT * num_rows * math.prod(sizes) * channels  # before batch norm
    return total, sizes[0]


def compiled_bytes(
    config: Config,
    num_labels: int,
    *,
    num_rows: int,
    padded_samples: int,
    label_width: int,
    mesh: Mesh,
    steps_per_epoch: int = 1,
    barriers: bool = True,
) -> int:
    """Compiles the true training step for one shape, without running it, and asks what it will hold.

    Args:
        config: of the run; with `parallel` pmap the memory of the old state, which pmap keeps, is added.
        num_labels: labels with blank (V).
        num_rows: of a batch, over all devices and micro-batches.
        padded_samples: of its waveforms (S).
        label_width: label positions (N).
        mesh: the devices.
        steps_per_epoch: of the run: a constant of the program, which the compilation cache then has for training.
        barriers: False lets the compiler drop the optimisation barriers of `model/`, as one for accelerators may. On a
            CPU a large step of 5 x 1024 then takes 1.7 times as much.

    Returns:
        Bytes on each device: arguments, results and temporary arrays.
    """
    tx = make_optimizer(config.optim, steps_per_epoch, steps_per_epoch * config.epochs)
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
    lowered = step.lower(state, batch, jax.ShapeDtypeStruct((), jnp.int32))
    options = None if barriers else dict.fromkeys(compilation.compiler_options(), "")
    held = held_bytes(lowered.compile(compiler_options=options))
    return held + (_num_bytes(state) if config.parallel == "pmap" else 0)


def held_bytes(compiled: jax.stages.Compiled) -> int:
    """Bytes of arguments, results and temporary arrays of a program on each device, by its compiler."""
    sizes = compiled.memory_analysis()
    assert sizes is not None
    arguments_and_results = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return int(arguments_and_results + sizes.temp_size_in_bytes)


def batch_seconds(config: Path, memory: float, devices: int) -> int:
    """The command `data batch-seconds`, whose arguments these are. Returns 0.

    Raises:
        InputError: an argument is wrong, or the memory holds no utterance.
    """
    require(0 < memory < math.inf, "--memory", "be positive (GB)", memory)
    require(devices >= 1, "--devices", "be at least 1", devices)
    settings = load_config(config)
    longest = settings.data.max_duration
    require(longest < math.inf, "data.max_duration", "be finite here", longest, "Give the longest utterance's seconds.")
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
            # Without barriers a compiler finds what rematerialisation computes twice, and keeps it.
            barriers=settings.rematerialise,
        )

    parts = settings.optim.accumulate
    few, many = 4 * parts, 16 * parts
    small, large = of_rows(few), of_rows(many)
    of_second = (large - small) / (many - few) / seconds_of_row
    fixed = small - few * seconds_of_row * of_second
    usable = PREALLOCATED * memory * 1e9
    filled_up = (parts * devices - 1) * longest  # empty rows of a batch, at the most
    seconds = int((usable - fixed) / of_second * devices - filled_up) // 10 * 10  # more digits would promise too much
    if seconds < longest:
        raise InputError(
            f"--memory must hold one utterance of {longest:g} s, got {memory:g} GB, of which {usable / 2**20:,.0f} MiB "
            f"are for arrays; {fixed / 2**20 + parts * longest * of_second / 2**20:,.0f} are needed. Take a smaller "
            "model or data.max_duration."
        )
    print(seconds)
    logger.info(
        f"an estimate by the compiler for {jax.devices()[0].platform}: {fixed / 2**20:,.0f} MiB, and "
        f"{of_second / 2**20:.1f} MiB for each second of audio on a device; {usable / 2**20:,.0f} MiB "
        f"({PREALLOCATED:.0%} of {memory:g} GB) to fill"
    )
    return 0


def _make_state(config: Config, num_labels: int) -> TrainState:
    return init_state(config, num_labels, make_optimizer(config.optim, steps_per_epoch=1, total_steps=1))


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

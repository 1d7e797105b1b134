"""Writes a model as StableHLO, for any number of utterances and samples, on CPUs, GPUs and TPUs."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from ds2_jax.config import Config
from ds2_jax.model.features import fourier_product
from ds2_jax.model.inference import infer
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import write_bytes, write_text
from ds2_jax.text.alphabet import Alphabet

PLATFORMS = ("cpu", "cuda", "tpu")
ARTEFACT, TEXT = "model.stablehlo", "model.mlir"
"""The file that `jax.export.deserialize` reads, and the text that other compilers read."""
LONGEST_TEXT = 30.0
"""Most seconds of the waveforms that the text takes: a compiler plans its memory for all of them."""


def write(config: Config, variables: Any, out: Path) -> list[Path]:
    """Writes the model with its weights.

    The function takes waveforms [B, S] float32 and num_samples [B] int32, where S is a multiple of an output frame's
    samples, and gives log_probs [B, T', V] float32 and output_lengths [B] int32. In the text, B is 1 and S is that of
    `text_samples`: IREE 3.13 refuses StableHLO whose sizes are not known, and code for several platforms.

    Returns:
        The files.
    """
    run = functools.partial(_run, variables, config=config, num_labels=Alphabet.of(config.data).size)
    frame = config.model.time_reduction * config.features.hop_length
    rows, samples = jax_export.symbolic_shape(f"b, {frame}*k")
    waveforms = jax.ShapeDtypeStruct((rows, samples), jnp.float32)
    num_samples = jax.ShapeDtypeStruct((rows,), jnp.int32)
    before = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)  # no paths of this machine
    try:
        exported = jax_export.export(jax.jit(run), platforms=PLATFORMS)(waveforms, num_samples)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)
    write_bytes(out / ARTEFACT, bytes(exported.serialize()))
    one = jax.ShapeDtypeStruct((1, text_samples(config)), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    write_text(out / TEXT, jax.jit(run).trace(*one).lower(lowering_platforms=PLATFORMS[:1]).as_text())
    return [out / ARTEFACT, out / TEXT]


def text_samples(config: Config) -> int:
    """Returns the samples that the text takes: as many as the longest utterance of training, at most 30 s."""
    frame = config.model.time_reduction * config.features.hop_length
    seconds = min(config.data.max_duration, LONGEST_TEXT)
    return max(1, round(seconds * config.features.sample_rate / frame)) * frame


class StableHloEngine:
    """Runs a written model; see `Engine`."""

    compiles = True
    one_core = None

    def __init__(self, out: Path, config: Config) -> None:
        try:
            exported = jax_export.deserialize(bytearray((out / ARTEFACT).read_bytes()))
        except (OSError, ValueError) as error:
            raise InputError(f"{out / ARTEFACT} must hold StableHLO, got: {error}. Export it again.") from error
        self._call = jax.jit(exported.call)
        self._frame = config.model.time_reduction * config.features.hop_length

    def log_probs(self, waveforms: np.ndarray, num_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Engine`."""
        padded = np.pad(waveforms, ((0, 0), (0, -waveforms.shape[1] % self._frame)))
        log_probs, output_lengths = self._call(padded, num_samples)
        num_frames = 1 + waveforms.shape[1] // self._frame
        return np.asarray(log_probs)[:, :num_frames], np.asarray(output_lengths)

    def steps(self, num_frames: int) -> Any:
        """The files hold no step."""
        raise NotImplementedError


def _run(variables: Any, waveforms: jax.Array, num_samples: jax.Array, **settings: Any) -> tuple[jax.Array, jax.Array]:
    # Other compilers refuse a Fourier transform of a length that is no power of two.
    logits, output_lengths = infer(variables, waveforms, num_samples, transform=fourier_product, **settings)
    return jax.nn.log_softmax(logits), output_lengths

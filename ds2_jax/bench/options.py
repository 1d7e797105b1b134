"""The options of `bench`, and the sizes that it measures."""

import dataclasses
import re
import typing
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ds2_jax.bench.size import Size
from ds2_jax.config import Config, FeatureConfig
from ds2_jax.config.load import find_config, load_config
from ds2_jax.system.checks import require

CHUNK_SECONDS = 0.32
"""Seconds of sound that come to live recognition at once, as from a network."""

Forward = Literal["onnx", "onnx int8", "jax"]
"""What runs a forward pass: an engine, or ONNX Runtime with recurrent weights in 8 bits."""

Work = Literal["train", "forward", "pipeline", "transcribe", "live", "decode", "scaling", "librispeech"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure, and how."""

    work: Annotated[tuple[Work, ...], tyro.conf.Positional] = typing.get_args(Work)
    """The measurements to make."""
    sizes: tuple[str, ...] = ("5x1024", "3x512")
    """Sizes of the bidirectional LSTMs that train and forward measure, as LAYERSxUNITS. The first size is also used for
    the forward pass of a single utterance of 5 s, for transcribe and for librispeech. live measures models of these
    sizes that run forward only, and that of configs/an4_live.py."""
    batch_size: int = 16
    """Utterances in a batch of train and forward."""
    frames: int = 457
    """Frames (10 ms) of the longest utterance in this batch. The lengths fall linearly to 60 % of it."""
    runs: int = 5
    """Timed runs of each measurement. The median is reported."""
    peer: bool = True
    """Run PyTorch and fast-ctc-decode too."""
    minutes: float = 10.0
    """Minutes of synthetic audio for pipeline. decode uses as many minutes of synthetic outputs, but at most 2."""
    manifest: Path | None = None
    """Your own recordings. pipeline reads them instead of synthetic audio, librispeech plans them instead of
    LibriSpeech, and decode decodes them instead of the run's test split."""
    run: Path | None = None
    """Run whose model computes the outputs for decode. By default they are synthetic, and error rates mean nothing.
    live also measures how far this run's text is behind the speech of its test split."""
    lm: Path | None = None
    """Language model of decode. The default is a 3-gram model of the run's training transcripts."""
    peak_gigaflops: float | None = None
    """Float32 peak of the machine for which librispeech predicts. The default is the fastest matrix product
    measured here."""
    utilisation: float = 0.6
    """Share of this peak that training is assumed to reach."""
    json: bool = False
    """Print JSON with every single time instead of tables."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "frames", "runs"):
            require(getattr(self, name) >= 1, f"--{name.replace('_', '-')}", "be at least 1", getattr(self, name))
        require(self.minutes > 0, "--minutes", "be positive", self.minutes)
        require(0 < self.utilisation <= 1, "--utilisation", "be in (0, 1]", self.utilisation)
        require(
            self.peak_gigaflops is None or self.peak_gigaflops > 0,
            "--peak-gigaflops",
            "be positive",
            self.peak_gigaflops,
        )
        require(self.lm is None or self.run is not None, "--lm", "be used with a run", str(self.lm), "Add --run RUN.")
        require(bool(self.sizes), "--sizes", "name at least one size", self.sizes)
        for size in self.sizes:
            parse_size(size, self.batch_size, self.frames)


def live_config(size: Size | None) -> Config:
    """The default configuration with a forward model of this size; None for configs/an4_live.py."""
    if size is None:
        return load_config(find_config(Path("an4_live")))
    model = dataclasses.replace(size.config.model, bidirectional=False)
    return dataclasses.replace(size.config, model=model, features=FeatureConfig(normalisation="running"))


def parse_size(text: str, batch_size: int, num_frames: int) -> Size:
    """Reads a size, such as 5x1024: 5 layers of 1024 units.

    Raises:
        InputError: the text does not have this form.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    require(found is not None, "--sizes", "be LAYERSxUNITS, such as 5x1024", text)
    assert found is not None
    return Size(int(found[1]), int(found[2]), batch_size, num_frames)

"""The options of `bench`, and the sizes it measures."""

import dataclasses
import re
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ds2_jax.config import Config, ModelConfig
from ds2_jax.system.checks import require

Work = Literal["train", "forward", "pipeline", "transcribe", "decode", "scaling", "librispeech"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured, and how."""

    work: Annotated[tuple[Work, ...], tyro.conf.Positional] = typing.get_args(Work)
    """Pieces of work."""
    sizes: tuple[str, ...] = ("5x1024", "3x512")
    """Bidirectional LSTMs, LAYERSxUNITS, of train and forward. The first one also forwards a single utterance of 5 s,
    transcribes, and is what librispeech predicts."""
    batch_size: int = 16
    """Utterances of a step of train and forward."""
    frames: int = 457
    """Frames (10 ms) of its longest utterance; the lengths fall linearly to 60 % of it."""
    runs: int = 5
    """Timed runs of each piece of work; their median is reported."""
    peer: bool = True
    """Run PyTorch and fast-ctc-decode too."""
    minutes: float = 10.0
    """Made audio that pipeline reads; of made outputs, decode takes 2 minutes at most."""
    manifest: Path | None = None
    """Own recordings: read by pipeline instead of the made ones, planned by librispeech instead of LibriSpeech, decoded
    by decode instead of the run's test split."""
    run: Path | None = None
    """Run whose model gives the outputs that decode decodes; by default they are made, and error rates mean nothing."""
    lm: Path | None = None
    """Language model of decode; by default a 3-gram of the run's training transcripts is built."""
    peak_gigaflops: float | None = None
    """Float32 peak of the machine that librispeech predicts for; by default this one's best matrix product."""
    utilisation: float = 0.6
    """Share of that peak which training is assumed to reach."""
    json: bool = False
    """Print JSON, every single time included, instead of tables."""

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
        require(self.lm is None or self.run is not None, "--lm", "go with a run", str(self.lm), "Add --run RUN.")
        require(bool(self.sizes), "--sizes", "name at least one size", self.sizes)
        for size in self.sizes:
            parse_size(size, self.batch_size, self.frames)


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and a batch.

    Attributes:
        num_layers: recurrent layers.
        hidden_size: units of each layer and direction (H).
        batch_size: utterances (B).
        num_frames: of the longest one (T).
    """

    num_layers: int
    hidden_size: int
    batch_size: int
    num_frames: int

    def __str__(self) -> str:
        return f"{self.num_layers} x {self.hidden_size}, {self.batch_size} x {self.num_frames} frames"

    @property
    def config(self) -> Config:
        """The defaults, float32 and AdamW with clipping among them, with a model of this size."""
        return Config(model=ModelConfig(hidden_size=self.hidden_size, num_layers=self.num_layers))

    @property
    def frames_of_rows(self) -> list[int]:
        """Valid frames of every row: falling linearly from all to 60 %."""
        shares = [1 - 0.4 * row / max(self.batch_size - 1, 1) for row in range(self.batch_size)]
        return [max(1, round(self.num_frames * share)) for share in shares]

    def to_json(self) -> dict[str, Any]:
        """The fields, for a child process."""
        return dataclasses.asdict(self)


def parse_size(text: str, batch_size: int, num_frames: int) -> Size:
    """Reads a size, such as 5x1024: 5 layers of 1024 units.

    Raises:
        InputError: it is not of that form.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    require(found is not None, "--sizes", "be LAYERSxUNITS, such as 5x1024", text)
    assert found is not None
    return Size(int(found[1]), int(found[2]), batch_size, num_frames)

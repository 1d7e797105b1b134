"""The sizes of a model and a batch. It imports nothing that an accelerator's machine may lack."""

import dataclasses
from typing import Any

from ds2_jax.config import Config, ModelConfig


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and a batch.

    Attributes:
        num_layers: number of recurrent layers.
        hidden_size: units of each layer and direction (H).
        batch_size: number of utterances (B).
        num_frames: number of frames in the longest utterance (T).
    """

    num_layers: int
    hidden_size: int
    batch_size: int
    num_frames: int

    def __str__(self) -> str:
        return f"{self.num_layers} x {self.hidden_size}, {self.batch_size} x {self.num_frames} frames"

    @property
    def config(self) -> Config:
        """The default configuration, with float32 and AdamW with clipping, and a model of this size."""
        return Config(model=ModelConfig(hidden_size=self.hidden_size, num_layers=self.num_layers))

    @property
    def frames_of_rows(self) -> list[int]:
        """Valid frames of each row. They fall linearly from `num_frames` to 60 % of it."""
        shares = [1 - 0.4 * row / max(self.batch_size - 1, 1) for row in range(self.batch_size)]
        return [max(1, round(self.num_frames * share)) for share in shares]

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, to send to a child process."""
        return dataclasses.asdict(self)

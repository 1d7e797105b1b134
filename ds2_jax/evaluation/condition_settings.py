"""The options of `evaluate` for other conditions of recording."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ds2_jax.system.checks import require

Codec = Literal["mulaw", "mp3"]
SLOWEST, FASTEST = 0.5, 2.0
SNR = (20.0, 10.0, 5.0, 0.0)
NO_DEFAULT = tyro.conf.arg(help_behavior_hint="(default: none)")


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Evaluate the recordings under other conditions too: with noise, in rooms, through codecs, faster or slower."""

    noise: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder or manifest of noises. Each utterance gets one of them, chosen by its id, at each ratio of --snr."""
    snr: tuple[float, ...] = SNR
    """Signal-to-noise ratios in dB."""
    rooms: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder or manifest of impulse responses of rooms. Each utterance is heard in one of them, chosen by its id."""
    codecs: Annotated[tuple[Codec, ...], NO_DEFAULT] = ()
    """mulaw: telephone, 8 kHz and µ-law. mp3: 16 kHz, 32 kbit/s."""
    speeds: Annotated[tuple[float, ...], NO_DEFAULT] = ()
    """Factors of speed, from 0.5 to 2. Above 1, speech is faster and higher."""

    def __post_init__(self) -> None:
        inside = all(SLOWEST <= speed <= FASTEST for speed in self.speeds)
        require(inside, "--speeds", f"be {SLOWEST:g} to {FASTEST:g}", self.speeds)
        require(bool(self.snr) or self.noise is None, "--snr", "hold at least one ratio with --noise", self.snr)
        unused = self.noise is None and self.snr != SNR
        require(not unused, "--snr", "be used with --noise", self.snr, "Add --noise FOLDER.")
        require(all(abs(snr) <= 100 for snr in self.snr), "--snr", "be -100 to 100 dB", self.snr)


NONE = Conditions()

"""Puts waveforms under the conditions of `evaluate`: noise, rooms, codecs and speeds."""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ds2_jax.data.perturb import Perturbation, find_sounds, perturb, shortened
from ds2_jax.evaluation.condition_settings import Conditions

MULAW_RATE, MP3_RATE = 8_000, 16_000
MP3_LEVEL = 0.842
"""libsndfile's level of compression at which a second of 16 kHz becomes 32 kbit."""
MP3_DELAY = 1105
"""Samples that LAME (576) and the decoder (529) put before the sound, where the file does not say so."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """A condition.

    Attributes:
        name: its name in tables.
        change: from a waveform [S] float32, its sample rate in Hz and the utterance's id to a waveform.
        speed: factor by which it shortens recordings.
    """

    name: str
    change: Callable[[np.ndarray, int, str], np.ndarray]
    speed: float = 1.0

    def num_samples(self, num_samples: np.ndarray, hop_length: int) -> np.ndarray:
        """Computes the numbers of samples under the condition, [U] int.

        The plan allows a file `hop_length` - 1 samples more than its manifest says. A change of speed scales them too.
        """
        if self.speed == 1:
            return num_samples
        spare = hop_length - 1
        return shortened(num_samples + spare, np.array(self.speed)) - spare


AS_RECORDED = Condition("as recorded", lambda waveform, *_: waveform)


def list_conditions(conditions: Conditions) -> list[Condition]:
    """Lists the conditions that are asked for.

    Raises:
        InputError: a folder or manifest of sounds does not exist or is empty, or a sound cannot be opened.
    """
    found: list[Condition] = []
    if noises := find_sounds(conditions.noise, "--noise"):
        found += [_with_noise(noises, snr) for snr in dict.fromkeys(conditions.snr)]
    if rooms := find_sounds(conditions.rooms, "--rooms"):
        found.append(_in_rooms(rooms))
    found += [CODECS[codec] for codec in dict.fromkeys(conditions.codecs)]
    return found + [_at_speed(speed) for speed in dict.fromkeys(conditions.speeds)]


def _with_noise(noises: Sequence[Path], snr: float) -> Condition:
    def change(waveform: np.ndarray, sample_rate: int, name: str) -> np.ndarray:
        noise, position = noises[int(draw(name, "noise") * len(noises))], draw(name, "position")
        return perturb(waveform, sample_rate, Perturbation(noise=noise, noise_position=position, noise_snr=snr))

    return Condition(f"noise at {snr:g} dB", change)


def _in_rooms(rooms: Sequence[Path]) -> Condition:
    def change(waveform: np.ndarray, sample_rate: int, name: str) -> np.ndarray:
        return perturb(waveform, sample_rate, Perturbation(response=rooms[int(draw(name, "room") * len(rooms))]))

    return Condition("rooms", change)


def _at_speed(speed: float) -> Condition:
    return Condition(f"speed {speed:g}", lambda waveform, rate, _: perturb(waveform, rate, Perturbation(speed)), speed)


def through_mulaw(waveform: np.ndarray, sample_rate: int, _: str = "") -> np.ndarray:
    """Sends a waveform [S] through a telephone line: 8 kHz, µ-law."""
    return _through(waveform, sample_rate, MULAW_RATE, {"format": "WAV", "subtype": "ULAW"})


def through_mp3(waveform: np.ndarray, sample_rate: int, _: str = "") -> np.ndarray:
    """Stores a waveform [S] as MP3, 16 kHz and 32 kbit/s."""
    options: dict[str, str | float] = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": MP3_LEVEL}
    return _through(waveform, sample_rate, MP3_RATE, options)


def _through(waveform: np.ndarray, sample_rate: int, rate: int, options: dict[str, str | float]) -> np.ndarray:
    narrow = soxr.resample(waveform, sample_rate, rate, quality="HQ")
    file = io.BytesIO()
    soundfile.write(file, np.clip(narrow, -1, 1), rate, **options)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    # A decoder that knows of the delay removes it, and returns no more samples than there were.
    late = MP3_DELAY if options["format"] == "MP3" and len(decoded) > len(narrow) else 0
    wide = soxr.resample(decoded[late:][: len(narrow)], rate, sample_rate, quality="HQ")[: len(waveform)]
    return np.pad(wide, (0, len(waveform) - len(wide))).astype(np.float32)


CODECS = {
    "mulaw": Condition("telephone (8 kHz, µ-law)", through_mulaw),
    "mp3": Condition("MP3 (16 kHz, 32 kbit/s)", through_mp3),
}


def draw(name: str, purpose: str) -> float:
    """Draws a number in [0, 1) for an utterance's id and a purpose, so that it gets the same noise at every SNR."""
    digest = hashlib.sha256(f"{purpose}\0{name}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48

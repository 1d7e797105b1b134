"""Changes speed, tempo, reverberation, noise and gain of training waveforms, on the host.

Every draw is a function of (seed, epoch, utterance). It does not depend on the order of batches, on workers or on
processes, and the lengths of an epoch are known before any recording is read.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import scipy.signal
import soxr

from ds2_jax.audio.reading import AUDIO_SUFFIXES, audio_duration, read_audio, read_excerpt
from ds2_jax.config import PerturbConfig
from ds2_jax.config.places import is_tfds
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import search

Draw = TypeVar("Draw", float, np.ndarray)

PURPOSE = 1
"""Separates these draws from the draws of the batch plan."""
DRAWS = (
    *("speed_used", "speed", "tempo_used", "tempo", "response_used", "response"),
    *("noise_used", "noise", "noise_position", "noise_snr", "gain_used", "gain"),
)
"""The draws for every utterance, each uniform in [0, 1)."""
OVERLAP_SECONDS = 0.015
"""Overlap of neighbouring pieces in `change_tempo`. A piece is twice as long (30 ms), so it contains two periods of the
lowest voices."""
SEARCH_SECONDS = 0.0125
"""The farthest that a piece may move to fit its neighbour: one period of 80 Hz."""
MAX_RESPONSES = 64
"""The largest number of impulse responses kept in memory. Each lasts a few seconds."""


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """The changes to one utterance, in the order in which they are made.

    Attributes:
        speed: factor; above 1 makes the speech faster, shorter and higher.
        tempo: factor; above 1 makes the speech faster and shorter at the same pitch.
        response: file with the impulse response of a room; None for no reverberation.
        noise: file with the noise to add; None for no noise.
        noise_position: position in that file, in [0, 1).
        noise_snr: ratio of the mean powers of speech and noise, in dB.
        gain: gain in dB.
    """

    speed: float = 1.0
    tempo: float = 1.0
    response: Path | None = None
    noise: Path | None = None
    noise_position: float = 0.0
    noise_snr: float = 0.0
    gain: float = 0.0

    def __str__(self) -> str:
        parts = []
        if self.speed != 1:
            parts.append(f"speed {self.speed:.3f}")
        if self.tempo != 1:
            parts.append(f"tempo {self.tempo:.3f}")
        if self.response is not None:
            parts.append(f"room {self.response.name}")
        if self.noise is not None:
            parts.append(f"noise {self.noise.name} at {self.noise_snr:.1f} dB")
        if self.gain:
            parts.append(f"gain {self.gain:+.1f} dB")
        return ", ".join(parts) or "unchanged"


class Perturber:
    """The perturbations of a split.

    Args:
        config: the ranges and probabilities of the draws.
        sample_rate: sample rate of the waveforms in Hz.
        seed: seed of the run.
        num_samples: [U] int, the number of samples of every utterance.
        least_samples: [U] int, the number of samples that CTC needs for every transcript. If speed and tempo would
            leave fewer, the utterance keeps its own speed and tempo.

    Raises:
        InputError: a folder or manifest of sounds does not exist or is empty, or a sound cannot be opened.
    """

    def __init__(
        self, config: PerturbConfig, sample_rate: int, seed: int, num_samples: np.ndarray, least_samples: np.ndarray
    ) -> None:
        self._config, self._sample_rate, self._seed = config, sample_rate, seed
        self._fastest = num_samples / np.maximum(least_samples, 1)
        self._responses = find_sounds(config.responses, "perturb.responses") if config.response_probability else ()
        self._noises = find_sounds(config.noise, "perturb.noise") if config.noise_probability else ()
        self._draws = functools.lru_cache(maxsize=2)(self._draw)

    @property
    def changes_lengths(self) -> bool:
        """Whether the numbers of samples differ from epoch to epoch."""
        return self._config.changes_lengths

    @property
    def active(self) -> bool:
        """Whether any waveform is changed."""
        return bool(self.changes_lengths or self._config.gain_probability or self._responses or self._noises)

    def num_samples(self, num_samples: np.ndarray, epoch: int) -> np.ndarray:
        """Computes the number of samples of every utterance in an epoch.

        Args:
            num_samples: [U] int, the number of samples as recorded.
            epoch: the epoch, counted from 0.

        Returns:
            [U] int.
        """
        draws = self._draws(epoch)
        return shortened(num_samples, draws["speed"] * draws["tempo"])

    def perturbation(self, epoch: int, index: int) -> Perturbation:
        """Returns the changes to utterance `index` in an epoch, both counted from 0."""
        config, draws = self._config, {name: column[index].item() for name, column in self._draws(epoch).items()}
        responses = self._responses if draws["response_used"] < config.response_probability else ()
        noises = self._noises if draws["noise_used"] < config.noise_probability else ()
        return Perturbation(
            speed=draws["speed"],
            tempo=draws["tempo"],
            response=responses[int(draws["response"] * len(responses))] if responses else None,
            noise=noises[int(draws["noise"] * len(noises))] if noises else None,
            noise_position=draws["noise_position"],
            noise_snr=_between(config.noise_snr, draws["noise_snr"]),
            gain=_between(config.gain, draws["gain"]) if draws["gain_used"] < config.gain_probability else 0.0,
        )

    def apply(self, epoch: int, index: int, waveform: np.ndarray) -> np.ndarray:
        """Changes the waveform of an utterance for an epoch; see `perturb`."""
        return perturb(waveform, self._sample_rate, self.perturbation(epoch, index))

    def _draw(self, epoch: int) -> dict[str, np.ndarray]:
        """Makes the draws of an epoch, [U] float each; speed and tempo are factors.

        Utterances appended to a split do not change the draws of the others.
        """
        table = np.random.default_rng([self._seed, epoch, PURPOSE]).random((len(self._fastest), len(DRAWS)))
        draws = dict(zip(DRAWS, table.T, strict=True))
        for name, share, limits in (
            ("speed", self._config.speed_probability, self._config.speed),
            ("tempo", self._config.tempo_probability, self._config.tempo),
        ):
            draws[name] = np.where(draws[f"{name}_used"] < share, _between(limits, draws[name]), 1.0)
        too_fast = draws["speed"] * draws["tempo"] > self._fastest
        for name in ("speed", "tempo"):
            draws[name] = np.where(too_fast, 1.0, draws[name])
        return draws


def find_sounds(place: Path | None, setting: str) -> tuple[Path, ...]:
    """Lists the audio files of a manifest, or of a folder: sorted, without hidden files.

    Args:
        place: a folder or a manifest; None gives no files.
        setting: the setting that names the folder or manifest, for errors.

    Raises:
        InputError: the folder or manifest does not exist or contains no audio, or a file's header cannot be read.
    """
    if place is None:
        return ()
    if place.is_dir():
        found = sorted(path for path in search(place) if path.suffix.lower() in AUDIO_SUFFIXES)
        if not found:
            suffixes = " ".join(sorted(AUDIO_SUFFIXES))
            raise InputError(f"{setting} must hold audio files ({suffixes}), got none in {place}. Correct the path.")
    elif place.exists():
        utterances = read_manifest(place)
        for utterance in utterances:
            whole = not is_tfds(utterance.audio) and not utterance.offset
            rule, advice = (
                f"list whole files, without offset, in {utterance.place}",
                "Cut the segment into its own file.",
            )
            require(whole, setting, rule, str(utterance.audio), advice)
        found = [utterance.audio for utterance in utterances]
    else:
        raise InputError(f"{setting} must be a folder or a manifest, got {place}, which does not exist. Correct it.")
    for path in found:
        audio_duration(path)
    return tuple(found)


def perturb(waveform: np.ndarray, sample_rate: int, perturbation: Perturbation) -> np.ndarray:
    """Changes a waveform.

    Args:
        waveform: [S] float32.
        sample_rate: sample rate in Hz.
        perturbation: the changes to make.

    Returns:
        [shortened(S, speed * tempo)] float32. Samples may lie outside [-1, 1], because nothing is clipped.

    Raises:
        InputError: a noise or an impulse response cannot be read.

    Differs: deepspeech.pytorch writes the result through sox to 16 bits, which clips loud samples. Its noise
        injection cannot be switched on, and would fail if the noise were shorter than the speech.
    """
    num_samples = shortened(len(waveform), perturbation.speed * perturbation.tempo)
    if perturbation.speed != 1:
        waveform = soxr.resample(waveform, perturbation.speed * sample_rate, sample_rate, quality="HQ")
    if perturbation.tempo != 1:
        waveform = change_tempo(waveform, sample_rate, perturbation.tempo)
    if perturbation.speed != 1 or perturbation.tempo != 1:  # two roundings may add or remove a sample or two
        waveform = np.pad(waveform[:num_samples], (0, max(0, num_samples - len(waveform))))
    if perturbation.response is not None:
        waveform = reverberate(waveform, _read_response(perturbation.response, sample_rate))
    if perturbation.noise is not None:
        noise = read_excerpt(perturbation.noise, sample_rate, num_samples, perturbation.noise_position)
        waveform = add_noise(waveform, noise, perturbation.noise_snr)
    if perturbation.gain:
        waveform = waveform * np.float32(10 ** (perturbation.gain / 20))
    return waveform


@overload
def shortened(num_samples: int, factor: float) -> int: ...
@overload
def shortened(num_samples: np.ndarray, factor: np.ndarray) -> np.ndarray: ...
def shortened(num_samples: Any, factor: Any) -> Any:
    """Computes the length of a waveform of `num_samples` samples after it is sped up by `factor`.

    Both may be arrays of the same shape [...]. The length is an int, or [...] int64 for arrays.
    """
    samples = np.ceil(num_samples / factor)
    return int(samples) if isinstance(num_samples, int) else samples.astype(np.int64)


def change_tempo(waveform: np.ndarray, sample_rate: int, tempo: float) -> np.ndarray:
    """Makes speech `tempo` times as fast at the same pitch.

    The waveform is cut into pieces that overlap by half. The pieces are cross-faded at a new distance. Each
    piece is moved to where it best continues the previous one, so that no period of the voice is cut.

    Args:
        waveform: [S] float32.
        sample_rate: sample rate in Hz.
        tempo: factor; above 1 is faster.

    Returns:
        [ceil(S / tempo)] float32.

    Source: Verhelst and Roelands 1993 (WSOLA), with the normalised cross-correlation as the measure of similarity.
    """
    overlap, reach = round(OVERLAP_SECONDS * sample_rate), round(SEARCH_SECONDS * sample_rate)
    num_pieces = math.ceil(len(waveform) / tempo / overlap)
    source = np.pad(waveform, (reach, reach + math.ceil(tempo * overlap) + 3 * overlap))
    energies = np.cumsum(np.pad(np.square(source, dtype=np.float64), (1, 0)))
    # The energy of the `overlap` samples that start at each position.
    energies = energies[overlap:] - energies[:-overlap] + np.finfo(np.float32).tiny
    rising = (0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / overlap)).astype(np.float32)
    changed = np.empty((num_pieces, overlap), np.float32)
    start = reach
    fading = source[start : start + overlap]  # the continuation of the previous piece
    for piece in range(num_pieces):
        if piece:
            first = round(piece * overlap * tempo)
            likeness = np.correlate(source[first : first + 2 * reach + overlap], fading, "valid")
            start = first + int(np.argmax(likeness / np.sqrt(energies[first : first + 2 * reach + 1])))
        changed[piece] = rising * source[start : start + overlap] + (1 - rising) * fading
        fading = source[start + overlap : start + 2 * overlap]
    return changed.reshape(-1)[: math.ceil(len(waveform) / tempo)]


def reverberate(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Applies a room's impulse response [R] to a waveform [S], and keeps the waveform's start, length and power."""
    direct = int(np.argmax(np.abs(response)))
    heard = scipy.signal.fftconvolve(waveform, response[direct:])[: len(waveform)]
    power = np.mean(np.square(heard, dtype=np.float64))
    scale = math.sqrt(np.mean(np.square(waveform, dtype=np.float64)) / power) if power else 0.0
    scaled: np.ndarray = (heard * scale).astype(np.float32)
    return scaled


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Adds noise so that the waveform's mean power is `snr` dB above the noise's; no noise if either is silent.

    Args:
        waveform: [S] float32.
        noise: [S] float32.
        snr: signal-to-noise ratio in dB.
    """
    power, noise_power = (np.mean(np.square(x, dtype=np.float64)) for x in (waveform, noise))
    if not noise_power:
        return waveform
    noisy: np.ndarray = waveform + noise * np.float32(math.sqrt(power / noise_power / 10 ** (snr / 10)))
    return noisy


def _between(limits: tuple[float, float], draw: Draw) -> Draw:
    """Scales a draw from [0, 1) to the range between two limits."""
    return limits[0] + (limits[1] - limits[0]) * draw


@functools.lru_cache(maxsize=MAX_RESPONSES)
def _read_response(path: Path, sample_rate: int) -> np.ndarray:
    return read_audio(path, sample_rate)

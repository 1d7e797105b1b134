"""Synthetic signals that take as much work to decode and recognise as speech. Each seed gives another signal."""

import numpy as np
import scipy.signal

SAMPLE_RATE = 16_000
FORMANTS = ((250, 850), (850, 2300), (2300, 3300))
"""Lowest and highest frequency in Hz of each of the three resonances of a voiced syllable."""


def utterance(seconds: float, seed: int) -> np.ndarray:
    """Makes groups of syllables with pauses between them, with the background noise of a room.

    A syllable is a burst of hiss, or a sawtooth with gliding pitch that is filtered by three resonances. The sawtooth's
    harmonics fall with frequency, like those of a larynx. The loudest sample is 0.2 to 0.9, and the noise is 50 to
    60 dB below it. Written as 16-bit FLAC, the signal takes about half the bytes of its samples, like LibriSpeech
    (59 GB instead of 111 GB for 961 hours).

    Args:
        seconds: duration.
        seed: the seed of the utterance.

    Returns:
        [S] float32 in [-1, 1] at `SAMPLE_RATE`.
    """
    rng = np.random.default_rng(seed)
    num_samples = round(seconds * SAMPLE_RATE)
    samples = np.zeros(num_samples)
    pitch, position = rng.uniform(90, 230), int(rng.uniform(0, 0.3) * SAMPLE_RATE)
    while position < num_samples:
        syllable = _voiced(rng, pitch) if rng.random() < 0.75 else _hiss(rng)
        syllable *= rng.uniform(0.3, 1)
        end = min(num_samples, position + len(syllable))
        samples[position:end] += syllable[: end - position]
        position += int(len(syllable) * rng.uniform(0.8, 1.0))
        if rng.random() < 0.2:
            position += int(rng.uniform(0.1, 0.6) * SAMPLE_RATE)
    level = rng.uniform(0.2, 0.9)
    samples *= level / max(np.abs(samples).max(), 1e-9)
    room = scipy.signal.lfilter([1], [1, -0.7], rng.standard_normal(num_samples))
    samples += room / room.std() * level * 10 ** rng.uniform(-3, -2.5)
    return np.clip(samples, -1, 1).astype(np.float32)


def _voiced(rng: np.random.Generator, pitch: float) -> np.ndarray:
    size = int(rng.uniform(0.1, 0.3) * SAMPLE_RATE)
    glide = (
        pitch
        * np.linspace(rng.uniform(0.85, 1.2), rng.uniform(0.85, 1.2), size)
        * (1 + 0.01 * rng.standard_normal(size))
    )
    samples = 2 * (np.cumsum(glide / SAMPLE_RATE) % 1) - 1
    for low, high in FORMANTS:
        samples = _resonance(samples, rng.uniform(low, high), rng.uniform(60, 200))
    return _shape(samples)


def _hiss(rng: np.random.Generator) -> np.ndarray:
    size = int(rng.uniform(0.04, 0.15) * SAMPLE_RATE)
    return 0.3 * _shape(_resonance(rng.standard_normal(size), rng.uniform(2500, 6500), 1500))


def _resonance(samples: np.ndarray, frequency: float, bandwidth: float) -> np.ndarray:
    radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
    denominator = [1, -2 * radius * np.cos(2 * np.pi * frequency / SAMPLE_RATE), radius**2]
    filtered: np.ndarray = scipy.signal.lfilter([sum(denominator)], denominator, samples)
    return filtered


def _shape(samples: np.ndarray) -> np.ndarray:
    """Fades in and out, and scales the loudest sample to 1."""
    faded: np.ndarray = samples * scipy.signal.get_window(("tukey", 0.5), len(samples))
    return faded / float(np.abs(faded).max())

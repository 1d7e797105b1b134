"""Synthetic recordings in which nobody speaks: silence, noise and music. Each seed gives another signal."""

from collections.abc import Callable, Mapping

import numpy as np

SAMPLE_RATE = 16_000
A4 = 440.0  # Hz
NOISES = ("steady", "swelling", "hum", "wind", "knocks")
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 5, 9), (0, 4, 7, 10), (0, 3, 7, 10))
"""Semitones above the lowest note."""


def silence(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Makes the faint hiss of a recording device, or in one case of three nothing at all."""
    if rng.random() < 1 / 3:
        return np.zeros(num_samples)
    return _coloured(num_samples, rng, rng.uniform(0, 0.6))


def noise(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Makes one of: steady noise, noise that swells, the hum of mains, wind, or knocks."""
    kind = NOISES[rng.integers(len(NOISES))]
    sound = _coloured(num_samples, rng, 2.0 if kind == "wind" else rng.uniform(-0.2, 2.0))
    if kind == "swelling":
        sound *= _swelling(num_samples, rng, rng.uniform(0.2, 3.0), rng.uniform(6, 20))
    elif kind == "hum":
        sound = sound * rng.uniform(0.02, 0.5) + _hum(num_samples, rng)
    elif kind == "wind":
        sound *= _swelling(num_samples, rng, rng.uniform(0.5, 4.0), 25)
    elif kind == "knocks":
        sound *= rng.uniform(0.003, 0.05)
        for start in rng.integers(0, num_samples, rng.integers(1, 3 + 3 * num_samples // SAMPLE_RATE)):
            _add(sound, int(start), _knock(rng))
    return sound


def music(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Makes chords, a melody and, in one case of two, drums, in a random tempo and with random instruments."""
    beat = round(60 / rng.uniform(70, 150) * SAMPLE_RATE)
    played = np.zeros(num_samples)
    root, chord_brightness, melody_brightness = rng.integers(-24, -5), rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.9)
    plucked, drums = rng.random() < 0.5, rng.random() < 0.5
    start = -int(rng.integers(beat))
    while start < num_samples:
        lowest = root + rng.choice([0, 5, 7, 9])
        chord = [lowest + note for note in CHORDS[rng.integers(len(CHORDS))]]
        for note in chord:
            _add(played, start, 0.5 * _note(4 * beat, note, chord_brightness, rng, plucked=False))
        position = start
        while position < start + 4 * beat:
            length = int(beat * rng.choice([0.5, 0.5, 1, 1, 2]))
            if rng.random() < 0.8:
                note = int(rng.choice(chord)) + 12 * int(rng.integers(1, 3))
                _add(played, position, _note(length, note, melody_brightness, rng, plucked=plucked))
            position += length
        for place in range(8) if drums else ():
            _add(played, start + place * beat // 2, _knock(rng) * rng.uniform(0.3, 2))
        start += 4 * beat
    return played


KINDS: Mapping[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "silence": silence,
    "noise": noise,
    "music": music,
}
"""Each makes [S] float64 of any level from a number of samples at `SAMPLE_RATE` and a generator."""


def with_level(waveform: np.ndarray, rms: float) -> np.ndarray:
    """Scales a waveform [S] to a root mean square; silence stays as it is. Returns float32."""
    found = float(np.sqrt(np.mean(np.square(waveform))))
    return (waveform * (rms / found if found else 1.0)).astype(np.float32)


def _coloured(num_samples: int, rng: np.random.Generator, slope: float) -> np.ndarray:
    """Makes noise whose power falls with frequency to the power of `slope`, with a root mean square of 1."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    frequencies = np.maximum(np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE), 40.0)
    shaped: np.ndarray = np.fft.irfft(spectrum * frequencies ** (-slope / 2), num_samples)
    return shaped / max(float(shaped.std()), 1e-9)


def _swelling(num_samples: int, rng: np.random.Generator, hertz: float, decibels: float) -> np.ndarray:
    """Makes a random factor that varies about `hertz` times a second by about `decibels`."""
    knots = rng.uniform(-decibels / 2, decibels / 2, 3 + int(num_samples / SAMPLE_RATE * hertz))
    places = np.linspace(0, len(knots) - 1, num_samples)
    swelling: np.ndarray = 10 ** (np.interp(places, np.arange(len(knots)), knots) / 20)
    return swelling


def _hum(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Makes eight harmonics of 50 or 60 Hz."""
    time = np.arange(num_samples) / SAMPLE_RATE
    mains = rng.choice([50.0, 60.0]) * rng.uniform(0.999, 1.001)
    waves = [rng.uniform(0, 1) / n * np.sin(2 * np.pi * n * mains * time + rng.uniform(0, 7)) for n in range(1, 9)]
    hum: np.ndarray = np.sum(waves, axis=0)
    return hum


def _knock(rng: np.random.Generator) -> np.ndarray:
    """Makes a short burst of noise that rings at one frequency and dies away."""
    import scipy.signal  # slow to load

    size = int(rng.uniform(0.03, 0.25) * SAMPLE_RATE)
    radius = np.exp(-np.pi * rng.uniform(50, 600) / SAMPLE_RATE)
    angle = 2 * np.pi * rng.uniform(60, 4000) / SAMPLE_RATE
    burst = rng.standard_normal(size) * np.exp(-np.arange(size) / size * rng.uniform(3, 9))
    knock: np.ndarray = scipy.signal.lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], burst)
    knock *= rng.uniform(0.3, 1) / np.abs(knock).max()
    return knock


def _note(num_samples: int, semitone: int, brightness: float, rng: np.random.Generator, *, plucked: bool) -> np.ndarray:
    """Plays a note so many semitones above `A4`; each harmonic is `brightness` times as loud as the one below it."""
    import scipy.signal

    time = np.arange(num_samples) / SAMPLE_RATE
    frequency = A4 * 2 ** (semitone / 12)
    count = min(12, int(SAMPLE_RATE / 2 / frequency))
    waves = [brightness**n * np.sin(2 * np.pi * n * frequency * time + rng.uniform(0, 7)) for n in range(1, count + 1)]
    fade = np.exp(-time * rng.uniform(2, 6)) if plucked else scipy.signal.get_window(("tukey", 0.2), num_samples)
    tone: np.ndarray = np.sum(waves, axis=0) * fade * np.minimum(1, time / 0.005)
    return tone


def _add(played: np.ndarray, start: int, sound: np.ndarray) -> None:
    """Adds the part of a sound that lies within `played`."""
    first, end = max(start, 0), min(start + len(sound), len(played))
    if first < end:
        played[first:end] += sound[first - start : end - start]

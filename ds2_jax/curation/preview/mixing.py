"""Adds noise to a recording, and writes WAV files."""

import io
import math
from pathlib import Path

import numpy as np
import soundfile

from ds2_jax.audio.reading import read_excerpt, read_samples
from ds2_jax.data.perturb import add_noise
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import writing


def mix(audio: Path, noise: Path, snr: float, out: Path, seed: int) -> str:
    """Writes a recording with noise, at its own sample rate, in mono and 16 bits; softer if it would be clipped.

    Args:
        audio: the recording.
        noise: recording of the noise, added from a random position; it repeats if it is shorter.
        snr: ratio of the mean powers in dB.
        out: WAV file to write.
        seed: seed of the position.

    Returns:
        A line of text with the ratio of the written samples. It may differ, because 16 bits cannot hold faint noise.

    Raises:
        InputError: a file cannot be read or written, or is silent; `snr` is out of range; or `out` is not a WAV file or
            would replace an input.

    Differs: deepspeech.pytorch's noise_inject.py fails before it writes.
    """
    require(-50 <= snr <= 100, "--snr", "be within -50 to 100 dB", snr)
    require(
        out.suffix.lower() == ".wav" and not out.is_dir(), "--out", "name a .wav file if --noise is given", str(out)
    )
    for path in (audio, noise):
        same = out.exists() and path.exists() and out.samefile(path)
        require(not same, "--out", "not be one of the input files", str(out))
    samples, sample_rate = read_samples(audio)
    speech = samples.mean(axis=1)
    heard = read_excerpt(noise, sample_rate, len(speech), np.random.default_rng(seed).random())
    for path, waveform, others in ((audio, speech, "file"), (noise, heard, "file, or another --seed")):
        if not waveform.any():
            raise InputError(f"{path} must hold sound, got silence. Give another {others}.")
    noisy = add_noise(speech, heard, snr)
    scale = min(1.0, (1 - 2**-15) / float(np.abs(noisy).max()))
    write_wav(out, noisy * np.float32(scale), sample_rate, "PCM_16")
    rest = soundfile.read(out)[0] / scale - speech
    reached = 10 * math.log10(np.square(speech, dtype=np.float64).sum() / np.square(rest).sum())
    told = f"{out}: {audio.name} with {noise.name} at {round(reached, 1) + 0.0:.1f} dB"
    if abs(reached - snr) > 0.1:
        told += f" instead of {snr:g} dB, which 16 bits cannot hold"
    if scale < 1:
        told += f", {-20 * math.log10(scale):.1f} dB softer so that nothing is clipped"
    return told


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int, subtype: str) -> None:
    """Writes a waveform [S] float32 as a WAV file.

    Raises:
        InputError: the file cannot be written.
    """
    encoded = io.BytesIO()  # libsndfile would report a full disk with its own error
    soundfile.write(encoded, waveform, sample_rate, format="WAV", subtype=subtype)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.getvalue())

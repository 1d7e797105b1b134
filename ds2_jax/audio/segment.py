"""Reads segments of audio files, which manifests name by offset and duration."""

from pathlib import Path

import numpy as np

from ds2_jax.audio import sndfile
from ds2_jax.audio.reading import read_samples
from ds2_jax.audio.sndfile import UnknownFormatError
from ds2_jax.audio.waveform import check_amplitudes
from ds2_jax.system.errors import InputError


def read_segment(path: Path | str, start: float, duration: float) -> tuple[np.ndarray, int]:
    """Reads a segment of a recording as `read_samples` does. Only Ogg Vorbis and GSM are decoded from their start.

    Args:
        path: the audio file.
        start: seconds from the start of the file.
        duration: seconds.

    Returns:
        The samples, fewer than `duration` holds if the file ends earlier, and their rate in Hz.

    Raises:
        InputError: see `read_audio`; or the file ends before `start`. Faults outside the segment may go unnoticed.
    """
    source = Path(path)
    try:
        with sndfile.open_audio(source) as opened:
            rate, length = opened.file.samplerate, opened.num_samples
            first, last = segment_limits(start, duration, rate)
            if first < length:
                samples = sndfile.decode(opened, first, min(last, length) - first, "float32")
    except UnknownFormatError:  # `read_samples` may know another way
        whole, rate = read_samples(source)
        length = len(whole)
        first, last = segment_limits(start, duration, rate)
        samples = whole[first:last]
    if first >= length:
        raise InputError(f"{path} must be longer than {start:g} s, got {length / rate:g} s. Correct the offset.")
    check_amplitudes(samples, str(path), first)
    return samples, rate


def segment_limits(start: float, duration: float, sample_rate: int) -> tuple[int, int]:
    """Returns the first sample of a segment and the sample after its last. Adjacent segments share none."""
    return round(start * sample_rate), round((start + duration) * sample_rate)

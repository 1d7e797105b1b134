"""Mixes down and resamples samples, and checks them."""

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

# In Hz. A rate outside this range means a damaged header. Resampling from it could need any amount of memory.
MIN_RATE = 4_000
MAX_RATE = 768_000
# Float files may contain samples on the 16-bit scale (up to 32,768). Much larger samples make the features overflow.
MAX_AMPLITUDE = 1e6
# A block has this many samples per channel for up to eight channels, and fewer for more channels.
BLOCK_SAMPLES = 1 << 17
CANCELLED = 1e-3
"""If the mix has less than this fraction of the power of the channels (-30 dB), they cancel each other."""
# The maximum number of samples, over all channels, of a recording that is read in one piece: 4 GiB, 18 hours at 16 kHz.
MAX_VALUES = 1 << 30


def is_constant(waveform: np.ndarray) -> bool:
    """Whether a waveform [S] holds but one value: digital silence or an offset. A model would write something there."""
    return not waveform.size or bool(waveform.min() == waveform.max())


def cancel(power: float, mixed_power: float) -> bool:
    """Whether channels of a mean `power` cancel each other, so that the mix has little of it."""
    return mixed_power < CANCELLED * power


def waveform_blocks(blocks: Iterable[np.ndarray], file_rate: int, sample_rate: int, name: str) -> Iterator[np.ndarray]:
    """Checks, mixes down and resamples a recording block by block. Channels that cancel each other are logged.

    Args:
        blocks: blocks of any size, each [S, C] float32 with full scale 1.
        file_rate: sample rate of the blocks in Hz.
        sample_rate: sample rate of the result in Hz.
        name: the recording's name in messages.

    Yields:
        [S] float32, consecutive blocks of the waveform that `mono_waveform` gives for all blocks together.

    Raises:
        InputError: see `mono_waveform`.
    """
    num_read = num_given = 0
    power = mixed_power = 0.0

    def mixed() -> Iterator[np.ndarray]:
        nonlocal num_read, power, mixed_power
        for samples in blocks:
            check_amplitudes(samples, name, num_read)
            num_read += len(samples)
            if len(samples):
                waveform = samples.mean(axis=1)  # [S]
                power += float(samples.var(axis=0).mean()) * len(samples)
                mixed_power += float(waveform.var()) * len(samples)
                yield waveform

    for waveform in mixed() if file_rate == sample_rate else _resampled(mixed(), file_rate, sample_rate):
        num_given += len(waveform)
        if waveform.size:
            yield waveform
    if not num_given:
        raise _too_short(name, num_read, file_rate, sample_rate)
    if cancel(power, mixed_power):
        logger.warning(
            f"{name}: the channels cancel each other in the mix, which the model hears. "
            'Give it one of them: ffmpeg -i OLD -af "pan=mono|c0=c0" NEW.wav.'
        )


def _resampled(waveforms: Iterable[np.ndarray], file_rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Resamples [S] float32 block by block. Constant sound stays constant to its ends.

    The resampler takes what lies outside for zeros, and rings at both ends of an offset. So a constant start is held
    back until something else comes.
    """
    resampler = soxr.ResampleStream(file_rate, sample_rate, 1, dtype="float32", quality="HQ")
    num_held, value = 0, np.float32(0)
    held = True
    for waveform in waveforms:
        if held:
            value = value if num_held else waveform[0]
            if (waveform == value).all():
                num_held += len(waveform)
                continue
            held = False
            yield from (resampler.resample_chunk(part) for part in _constant(value, num_held))
        yield resampler.resample_chunk(waveform)
    if held:  # zeros give the right number of samples
        yield from (resampler.resample_chunk(part) + value for part in _constant(np.float32(0), num_held))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True) + (value if held else np.float32(0))


def _constant(value: np.float32, num_samples: int) -> Iterator[np.ndarray]:
    for start in range(0, num_samples, BLOCK_SAMPLES):
        yield np.full(min(BLOCK_SAMPLES, num_samples - start), value, np.float32)


def to_waveform(samples: np.ndarray, file_rate: int, sample_rate: int, name: str) -> np.ndarray:
    """Mixes down and resamples the result of `read_samples`. Errors call the recording `name`."""
    waveform: np.ndarray = samples.mean(axis=1)  # [S]
    if file_rate != sample_rate:
        offset = waveform[0] if len(waveform) and is_constant(waveform) else np.float32(0)
        waveform = soxr.resample(waveform - offset, file_rate, sample_rate, quality="HQ") + offset
    if not waveform.size:
        raise _too_short(name, len(samples), file_rate, sample_rate)
    return waveform


def mono_waveform(samples: np.ndarray, file_rate: int, sample_rate: int, name: str) -> np.ndarray:
    """Converts samples in memory to a waveform like that of `read_audio`.

    Args:
        samples: [S, C] float32, with any number of channels.
        file_rate: sample rate of the samples in Hz.
        sample_rate: sample rate of the result in Hz.
        name: the recording's name in messages.

    Returns:
        [S] float32.

    Raises:
        InputError: there are no samples, or a sample is NaN or beyond a million times full scale.
    """
    check_amplitudes(samples, name)
    return to_waveform(samples, file_rate, sample_rate, name)


def block_samples(num_channels: int) -> int:
    """Returns the number of samples per channel in a block: BLOCK_SAMPLES, or fewer for more than eight channels."""
    return max(1, BLOCK_SAMPLES * 8 // max(8, num_channels))


def check_amplitudes(samples: np.ndarray, name: str, num_before: int = 0) -> None:
    """Raises InputError if a sample is NaN or too large. `num_before` samples came before `samples`."""
    if samples.size and not (samples.min() >= -MAX_AMPLITUDE and samples.max() <= MAX_AMPLITUDE):  # NaN fails too
        index, channel = np.argwhere(~(np.abs(samples) <= MAX_AMPLITUDE))[0]
        rule = f"hold samples of at most {MAX_AMPLITUDE:g} (full scale is 1)"
        raise unusable(name, rule, f"{samples[index, channel]:g} at sample {num_before + index}")


def _too_short(name: str, num_samples: int, file_rate: int, sample_rate: int) -> InputError:
    got = f"none ({num_samples} at {file_rate} Hz)"
    return unusable(name, f"have at least one sample at {sample_rate} Hz", got)


def unusable(name: object, rule: str, value: str) -> InputError:
    """Makes the error of a recording that cannot be used."""
    return InputError(f"{name} must {rule}, got {value}. Replace the recording.")

"""Decodes and measures recordings in parallel, with one recording per thread in memory."""

import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from ds2_jax.audio.waveform import cancel, mono_waveform
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.system.errors import InputError

GROUP = 16
"""The number of utterances in a task, enough to make the cost of starting a task small."""
FULL_SCALE = 0.999
"""Larger samples count as clipped even if they differ, because lossy codecs change clipped samples."""


class Recording(NamedTuple):
    """The measurements of a recording.

    Attributes:
        digest: digest of samples and sample rate, which is equal in all lossless formats.
        sample_rate: sample rate of the file in Hz.
        num_samples: number of samples at the model's rate.
        level: standard deviation of the mix of the channels, which the model hears; full scale is 1.
        cancels: whether the channels cancel each other in the mix.
        clipped: fraction of the samples that equal the highest or the lowest one, or are at full scale.
    """

    digest: bytes
    sample_rate: int
    num_samples: int
    level: float
    cancels: bool
    clipped: float


def measure(utterance: Utterance, sample_rate: int) -> Recording | Problem:
    """Decodes a recording as training does, for a model of `sample_rate` (Hz), and measures it."""
    try:
        samples, file_rate = utterance.samples()  # [S, C]
        waveform = mono_waveform(samples, file_rate, sample_rate, str(utterance.audio))
    except InputError as error:
        return Problem(utterance.id, str(utterance.audio), "unreadable audio", str(error))
    digest = hashlib.blake2b(f"{file_rate} {samples.shape}".encode(), digest_size=16)
    digest.update(samples.data)
    low, high = float(samples.min()), float(samples.max())
    at_peak = (samples >= min(high, FULL_SCALE)) | (samples <= max(low, -FULL_SCALE))
    level, mixed = float(waveform.std()), samples.mean(axis=1)
    cancels = cancel(float(samples.var(axis=0).mean()), float(mixed.var()))
    return Recording(digest.digest(), file_rate, len(waveform), level, cancels, float(at_peak.mean()))


def measure_all(
    utterances: Sequence[Utterance], sample_rate: int, *, title: str, num_workers: int = 0
) -> list[Recording | Problem]:
    """Measures every recording, in order; a recording that cannot be read gives a problem.

    Args:
        utterances: the utterances of a manifest.
        sample_rate: sample rate of the model in Hz.
        title: label of the progress bar.
        num_workers: number of threads (decoding, hashing and arithmetic release the GIL); 0 means one per core.
    """
    groups = [utterances[start : start + GROUP] for start in range(0, len(utterances), GROUP)]
    measured: list[Recording | Problem] = []
    with (
        ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool,
        tqdm(desc=title, total=len(utterances), unit=" utterances", delay=1) as bar,
    ):
        try:
            for group in pool.map(functools.partial(_measure_group, sample_rate=sample_rate), groups):
                measured += group
                bar.update(len(group))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C: do not start the other tasks
            raise
    return measured


def _measure_group(utterances: Sequence[Utterance], sample_rate: int) -> list[Recording | Problem]:
    return [measure(utterance, sample_rate) for utterance in utterances]

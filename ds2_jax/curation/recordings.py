"""Recordings decoded and measured, many at once, one in memory for each core."""

import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from ds2_jax.audio.reading import mono_waveform
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.system.errors import InputError

GROUP = 16
"""Utterances of a task: so many small ones cost a thread more than being handed over."""
FULL_SCALE = 0.999
"""Beyond it even samples that differ are clipped: lossy coders move what was cut."""


class Recording(NamedTuple):
    """What was measured in a recording.

    Attributes:
        digest: of its samples and their rate, the same whatever lossless format holds them.
        sample_rate: Hz, of the file.
        num_samples: at the model's rate.
        level: standard deviation of the samples; full scale is 1.
        clipped: share of the samples that are as high as the highest, as low as the lowest, or at full scale.
    """

    digest: bytes
    sample_rate: int
    num_samples: int
    level: float
    clipped: float


def measure(utterance: Utterance, sample_rate: int) -> Recording | Problem:
    """Decodes a recording as training does, with a model of `sample_rate` (Hz), and measures it."""
    try:
        samples, file_rate = utterance.samples()  # [S, C]
        num_samples = len(mono_waveform(samples, file_rate, sample_rate, str(utterance.audio)))
    except InputError as error:
        return Problem(utterance.id, str(utterance.audio), "unreadable audio", str(error))
    digest = hashlib.blake2b(f"{file_rate} {samples.shape}".encode(), digest_size=16)
    digest.update(samples.data)
    low, high = float(samples.min()), float(samples.max())
    at_peak = (samples >= min(high, FULL_SCALE)) | (samples <= max(low, -FULL_SCALE))
    return Recording(digest.digest(), file_rate, num_samples, float(samples.std()), float(at_peak.mean()))


def measure_all(
    utterances: Sequence[Utterance], sample_rate: int, *, title: str, num_workers: int = 0
) -> list[Recording | Problem]:
    """Measures every recording, in the order of `utterances`; what cannot be read gives a problem.

    Args:
        utterances: of a manifest.
        sample_rate: Hz, of the model.
        title: of the progress bar on stderr.
        num_workers: threads (decoding, hashing and arithmetic release Python's lock); 0 means one per core.
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
            pool.shutdown(cancel_futures=True)  # Ctrl-C: no hours of work that nobody will read
            raise
    return measured


def _measure_group(utterances: Sequence[Utterance], sample_rate: int) -> list[Recording | Problem]:
    return [measure(utterance, sample_rate) for utterance in utterances]

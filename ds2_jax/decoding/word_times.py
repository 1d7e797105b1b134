"""Word times: when each label of each word starts and ends."""

import itertools
from collections.abc import Sequence

import numpy as np

from ds2_jax.decoding.calibration import Calibration

Span = tuple[int, int, int]
"""A label and its first and last output frame, as in `hypothesis.LabelSpan`."""


def word_times(
    words: Sequence[Sequence[Span]], duration: float, seconds_per_frame: float, calibration: Calibration
) -> list[list[tuple[float, float]]]:
    """Computes the start and end of each label of each word, in seconds from the start of the recording.

    The times follow from the label's frames and the calibration's offsets. Neighbours that would overlap meet in the
    middle. All times lie between 0 and the recording's duration. Labels that would begin or end outside are moved
    inside. Each is at least a quarter of a frame long if the recording is long enough for that. Spaces have no
    duration, so consecutive words are neighbours.
    """
    spans = itertools.chain.from_iterable(words)
    frames = np.array([(first, last + 1) for _, first, last in spans], np.float64).reshape(-1, 2) * seconds_per_frame
    starts = frames[:, 0] + calibration.start_offset
    ends = np.maximum(frames[:, 1] + calibration.end_offset, starts + seconds_per_frame / 4)
    overlap = ends[:-1] > starts[1:]
    ends[:-1][overlap] = starts[1:][overlap] = (ends[:-1][overlap] + starts[1:][overlap]) / 2
    shortest = min(seconds_per_frame / 4, duration / max(len(frames), 1))
    room = np.arange(len(frames) + 1) * shortest  # least time for the labels before, and after
    starts = starts.clip(room[:-1], duration - room[:0:-1])
    ends = ends.clip(room[1:], duration - room[-2::-1])
    times = zip(starts.tolist(), ends.tolist(), strict=True)
    return [list(itertools.islice(times, len(word))) for word in words]

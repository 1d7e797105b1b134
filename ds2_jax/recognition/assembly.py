"""Makes the transcript of a recording from the model's outputs for its pieces."""

from collections.abc import Callable, Sequence

import numpy as np

from ds2_jax.config import Config
from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.recognition.piece_outputs import End, NamedBlocks, PieceOutput, join
from ds2_jax.recognition.transcript import Segment, Transcript, in_file, shifted

Decode = Callable[[np.ndarray, float], Sequence[Hypothesis]]
"""Log-probabilities [T', V] float32 and the duration in seconds -> readings, the best first."""


class Assembly:
    """The segments of a recording, which are decoded while its pieces come.

    Args:
        recording: the recording.
        config: settings of the model.
        decode: decodes a segment.
    """

    def __init__(self, recording: NamedBlocks, config: Config, decode: Decode) -> None:
        self._recording, self._config, self._decode = recording, config, decode
        self._segments: list[Segment] = []
        self._stretch: list[PieceOutput] = []

    def add(self, event: PieceOutput | End) -> list[Segment]:
        """Takes the next piece or the end of the recording, in order.

        Returns:
            The segments that it completes, at most one, with times of the sound.
        """
        if isinstance(event, PieceOutput) and event.piece.overlap:
            self._stretch.append(event)
            return []
        completed = [self._segment(self._stretch)] if self._stretch else []
        self._stretch = [event] if isinstance(event, PieceOutput) else []
        self._segments += completed
        return completed

    def transcript(self, end: End) -> Transcript:
        """Makes the transcript, after the end was added."""
        seconds = end.num_samples / self._config.features.sample_rate
        return make_transcript(self._recording, seconds, self._segments)

    def _segment(self, stretch: Sequence[PieceOutput]) -> Segment:
        """Decodes overlapping pieces as one segment."""
        first, last = stretch[0].piece, stretch[-1].piece
        sample_rate, seconds_per_frame = self._config.features.sample_rate, self._config.seconds_per_frame
        start = first.start * seconds_per_frame
        end = last.start * seconds_per_frame + len(last.waveform) / sample_rate
        readings = self._decode(join(stretch), end - start)
        return Segment(start, end, [shifted(reading, start, end) for reading in readings])


def make_transcript(recording: NamedBlocks, sound_seconds: float, decoded: Sequence[Segment]) -> Transcript:
    """Makes a transcript with the times of the file from segments with those of the sound."""
    timeline = recording.timeline
    duration = max(timeline.end_time(sound_seconds), timeline.length)
    return Transcript(recording.audio, duration, [in_file(each, timeline) for each in decoded], sound_seconds)

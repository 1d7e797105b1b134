"""Relates the samples of a recording to the times that a player shows."""

import bisect
import logging

logger = logging.getLogger(__package__)

LONG_GAP = 3600.0
"""Seconds. A longer gap most likely means that the clock of the file was set anew; it is logged."""
SMALL_STEP_BACK = 0.5
"""Seconds. Clocks that step back further are not followed."""


class Timeline:
    """Maps seconds of sound to seconds of the file.

    Both are equal unless the sound begins later than the picture, or has gaps. A gap takes no samples: the times behind
    it are moved. Times never go back.
    """

    def __init__(self) -> None:
        self._sound = [0.0]  # where a new offset begins, in seconds of sound
        self._offsets = [0.0]
        self._not_followed = 0.0
        self.length = 0.0
        """Seconds of the file, its picture included; 0 if it is not known."""
        self.num_tracks = 1
        """Number of audio tracks, of which the first is read."""

    def add(self, sound: float, file: float, name: str) -> None:
        """States that second `sound` of the sound is second `file` of the file, in rising order of `sound`.

        Args:
            sound: seconds of sound before this point.
            file: the file's time at this point, in seconds.
            name: the file, for the log.
        """
        offset = file + self._not_followed - sound
        step = offset - self._offsets[-1]
        if step < -SMALL_STEP_BACK:
            self._not_followed -= step
            logger.warning(
                f"{name}: the clock goes back by {-step:.1f} s after {sound:.1f} s of sound. "
                "The times behind go on from the sound before."
            )
            return
        if step > LONG_GAP:
            logger.warning(
                f"{name}: the clock jumps by {step / 3600:.1f} h after {sound:.1f} s of sound. The times follow it."
            )
        self._sound.append(sound)
        self._offsets.append(offset)

    def sound(self, file: float) -> float:
        """Returns the second of the sound at the file's time `file`, in seconds, if no gap follows the last one."""
        return file + self._not_followed - self._offsets[-1]

    def time(self, sound: float) -> float:
        """Returns the file's time, in seconds, of second `sound` of the sound, as a start of something."""
        return self._at(bisect.bisect_right(self._sound, sound + 1e-9) - 1, sound)

    def end_time(self, sound: float) -> float:
        """Returns the file's time, in seconds, at which something ends at second `sound`: before a gap, not behind."""
        return self._at(max(0, bisect.bisect_left(self._sound, sound - 1e-9) - 1), sound)

    def span(self, start: float, end: float) -> tuple[float, float]:
        """Returns the file's times of something short. It stays whole: on the side of a gap where its middle lies."""
        middle = (start + end) / 2
        shift = self.time(middle) - middle
        return start + shift, end + shift

    def _at(self, index: int, sound: float) -> float:
        before = self._sound[index] + self._offsets[index - 1] if index else 0.0
        return max(before, sound + self._offsets[index])

"""What was fitted to a model on its dev split, so that confidences and times say what they mean."""

import dataclasses
import logging

from ds2_jax.system.checks import check_fields, require

logger = logging.getLogger(__package__)

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.25, 4.0
MAX_OFFSET = 1.0
"""Seconds; more than a second is no lag of a model but a fault of the times it was fitted to."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A temperature for confidences and offsets for times. Transcripts do not depend on it.

    Attributes:
        temperature: by which the logits are divided before a probability is taken for a confidence.
        start_offset: added to the start of a label's first frame, seconds.
        end_offset: added to the end of a label's last frame, seconds.
        step: checkpoint that it was fitted to.
        fitted_on: manifest.
        num_words: recognised there, to which the temperature was fitted.
        num_timed_words: right ones whose times are known, to which the offsets were fitted.

    Raises:
        InputError: a number is out of its range.
    """

    temperature: float = 1.0
    start_offset: float = 0.0
    end_offset: float = 0.0
    step: int = 0
    fitted_on: str = ""
    num_words: int = 0
    num_timed_words: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        rule = f"be {MIN_TEMPERATURE} to {MAX_TEMPERATURE}"
        require(MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE, "temperature", rule, self.temperature)
        for name in ("start_offset", "end_offset"):
            value = getattr(self, name)
            require(abs(value) <= MAX_OFFSET, name, f"be within {MAX_OFFSET} s of 0", value)


UNCALIBRATED = Calibration()

"""The calibration of a model's confidences and word times, fitted on its dev split."""

import dataclasses
import logging

from ds2_jax.system.checks import check_fields, require

logger = logging.getLogger(__package__)

MIN_TEMPERATURE = 0.25
MAX_TEMPERATURE = 4.0
MAX_OFFSET = 1.0
"""In seconds. A model's outputs never lag so far behind the speech. A larger offset means that the manifest's word
times are wrong."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A temperature for confidences and offsets for times. Transcripts do not depend on them.

    Attributes:
        temperature: divides the logits before confidences are computed.
        start_offset: seconds to add to the start of a label's first frame.
        end_offset: seconds to add to the end of a label's last frame.
        step: step of the checkpoint whose outputs were fitted.
        fitted_on: the manifest.
        num_words: number of recognised words to which the temperature was fitted.
        num_timed_words: number of correct words with known times, to which the offsets were fitted.

    Raises:
        InputError: a number is out of range.
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

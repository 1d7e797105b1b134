"""What was fitted to a model on its dev split, so that confidences and times say what they mean."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path

from ds2_jax.errors import NO_JSON, InputError
from ds2_jax.files import write_text
from ds2_jax.run import CALIBRATION, best_step
from ds2_jax.settings import build, check_fields, require

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


def write_calibration(run: Path, calibration: Calibration) -> Path:
    """Keeps a calibration with its run; returns its file."""
    path = run / CALIBRATION
    write_text(path, json.dumps(dataclasses.asdict(calibration), indent=2) + "\n")
    return path


def read_calibration(run: Path) -> Calibration:
    """The calibration of a run's best checkpoint.

    Returns:
        `UNCALIBRATED` where there is none, or one of another checkpoint, which is told on stderr.

    Raises:
        InputError: the file is damaged.
    """
    path = run / CALIBRATION
    if not path.exists():
        return UNCALIBRATED
    advice = f"Make it anew: python main.py calibrate {shlex.quote(str(run))}"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in dataclasses.fields(Calibration)}
        require(isinstance(tree, dict), "The calibration", "be an object", tree)
        require(names <= tree.keys(), "The calibration", f"have {', '.join(sorted(names))}", sorted(tree))
        calibration: Calibration = build(Calibration, tree, "")
    except (OSError, InputError, *NO_JSON) as error:
        reason = str(error).rstrip(".")
        raise InputError(f"{path} must hold the calibration of a run, got: {reason}. {advice}") from error
    best = best_step(run)
    if calibration.step != best:
        print(
            f"{path} was fitted to step {calibration.step}, the best checkpoint is of step {best}: confidences and "
            f"times are not calibrated. {advice}",
            file=sys.stderr,
        )
        return UNCALIBRATED
    return calibration

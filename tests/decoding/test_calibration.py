"""A run stores its calibration and checks it when it is loaded."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ds2_jax.config import Config
from ds2_jax.decoding.calibration import UNCALIBRATED, Calibration
from ds2_jax.runs.fitted import read_calibration, run_decoder, write_calibration
from ds2_jax.system.errors import InputError

FITTED = Calibration(1.25, -0.05, 0.02, step=30, fitted_on="dev", num_words=200, num_timed_words=150)


def write_checkpoint(run: Path, step: int, dev_wer: float | None) -> None:
    """Writes the part of a checkpoint that decides which one is the best."""
    path = run / "checkpoints" / str(step) / "metrics/metrics"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"dev_wer": dev_wer, "step": step}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path, 20, 0.5)
    write_checkpoint(tmp_path, 30, 0.25)
    write_checkpoint(tmp_path, 40, 0.25)
    return tmp_path


def test_what_is_written_is_read_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_calibration(run, FITTED) == run / "calibration.json"
    assert read_calibration(run) == FITTED
    assert capsys.readouterr().err == ""


def test_run_without_one_is_not_calibrated(run: Path) -> None:
    assert read_calibration(run) == UNCALIBRATED


def test_one_of_another_checkpoint_is_told_and_not_used(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_calibration(run, FITTED)
    write_checkpoint(run, 50, 0.125)
    assert read_calibration(run) == UNCALIBRATED
    assert capsys.readouterr().err == (
        f"{run}/calibration.json was fitted to step 30, but the best checkpoint is that of step 50: confidences "
        f"and times are not calibrated. Fit it again: python main.py calibrate {run}\n"
    )


TREE = dataclasses.asdict(FITTED)
NAMES = "end_offset, fitted_on, num_timed_words, num_words, start_offset, step, temperature"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ('{"temperature": 1', "Expecting ',' delimiter: line 1 column 18 (char 17)"),
        ("[1]", "The calibration must be a JSON object, got [1]."),
        ('{"temperature": 1.5}', f"The calibration must have {NAMES}, got ['temperature']."),
        (TREE | {"more": 1}, "more must be a known setting, got 'more'. Was the run made by a newer version?"),
        (TREE | {"temperature": 0.0}, "temperature must be 0.25 to 4.0, got 0.0."),
        (TREE | {"temperature": float("nan")}, "temperature must be finite, got nan."),
        (TREE | {"temperature": "warm"}, "temperature must be of type float, got 'warm'."),
        (TREE | {"start_offset": -1.5}, "start_offset must be within 1.0 s of 0, got -1.5."),
        (TREE | {"end_offset": 2}, "end_offset must be within 1.0 s of 0, got 2.0."),
        (TREE | {"step": None}, "step must be of type int, got None."),
    ],
)
def test_damaged_file_is_named(run: Path, text: Any, finding: str) -> None:
    (run / "calibration.json").write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(InputError) as caught:
        run_decoder(Config(), run)
    message = f"{run}/calibration.json must hold the calibration of a run, got: {finding}"
    assert re.sub(r"\.? Fit it again: .*", "", str(caught.value)) == message.removesuffix(".")
    assert str(caught.value).endswith(f" Fit it again: python main.py calibrate {run}")

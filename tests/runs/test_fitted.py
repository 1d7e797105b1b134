"""Tuned weights are stored with a run and used unless the user sets others."""

import dataclasses
import errno
import json
from pathlib import Path

import pytest

from ds2_jax.decoding.calibration import UNCALIBRATED
from ds2_jax.decoding.ngram.cache import digest_of
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.runs.fitted import Tuned, read_calibration, read_tuned, with_tuned, write_calibration, write_tuned
from ds2_jax.runs.run_folder import CALIBRATION, TUNED
from ds2_jax.system.errors import InputError

FOUND = Tuned("lm.arpa", 0.75, 1.5, 0.08, 0.03, 100, 3640)


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text("some model")
    return path


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    assert read_tuned(tmp_path) == {}
    write_tuned(tmp_path, "ab", FOUND)
    write_tuned(tmp_path, "cd", FOUND)
    other = Tuned("other.arpa", 1.0, -0.5, 0.5, 0.25, 1, 7)
    write_tuned(tmp_path, "ab", other)
    assert read_tuned(tmp_path) == {"ab": other, "cd": FOUND}


def test_the_same_model_under_any_name_takes_its_weights(
    tmp_path: Path, lm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tuned(tmp_path, digest_of(lm), FOUND)
    renamed = lm.rename(tmp_path / "moved.arpa")
    options = with_tuned(DecodingOptions(lm=renamed), tmp_path)
    assert (options.alpha, options.beta) == (0.75, 1.5)
    assert capsys.readouterr().err == f"{renamed}: alpha 0.75, beta 1.5 (tuned on the dev split, WER 8.00% there)\n"


def test_another_model_takes_the_defaults(tmp_path: Path, lm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tuned(tmp_path, digest_of(lm), FOUND)
    lm.write_text("another model")
    options = with_tuned(DecodingOptions(lm=lm), tmp_path)
    assert (options.alpha, options.beta) == (0.5, 0.5)
    assert capsys.readouterr().err == (
        f"{lm}: alpha 0.5, beta 0.5 (not tuned for this run: python main.py lm tune {tmp_path} --lm {lm})\n"
    )


@pytest.mark.parametrize(
    ("given", "taken", "said"),
    [
        (DecodingOptions(lm=Path("lm.arpa"), alpha=0.0), (0.0, 1.5), "alpha 0, beta 1.5"),
        (DecodingOptions(lm=Path("lm.arpa"), beta=0.0), (0.75, 0.0), "alpha 0.75, beta 0"),
        (DecodingOptions(lm=Path("lm.arpa"), alpha=2.0, beta=3.0), (2.0, 3.0), ""),
    ],
)
def test_weights_that_are_given_are_taken(
    tmp_path: Path,
    lm: Path,
    given: DecodingOptions,
    taken: tuple[float, float],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tuned(tmp_path, digest_of(lm), FOUND)
    options = with_tuned(given, tmp_path)
    assert (options.alpha, options.beta) == taken
    found = " (lm tune found alpha 0.75 with beta 1.5)"  # no error rate: it belongs to other weights
    assert capsys.readouterr().err == (f"lm.arpa: {said}{found}\n" if said else "")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1). Delete"),
        ("[]", "The file must be a JSON object, got []."),
        ('{"0123456789": 3}', "01234567 must be an object (Tuned), got 3."),
        ('{"0123456789": {"alpha": 1.0}}', ""),
    ],
)
def test_damaged_file(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / TUNED).write_text(content)
    with pytest.raises(InputError) as error:
        read_tuned(tmp_path)
    told = str(error.value)
    assert told.startswith(f"{tmp_path / TUNED} must hold the result of lm tune, got: {fault}")
    assert told.endswith("Delete it and run lm tune again.")


def test_a_number_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    write_tuned(tmp_path, "0123456789", FOUND)
    rows = json.loads((tmp_path / TUNED).read_text())
    rows["0123456789"]["alpha"] = "much"
    (tmp_path / TUNED).write_text(json.dumps(rows))
    with pytest.raises(InputError, match="alpha must be of type float, got 'much'"):
        read_tuned(tmp_path)


def test_a_file_that_may_not_be_read_is_not_to_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name, read in ((TUNED, read_tuned), (CALIBRATION, read_calibration)):
        (tmp_path / name).write_text("{}")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", refuse)
            with pytest.raises(InputError) as error:
                read(tmp_path)
        assert str(error.value).endswith("Permission denied. Correct this and try again.")


def test_a_calibration_without_a_checkpoint_names_no_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_calibration(tmp_path, dataclasses.replace(UNCALIBRATED, step=7))
    assert read_calibration(tmp_path) == UNCALIBRATED
    assert "was fitted to step 7, but the run has no checkpoint: " in capsys.readouterr().err

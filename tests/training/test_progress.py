"""Training reports its progress, and its log survives an interruption."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.data.manifest import Problem
from ds2_jax.data.skipped import Skipped
from ds2_jax.system.errors import InputError
from ds2_jax.training import progress as progress_lib
from ds2_jax.training.progress import MetricLog, Progress

RATE = 16_000


def batch(num_rows: int, seconds: float) -> dict[str, np.ndarray]:
    num_samples = round(seconds * RATE)
    return {
        "waveforms": np.zeros((num_rows, num_samples), np.float32),
        "num_samples": np.full(num_rows, num_samples),
    }


def metrics(loss: float, unalignable: int = 0) -> dict[str, float]:
    counts = {"alignable": 1, "unalignable": unalignable, "empty": 0, "num_rows": 2, "padded_samples": RATE}
    return {"loss": loss, "num_samples": RATE, **counts}


def test_without_a_terminal_new_shapes_and_each_minute_are_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_lib, "SECONDS_BETWEEN_LINES", 0.0)
    progress = Progress(RATE)
    shapes = [batch(4, 1.5), batch(4, 1.5), batch(2, 3.0)]
    for _ in progress.epoch(shapes, "epoch 1/9", 3):
        progress.step(metrics(7.0))
    for _ in progress.epoch(shapes, "epoch 2/9", 3):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r", \d+x real time$", "", line) for line in lines] == [
        "epoch 1/9: compiling for 4 x 1.5 s",
        "epoch 1/9: step 1 of 3, loss 7.0",
        "epoch 1/9: step 2 of 3, loss 7.0",
        "epoch 1/9: compiling for 2 x 3.0 s",
        "epoch 1/9: step 3 of 3, loss 7.0",
    ]


def test_summary_is_that_of_the_epoch() -> None:
    progress = Progress(RATE)
    for epoch, losses in enumerate([(4.0, 8.0), (1.0, 2.0)]):
        for loss, _ in zip(losses, progress.epoch([batch(4, 1.0)] * 2, "", 2), strict=True):
            progress.step(metrics(loss, unalignable=1 - epoch))
        assert progress.loss == sum(losses) / 2
        assert ("2 utterances that CTC cannot align" in progress.summary) is (epoch == 0)


def test_speed_before_any_step_is_zero() -> None:
    assert Progress(RATE).speed == 0


def test_utterances_left_out_are_named_once_and_not_again_after_a_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new/skipped.jsonl"
    one, other = (Problem(name, f"{name}.wav", "unreadable audio", "it is broken") for name in ("a", "b"))
    for problems in ([one, one], [one, other]):
        skipped = Skipped(path)
        for problem in problems:
            skipped(problem)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == [
        "left out: a (unreadable audio: it is broken)",
        "left out: b (unreadable audio: it is broken)",
    ]


def test_segments_of_one_file_that_are_left_out_are_all_named(tmp_path: Path) -> None:
    for _ in range(2):
        skipped = Skipped(tmp_path / "skipped.jsonl")
        for name in ("a", "a-2"):
            skipped(Problem(name, "a.wav", "outside the recording", "it is short"))
    assert [json.loads(line)["id"] for line in (tmp_path / "skipped.jsonl").read_text().splitlines()] == ["a", "a-2"]


def test_a_list_cut_in_a_line_is_gone_on_with(tmp_path: Path) -> None:
    """A run that was killed while it wrote a line of the list must be able to continue."""
    path = tmp_path / "skipped.jsonl"
    problem = Problem("a", "a\u2028.wav", "unreadable audio", "it is broken")
    Skipped(path)(problem)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:-length])
        Skipped(path)(problem)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["", "{", "[" * 100_000, "[]", '{"audio": 1}', '{"audio": {}}', "\xff"])
def test_a_damaged_list_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "skipped.jsonl"
    path.write_bytes(b'{"audio": "a"}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(
        InputError, match=f"^{path}, line 2 must be a JSON object with the key audio, got .* Delete the line.$"
    ):
        Skipped(path)


class Clock:
    """Replaces a clock of `time`; it moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_log_goes_on_after_the_restored_step(tmp_path: Path) -> None:
    with MetricLog(tmp_path, 0, evaluated=False) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": float(step)})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')  # killed in the middle of a line
    with MetricLog(tmp_path, 2, evaluated=True) as log:
        log.write(3, {"loss": 9.0})
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [1.0, 2.0, 9.0]


@pytest.mark.parametrize(
    ("evaluated", "kept"), [(True, ["loss", "dev_wer", "loss", "dev_wer"]), (False, ["loss", "dev_wer", "loss"])]
)
def test_line_of_an_epoch_goes_where_it_is_to_be_evaluated_again(
    tmp_path: Path, evaluated: bool, kept: list[str]
) -> None:
    with MetricLog(tmp_path, 0, evaluated=False) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": float(step)})
            log.write(step, {"dev_wer": 0.5})
    with MetricLog(tmp_path, 2, evaluated) as log:
        pass
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [next(name for name in line if name != "step") for line in lines] == kept


def test_log_knows_the_steps_of_an_epoch_that_were_made(tmp_path: Path) -> None:
    with MetricLog(tmp_path, 0, evaluated=False) as log:
        for step, epoch in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 2)):
            log.write(step, {"epoch": epoch, "loss": 0.5})
            log.write(step, {"epoch": epoch, "dev_wer": 0.5})
    with MetricLog(tmp_path, 4, evaluated=False) as log:
        assert [line["step"] for line in log.steps(2)] == [3, 4]


@pytest.mark.parametrize("line", ["{", "[]", '{"loss": 1.0}', '{"step": null}'])
def test_damaged_line_of_the_log_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(InputError) as caught:
        MetricLog(tmp_path, 2, evaluated=True)
    assert str(caught.value) == (
        f"{path}, line 2 must be a JSON object with a step, got {line + chr(10)!r}. Delete the line."
    )


def test_damaged_time_in_the_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "wall_seconds": "1"}\n')
    with pytest.raises(InputError) as caught:
        MetricLog(tmp_path, 2, evaluated=True)
    assert str(caught.value) == f"{path}, line 2: wall_seconds must be a number of seconds, got '1'. Delete the line."


def test_time_of_all_starts_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("ds2_jax.training.progress.time.monotonic", clock)
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n')  # from before wall_seconds existed
    began = clock.now - 5
    with MetricLog(tmp_path, 1, evaluated=False, began=began) as log:
        for step in (2, 3):
            clock.now += 10
            log.write(step, {"loss": 1.0})
    clock.now += 1000  # no process runs
    with MetricLog(tmp_path, 2, evaluated=False) as log:  # step 3 is lost, but its time counts
        clock.now += 3
        log.write(3, {"loss": 1.0})
        assert log.wall_seconds == 28
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("wall_seconds") for line in lines] == [None, 15, 28]


def test_log_without_a_line_makes_no_tensorboard(tmp_path: Path) -> None:
    with MetricLog(tmp_path, 0, evaluated=False):
        pass
    assert not (tmp_path / "tensorboard").exists()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def test_epoch_tells_its_time_waiting_padding_and_empty_rows(clock: Clock) -> None:
    def batches() -> Iterator[dict[str, np.ndarray]]:
        for shape, num_samples in (((2, 100), [100, 80]), ((4, 50), [50, 40, 50, 0])):
            clock.now += 2  # decoding
            yield {"waveforms": np.zeros(shape, np.float32), "num_samples": np.array(num_samples, np.int32)}
        clock.now += 1  # finding the end of the data

    progress = Progress(16_000)
    made: list[dict[str, float]] = []
    for epoch in range(2):  # the second epoch counts from 0 again
        for batch in progress.epoch(batches(), "title", 2):
            clock.now += 10  # computing
            num_samples = float(batch["num_samples"].sum())
            empty = int((batch["num_samples"] == 0).sum())
            num_rows, padded_samples = batch["waveforms"].shape
            shape = {"num_rows": num_rows, "padded_samples": padded_samples}
            counts = {"num_samples": num_samples, "unalignable": 0, "alignable": 1, "empty": empty}
            progress.step({"loss": 3.0, **counts, **shape})
            made.append({"loss": 3.0, **counts, **shape})
        # 400 samples are computed: 20 + 10 after the utterances and 50 in the empty row are padding.
        assert progress.costs == {
            "epoch_seconds": 25,
            "data_wait_seconds": 5,
            "padding_share": 30 / 400,
            "empty_share": 50 / 400,
        }, epoch
    assert (progress.loss, progress.summary) == (3.0, "25 s, 0x real time, 5 s of them waiting for data")
    # A continued epoch counts the earlier steps, but only the time of this start.
    for _ in progress.epoch(iter(()), "title", 2, made[:2]):
        raise AssertionError("nothing is left")
    clock.now += 1
    assert (progress.costs["padding_share"], progress.costs["empty_share"]) == (30 / 400, 50 / 400)
    assert progress.alignable == 2
    assert (progress.loss, progress.summary) == (3.0, "1 s, 0x real time")

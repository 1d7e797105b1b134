"""The watchdog reports only when no step ends; the alarm reports when the step compiles again."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import Config, OptimConfig
from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.results import Evaluation, Result
from ds2_jax.training.watch import RecompilationAlarm, alarms, disappointments, doubts
from ds2_jax.training.watchdog import Watchdog

ROOT = Path(__file__).parents[2]
SCRIPT = """
import ctypes, os, sys, time
from ds2_jax.training.watchdog import Watchdog

def sleeper(seconds):
    time.sleep(seconds)

def holder(seconds):
    ctypes.PyDLL(None).usleep(int(1e6 * seconds))  # keeps Python's lock

{before}
with Watchdog({minutes}, "before the first step") as watchdog:
    {body}
print("the end")
"""


def watched(body: str, minutes: float = 0.01, before: str = "") -> str:
    """Runs `body` under a watchdog in a process, which must end by itself, and returns its stderr."""
    script = SCRIPT.format(body=body, minutes=minutes, before=before)
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "the end\n"
    return ended.stderr


def test_silence_is_told_with_the_stacks_and_again_but_not_more() -> None:
    printed = watched('watchdog.beat("in epoch 3, step 120"); sleeper(3.2)', minutes=0.02)
    told = [line for line in printed.splitlines() if line.startswith("no step")]
    rest = "minutes (in epoch 3, step 120); stacks of all threads, most recent call first:"
    minutes = [float(line.removeprefix("no step has ended for ").removesuffix(f" {rest}")) for line in told]
    assert minutes[0] >= 0.02
    assert sorted(set(minutes)) == minutes  # in rising order
    assert 2 <= printed.count("in sleeper\n") == len(told) <= 3  # a thread may wake late; the sleep may take longer
    assert "Timeout" not in printed


def test_thread_that_holds_pythons_lock_for_ever_is_told() -> None:
    printed = watched('watchdog.beat("step 1"); holder(2)')
    assert "Timeout (0:00:00.750000)!\n" in printed
    assert "in holder\n" in printed


def test_stderr_without_a_descriptor_stands_for_that_of_the_process() -> None:
    printed = watched("sleeper(0.9)", before="import io; sys.stderr = io.StringIO()")
    assert "no step has ended for 0.01 minutes (before the first step); stacks of all threads" in printed
    assert "in sleeper\n" in printed


def test_stderr_that_nobody_reads_ends_nothing() -> None:
    assert watched("sleeper(0.9)", before="reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 2)") == ""


@pytest.fixture
def no_thread_dies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    died: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    yield
    assert died == []
    assert [thread for thread in threading.enumerate() if thread.name == "watchdog"] == []


@pytest.mark.usefixtures("no_thread_dies")
def test_closed_stderr_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    monkeypatch.setattr(sys, "__stderr__", None)
    with Watchdog(0.002) as watchdog:
        watchdog.beat("step 1")
        time.sleep(0.2)


def test_steps_that_end_are_not_told() -> None:
    steps = 'for step in range(40): watchdog.beat(f"step {step}"); sleeper(0.1)'
    assert watched(steps, minutes=0.05) == ""


def test_zero_minutes_turn_it_off() -> None:
    with Watchdog(0) as watchdog:
        assert [thread for thread in threading.enumerate() if thread.name == "watchdog"] == []
        watchdog.beat("step 1")


@pytest.mark.usefixtures("no_thread_dies")
@pytest.mark.parametrize("minutes", [1e-300, 1e300])
def test_any_number_of_minutes_is_taken(minutes: float) -> None:
    with Watchdog(minutes) as watchdog:
        watchdog.beat("step 1")


def batch_of(num_samples: int) -> dict[str, np.ndarray]:
    return {"waveforms": np.zeros((2, num_samples), np.float32), "labels": np.zeros((2, 3), np.int32)}


def make_step() -> Callable[..., Any]:
    """Makes a step that compiles for each shape of the batch and each type of the state."""

    def train_step(state: jax.Array, batch: dict[str, jax.Array], epoch: jax.Array) -> tuple[jax.Array, jax.Array]:
        return state + 1, batch["waveforms"].sum() + epoch

    return jax.jit(train_step)


def told_of(steps: list[tuple[Any, int]], capsys: pytest.CaptureFixture[str], first: int = 0) -> list[str]:
    """Returns the log lines of steps, each given by a state and a number of samples, in epochs of two steps."""
    epochs = [jnp.int32(epoch) for epoch in range(10)]
    with RecompilationAlarm(first, steps_per_epoch=2) as alarm:
        step = alarm.watch(make_step())
        for i, (state, num_samples) in enumerate(steps, start=first):
            made, _ = step(state, batch_of(num_samples), epochs[i // 2])
            assert made == state + 1
    return capsys.readouterr().err.splitlines()


def test_shapes_of_the_first_epoch_are_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert told_of([(0, 5), (0, 6), (0, 6), (0, 5)], capsys) == []


def test_new_shape_after_the_warm_up_is_told_with_step_and_shape(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = told_of([(0, 5), (0, 6), (0, 5), (0, 7_000), (0, 7_000)], capsys)
    start, end = line.split(" s, for ")
    assert start.startswith("compiled again at step 4 (epoch 2) in ")
    assert (
        end
        == "waveforms 2 x 7,000, labels 2 x 3, because no batch had this shape before the end of the first whole epoch"
    )


def test_known_shape_that_compiles_again_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = told_of([(0, 5), (np.float32(0), 5)], capsys)
    assert line.startswith("compiled again at step 2 (epoch 1) in ")
    reason = "although it was compiled for this shape before: a type, a device or another argument has changed"
    assert line.endswith(f"waveforms 2 x 5, labels 2 x 3, {reason}")


def test_warm_up_of_a_run_that_goes_on_in_mid_epoch_is_its_first_whole_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = told_of([(0, size) for size in (5, 6, 7, 8)], capsys, first=3)  # updates 4 | 5, 6 | 7
    assert [line.partition(" in ")[0] for line in lines] == ["compiled again at step 7 (epoch 4)"]


def test_other_programs_and_threads_are_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    def compile_something(size: int) -> None:
        jax.jit(lambda x: x * 3)(np.zeros(size)).block_until_ready()

    def train_step(state: Any, batch: Any, epoch: Any) -> tuple[Any, None]:
        other = threading.Thread(target=compile_something, args=(len(batch["waveforms"][0]),))
        other.start()
        other.join()
        return state, None

    with RecompilationAlarm(0, steps_per_epoch=1) as alarm:
        step = alarm.watch(train_step)
        for size in (5, 6, 7):
            compile_something(10 * size)
            step(0, batch_of(size), jnp.int32(0))
    assert capsys.readouterr().err == ""


def test_nothing_is_told_when_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    with RecompilationAlarm(0, steps_per_epoch=1) as alarm:
        step = alarm.watch(make_step())
    for size in (5, 6):
        step(0, batch_of(size), jnp.int32(0))
    assert capsys.readouterr().err == ""


def settings(epochs: int, warmup_steps: int) -> Config:
    return Config(epochs=epochs, optim=OptimConfig(warmup_steps=warmup_steps))


def test_a_warm_up_that_never_ends_is_told() -> None:
    assert doubts(settings(10, 180), num_steps=18) == []
    assert doubts(settings(10, 300), num_steps=18) == [
        "optim.warmup_steps is 300, but the training has 180 steps: the learning rate rises to 60% of its peak and "
        "never falls. Lower --optim.warmup-steps, or raise --epochs."
    ]


def heard_as(hypothesis: str, reference: str = "GO ON") -> Evaluation:
    return Evaluation([Result(Utterance(Path("a.wav"), 1.0, reference, "a"), reference, hypothesis)], 1.0, 0)


def test_a_model_that_learnt_nothing_is_told_with_what_to_read() -> None:
    [line] = disappointments(test=heard_as(""), dev=heard_as("GO ON"))
    section = "A model that learns nothing"
    assert line == f'the model has learnt little (WER 100%, CER 100% on test): see "{section}" in docs/training.md'
    assert f"\n## {section}\n" in (ROOT / "docs/training.md").read_text()
    assert disappointments(test=None, dev=heard_as("E"))[0].endswith(f'on dev): see "{section}" in docs/training.md')
    for evaluation in (heard_as("GO IN"), heard_as("GOON"), heard_as("GO", reference=""), None):
        assert disappointments(test=evaluation, dev=Evaluation([], 0.0, 0)) == []


def epochs(train: list[float], dev: list[float], wer: list[float], steps: int = 200) -> list[dict[str, float]]:
    lines = enumerate(zip(train, dev, wer, strict=True), start=1)
    return [{"epoch": n, "step": steps * n, "train_loss": a, "dev_loss": b, "dev_wer": c} for n, (a, b, c) in lines]


@pytest.mark.parametrize(
    ("train", "dev", "wer", "kinds"),
    [
        ([60, 50, 40, 30, 20, 10, 5, 4], [60, 50, 40, 30, 22, 15, 12, 12], [1, 1, 1, 0.8, 0.6, 0.4, 0.3, 0.3], set()),
        ([60, 59, 58.9, 58.8, 58.7, 58.7], [60] * 6, [1] * 6, {"still"}),
        ([5, 4.99, 4.98, 4.97, 4.97, 4.97], [5] * 6, [0.1] * 6, set()),  # fine-tuning, it begins with a low loss
        ([60, 20, 5, 1, 0.9, 0.9, 0.9, 0.9], [60, 20, 6, 3, 3, 3, 3, 3], [1] * 3 + [0.1] * 5, set()),  # it has learnt
        ([60, 30, 20, 10, 8, 6, 4, 2], [60, 30, 25, 30, 35, 40, 45, 50], [1, 0.6, 0.5] + [0.6] * 5, {"overfitting"}),
        ([60, 30, 20, 10, 8, 6, 4, 2], [60, 30, 25, 30, 35, 40, 45, 50], [1, 0.6, 0.5] + [0.4] * 5, set()),  # WER falls
        ([60, 30, 20, 10, 8, 6, 4, 2], [60, 30, 25, 25, 26, 26, 27, 27], [1, 0.6, 0.5] + [0.6] * 5, set()),
        ([60, 30, 20, 20, 20, 20, 20, 19], [60, 30, 25, 30, 35, 40, 45, 50], [1, 0.6, 0.5] + [0.6] * 5, set()),
    ],
)
def test_alarms_are_raised_for_what_goes_wrong_only(
    train: list[float], dev: list[float], wer: list[float], kinds: set[str]
) -> None:
    found = alarms(epochs(train, dev, wer), heard_as("XX XXX" if wer[-1] == 1 else "GO ON"))
    assert found.keys() == kinds
    assert alarms(epochs(train, dev, wer, steps=10), heard_as("GO ON")) == {}  # too early
    for line in found.values():
        section = line.rpartition('see "')[2].removesuffix('" in docs/training.md')
        assert f"\n## {section}\n" in (ROOT / "docs/training.md").read_text()


def test_a_model_that_writes_nothing_is_told_from_one_that_writes_wrongly() -> None:
    lines = epochs([60, 50, 40], [60, 50, 40], [1, 1, 1])
    assert alarms(lines, heard_as(""))["blank"].startswith(
        "the model writes almost nothing after 600 updates: 0 characters where dev has 4; see "
    )
    assert alarms(lines, heard_as("XX")) == {}
    assert alarms(lines, Evaluation([], 0.0, 0)) == {}
    assert alarms([], heard_as("")) == {}


def test_an_alarm_says_how_the_losses_ran() -> None:
    lines = epochs([60, 30, 20, 10, 8, 6, 4, 2], [60, 30, 25, 30, 35, 40, 45, 50], [1, 0.6, 0.5] + [0.6] * 5)
    assert alarms(lines, heard_as("GO ON"))["overfitting"].startswith(
        "dev gets worse while train gets better: since epoch 3 the dev loss rose from 25.00 to 50.00 and the training "
        "loss fell from 20.00 to 2.00; the lowest dev WER, 50.00%, is of epoch 3; see "
    )

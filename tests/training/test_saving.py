"""A save is due after a number of steps, after a time, or on a signal; a signal also stops training."""

import signal
from typing import Any, cast

import jax.numpy as jnp
import pytest

from ds2_jax.config import CheckpointConfig
from ds2_jax.model.update import TrainState
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError
from ds2_jax.training import saving
from ds2_jax.training.saving import SAVE, Saver

STATE = TrainState(jnp.int32(7), {}, {}, {})


class Recorder:
    """Replaces the checkpoints and the check of the folder."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def save(self, state: TrainState) -> None:
        self.calls.append(f"save {int(state.step)}")

    def wait(self) -> None:
        self.calls.append("wait")

    def check(self) -> None:
        self.calls.append("check")


class Clock:
    """Replaces time.monotonic."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(saving, "time", clock)
    monkeypatch.setattr(interrupts, "_requested", None)
    return clock


def saver_of(recorder: Recorder, **settings: Any) -> Saver:
    return Saver(cast(Checkpoints, recorder), CheckpointConfig(**settings), recorder.check)


@pytest.mark.usefixtures("clock")
def test_steps_of_an_epoch_are_counted(recorder: Recorder) -> None:
    every_third = saver_of(recorder, every_steps=3)
    assert [step for step in range(1, 10) if every_third.due(0, step)] == [3, 6, 9]
    never = saver_of(recorder, every_steps=0)
    assert not any(never.due(0, step) for step in range(1, 10))
    assert never.due(SAVE, 1)


def test_minutes_count_from_the_last_save(recorder: Recorder, clock: Clock) -> None:
    saver = saver_of(recorder, every_minutes=2.0)
    clock.now += 119
    assert saver.asked() == 0
    clock.now += 2
    assert saver.asked() == SAVE
    saver.save(STATE)
    assert recorder.calls == ["check", "save 7"]
    assert saver.asked() == 0
    clock.now += 1e6
    assert saver_of(recorder, every_minutes=0.0).asked() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_waits_and_stops(
    recorder: Recorder, clock: Clock, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    saver = saver_of(recorder)
    monkeypatch.setattr(interrupts, "_requested", number)
    clock.now += 1e6  # the signal outranks the clock
    assert saver.asked() == SAVE + number
    with pytest.raises(interrupts.Stopped) as stop:
        saver.save(STATE, saver.asked())
    assert stop.value.code == code
    assert recorder.calls == ["check", "save 7", "wait"]


def test_alone_a_process_heeds_itself_and_among_others_what_all_were_told(
    recorder: Recorder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = saver_of(recorder)
    monkeypatch.setattr(interrupts, "_requested", signal.SIGTERM)
    assert saver.agreed(told=0) == SAVE + signal.SIGTERM
    monkeypatch.setattr("jax.process_count", lambda: 2)
    assert saver.agreed(told=0) == 0
    assert saver.agreed(told=SAVE) == SAVE


@pytest.mark.usefixtures("clock")
def test_nothing_is_saved_where_the_folder_is_gone(recorder: Recorder) -> None:
    def gone() -> None:
        raise InputError("it is gone")

    saver = Saver(cast(Checkpoints, recorder), CheckpointConfig(), gone)
    with pytest.raises(InputError, match="gone"):
        saver.save(STATE)
    assert recorder.calls == []

"""The profile holds the steps that the user names, and nothing else."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ds2_jax.system.errors import InputError
from ds2_jax.training.profile import Profile, steps_of

Step = Callable[[jax.Array], jax.Array]


@pytest.fixture(scope="module")
def step() -> Step:
    return jax.jit(lambda x: jnp.tanh(x @ x))


def train(profile: Profile, step: Step, first: int, last: int) -> None:
    state = jnp.ones((50, 50))
    recorded = profile.watch(lambda state, _: step(state), first - 1)
    for _ in range(first, last + 1):
        state = recorded(state, "batch")


def recorded_steps(run: Path) -> list[list[int]]:
    """Lists the step numbers of each trace, the oldest trace first."""
    found = []
    for path in sorted((run / "profile").glob("plugins/profile/*/perfetto_trace.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        found.append([int(event["args"]["step_num"]) for event in events if event.get("name") == "train"])
        assert any("tanh" in event.get("name", "") for event in events)  # the work of the device
        assert [each.stat().st_size > 0 for each in path.parent.glob("*.xplane.pb")] == [True]  # for TensorBoard
    return found


@pytest.mark.parametrize(
    "text", ["", "10", "10:", ":20", "20:10", "0:5", "-1:5", "a:b", "1:2:3", "1.5:2", "1:" + "9" * 5000]
)
def test_steps_are_two_numbers(text: str) -> None:
    with pytest.raises(InputError) as caught:
        steps_of(text)
    got = repr(text if len(text) < 80 else text[:80] + " ...")
    rule = "--profile must be FIRST:LAST, the first and last step to record (1 or more), got "
    assert str(caught.value) == f"{rule}{got}. Try 10:20."


def test_named_steps_are_recorded_and_no_others(tmp_path: Path, step: Step, capsys: pytest.CaptureFixture[str]) -> None:
    with Profile(tmp_path, steps_of("3:5")) as profile:
        train(profile, step, 1, 2)
        assert not (tmp_path / "profile").exists()
        train(profile, step, 3, 5)
        assert recorded_steps(tmp_path) == [[3, 4, 5]]  # written at once: a crash later loses nothing
        before = list(tmp_path.rglob("*"))
        train(profile, step, 6, 8)
    assert list(tmp_path.rglob("*")) == before
    told = re.fullmatch(
        r"steps 3 to 5 are recorded: run tensorboard --logdir (\S+) \(after pip install tensorboard xprof\), or open "
        r"(\S+) at https://ui\.perfetto\.dev\n",
        capsys.readouterr().err,
    )
    assert told
    assert Path(told[1]) == tmp_path / "profile"
    assert Path(told[2]).is_file()


def test_one_step_can_be_recorded(tmp_path: Path, step: Step) -> None:
    with Profile(tmp_path, steps_of("1:1")) as profile:
        train(profile, step, 1, 2)
    assert recorded_steps(tmp_path) == [[1]]


def test_what_was_recorded_is_written_where_training_stops(
    tmp_path: Path, step: Step, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(state: jax.Array) -> jax.Array:
        if len(made) == 3:
            jax.block_until_ready(made)  # otherwise the device may not have begun
            raise RuntimeError("boom")
        made.append(step(state))
        return made[-1]

    made: list[jax.Array] = []
    with pytest.raises(RuntimeError, match="boom"), Profile(tmp_path, steps_of("2:9")) as profile:
        train(profile, failing, 1, 9)
    assert recorded_steps(tmp_path) == [[2, 3, 4]]
    assert capsys.readouterr().err.startswith("steps 2 to 3 are recorded: ")
    with Profile(tmp_path / "next", steps_of("2:9")) as profile:  # a continued run
        train(profile, step, 8, 12)
    assert recorded_steps(tmp_path / "next") == [[8, 9]]


@pytest.mark.parametrize("first", [1, 7])
def test_steps_that_are_not_made_are_told(
    tmp_path: Path, step: Step, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Profile(tmp_path, steps_of("4:6")) as profile:
        train(profile, step, first, first + 2)
    assert capsys.readouterr().err == "--profile 4:6 recorded nothing: this command made none of these steps\n"
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_recorded_unasked_or_in_another_process(
    tmp_path: Path, step: Step, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jax.profiler, "start_trace", None)
    with Profile(tmp_path, None) as profile:
        train(profile, step, 1, 3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Profile(tmp_path, steps_of("1:2")) as profile:
        train(profile, step, 1, 3)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_profile_that_cannot_be_written_stops_nothing(
    tmp_path: Path, step: Step, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop: Callable[[], None] = jax.profiler.stop_trace

    def on_a_full_disk() -> None:
        stop()
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no space left on device")

    monkeypatch.setattr(jax.profiler, "stop_trace", on_a_full_disk)
    with Profile(tmp_path, steps_of("1:2")) as profile:
        train(profile, step, 1, 3)
    told = (
        f"{tmp_path}/profile does not hold the profile of step 1 and later steps: RESOURCE_EXHAUSTED: no space left on "
        "device"
    )
    assert capsys.readouterr().err == f"{told}\n"

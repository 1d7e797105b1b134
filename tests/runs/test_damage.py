"""Damaged checkpoints, and checkpoints after a crash or on a full disk."""

import dataclasses
import gc
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import CheckpointConfig, Config
from ds2_jax.model.update import TrainState
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.runs.checkpoints import Checkpoints, load_variables
from ds2_jax.runs.run_folder import saved_steps
from ds2_jax.system.errors import InputError
from tests.runs.states import CONFIG, assert_equal
from tests.small_runs import write_noise_manifest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("pattern", "content"),
    [
        ("state/**/*", b""),
        ("state/ocdbt.process_0/d/*", b"\x00" * 100),
        ("state/d/*", b"\x00" * 100),
        ("state/_METADATA", b"{"),
        ("meta/metadata", b"[]"),
        ("meta/metadata", b"{}"),
        ("meta/metadata", b"\xff"),
    ],
)
# Orbax does not finish reading the other arrays; the next garbage collection raises errors that nobody can catch.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoint_is_refused(run: Path, tmp_path: Path, pattern: str, content: bytes) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    paths = [path for path in (damaged / "checkpoints/0").glob(pattern) if path.is_file()]
    assert paths
    for path in paths:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_variables(damaged, CONFIG, data_mesh())
    message = str(caught.value)
    del caught
    gc.collect()
    assert message.startswith(f"{damaged / 'checkpoints/0'} must be an undamaged checkpoint, got: ")
    assert message.endswith(". Delete this folder to use the checkpoint before it.")
    assert len(message.splitlines()) == 1


def flip_a_bit(run: Path, step: int) -> None:
    """Flips a bit of the last weights, which lie in the middle of Orbax's largest file."""
    files = (run / "checkpoints" / str(step) / "state").rglob("d/*")
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.fixture
def uncompressed(tmp_path: Path) -> tuple[Path, TrainState]:
    """A run of three steps. Its weights are noise, which TensorStore cannot compress and does not check."""
    noise = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    states = [TrainState(jnp.int32(step), {"w": jnp.asarray(noise + step)}, {}, {}) for step in (1, 2, 3)]
    with Checkpoints(tmp_path / "run", CONFIG) as checkpoints:
        for state in states:
            checkpoints.save(state)
            checkpoints.record(int(state.step), 0.5)
    return tmp_path / "run", states[-1]


def test_a_stopped_state_is_saved_as_the_state_before_it(uncompressed: tuple[Path, TrainState]) -> None:
    run, like = uncompressed
    stopped = dataclasses.replace(like, step=jnp.int32(4), stopped=jnp.ones((), bool))
    with Checkpoints(run, CONFIG) as checkpoints:
        checkpoints.save(stopped)
        checkpoints.wait()
        restored = checkpoints.restore(4, like)
    assert not restored.stopped
    assert restored.stopped.sharding == like.stopped.sharding  # otherwise the step would be compiled again
    saved = json.loads((run / "checkpoints/4/meta/metadata").read_text())["sha256"]
    assert saved.keys() == {"step", "params.w"}  # as in runs from before `stopped` existed


def test_a_flipped_bit_is_found(uncompressed: tuple[Path, TrainState]) -> None:
    run, like = uncompressed
    flip_a_bit(run, 3)
    with Checkpoints(run, CONFIG) as checkpoints, pytest.raises(InputError) as caught:
        checkpoints.restore(3, like)
    assert str(caught.value) == (
        f"{run / 'checkpoints/3'} must be an undamaged checkpoint, got: other bytes than were saved in 1 arrays: "
        "params.w. Delete this folder to use the checkpoint before it."
    )


def test_damaged_steps_are_moved_aside_and_the_one_before_is_used(
    uncompressed: tuple[Path, TrainState], caplog: pytest.LogCaptureFixture
) -> None:
    run, like = uncompressed
    flip_a_bit(run, 3)
    with Checkpoints(run, CONFIG) as checkpoints:
        assert int(checkpoints.resume(like).step) == 2
        assert checkpoints.latest_step == 2
        checkpoints.save(like)  # the damaged step can be saved again
        checkpoints.wait()
        assert int(checkpoints.resume(like).step) == 3
        assert len(caplog.messages) == 1
        assert caplog.messages[0].endswith(
            "in 1 arrays: params.w. It was moved to 3.damaged. Training uses the remaining checkpoints."
        )
        flip_a_bit(run, 3)
        assert int(checkpoints.resume(like).step) == 2
    assert "moved to 3.damaged1. " in caplog.messages[1]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1", "2", "3.damaged", "3.damaged1"]


def test_best_checkpoint_that_is_damaged_makes_way_for_the_next(uncompressed: tuple[Path, TrainState]) -> None:
    run, like = uncompressed
    flip_a_bit(run, 1)
    with Checkpoints(run, CONFIG) as checkpoints:
        assert checkpoints.best_step == 1
        found = checkpoints.best_variables({"params": like.params, "batch_stats": {}})
    assert found is not None
    assert found[0] == 2


def test_damaged_checkpoint_is_not_averaged(
    uncompressed: tuple[Path, TrainState], caplog: pytest.LogCaptureFixture
) -> None:
    run, like = uncompressed
    flip_a_bit(run, 2)
    with Checkpoints(run, dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(average=2))) as checkpoints:
        assert checkpoints.best_steps == [1, 2]
        found = checkpoints.best_variables({"params": like.params, "batch_stats": {}})
    assert found is not None
    np.testing.assert_allclose(
        found[1]["params"]["w"], like.params["w"] - 1, rtol=1e-6, atol=1e-6
    )  # mean of steps 1 and 3
    assert "checkpoints/2 must be an undamaged checkpoint" in caplog.messages[0]


def test_run_without_a_whole_checkpoint_does_not_begin_anew_in_silence(
    uncompressed: tuple[Path, TrainState], caplog: pytest.LogCaptureFixture
) -> None:
    run, like = uncompressed
    for step in (1, 2, 3):
        flip_a_bit(run, step)
    with Checkpoints(run, CONFIG) as checkpoints:
        for num_told in (3, 3):
            with pytest.raises(
                InputError, match=r"checkpoints must hold an undamaged checkpoint, got only damaged ones: .*"
            ):
                checkpoints.resume(like)
            assert len(caplog.messages) == num_told


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), OSError(13, "Permission denied")],
)
def test_what_the_machine_lacks_is_no_damage(
    uncompressed: tuple[Path, TrainState], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run, like = uncompressed

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.restore", fail)
    expected = InputError if isinstance(error, OSError) else type(error)
    with Checkpoints(run, CONFIG) as checkpoints, pytest.raises(expected) as caught:
        checkpoints.resume(like)
    if expected is InputError:
        told = "must be readable, got: Permission denied. Correct this and try again."
        assert str(caught.value) == f"{run / 'checkpoints/3'} {told}"
    assert saved_steps(run) == [1, 2, 3]


def test_process_that_cannot_see_a_checkpoint_does_not_damage_it(
    uncompressed: tuple[Path, TrainState], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, like = uncompressed
    monkeypatch.setattr("ds2_jax.runs.checkpoints.exchange", lambda name, value: [value, "it is not there."])
    with Checkpoints(run, CONFIG) as checkpoints, pytest.raises(InputError) as caught:
        checkpoints.resume(like)
    told = (
        "must be readable in every process, got an error in process 1: it is not there. "
        "Let all processes read the same folder."
    )
    assert str(caught.value) == f"{run} {told}"
    assert saved_steps(run) == [1, 2, 3]


def test_metadata_that_was_changed_is_damage(uncompressed: tuple[Path, TrainState]) -> None:
    run, like = uncompressed
    path = run / "checkpoints/3/meta/metadata"
    path.write_text(path.read_text().replace('"utterances": null', '"utterances": "an"'))
    with Checkpoints(run, CONFIG) as checkpoints:
        assert int(checkpoints.resume(like).step) == 2


def test_checkpoint_without_sums_is_read(uncompressed: tuple[Path, TrainState]) -> None:
    run, like = uncompressed
    path = run / "checkpoints/3/meta/metadata"
    meta = json.loads(path.read_text())
    del meta["sha256"], meta["sha256_of_this"]  # as in older runs
    path.write_text(json.dumps(meta))
    with Checkpoints(run, CONFIG) as checkpoints:
        assert_equal(jax.device_get(checkpoints.restore(3, like)), jax.device_get(like))


def test_what_a_crash_left_is_deleted(uncompressed: tuple[Path, TrainState]) -> None:
    run, _ = uncompressed
    for name in ("4.orbax-checkpoint-tmp", "0.deleting"):
        (run / "checkpoints" / name).mkdir()
    with Checkpoints(run, CONFIG) as checkpoints:
        checkpoints.tidy()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1", "2", "3"]


def test_stray_folder_is_moved_aside(uncompressed: tuple[Path, TrainState], caplog: pytest.LogCaptureFixture) -> None:
    run, like = uncompressed
    (run / "checkpoints/99").mkdir()
    with Checkpoints(run, CONFIG) as checkpoints:
        assert int(checkpoints.resume(like).step) == 3
    assert (
        "checkpoints/99 must be an undamaged checkpoint, got: No such file or directory. It was moved to 99."
        in caplog.messages[0]
    )


def test_error_while_closing_does_not_hide_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.AsyncCheckpointer.close", fail)
    with pytest.raises(KeyError, match="first"), Checkpoints(tmp_path, CONFIG):
        raise KeyError("first")
    full = r"must have room for a checkpoint, got: No space left on device\. Free space"
    with pytest.raises(InputError, match=full), Checkpoints(tmp_path, CONFIG):
        pass


SAVES_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.config import Config
from ds2_jax.system.errors import InputError
from ds2_jax.runs.run_folder import saved_steps
from ds2_jax.model.update import TrainState

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails as on a full disk
noise = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)  # cannot be compressed
with Checkpoints(Path(sys.argv[1]), Config()) as checkpoints:
    for step in (1, 2):
        try:
            checkpoints.save(TrainState(np.array(step, np.int32), {"w": noise}, {}, {}))
            checkpoints.wait()
            print("saved", step)
        except InputError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
"""


def test_full_disk_is_named_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SAVES_ON_A_FULL_DISK, str(tmp_path)],
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = result.stdout.splitlines()
    assert lines[0] == "saved 1", result.stderr
    assert f"{tmp_path / 'checkpoints'} must have room for a checkpoint, got: " in lines[1], result.stderr
    assert "Free space (or raise the file size limit) and run the same command" in lines[1]
    assert result.returncode == 0, result.stderr
    with Checkpoints(tmp_path, Config()) as checkpoints:
        assert checkpoints.latest_step == checkpoints.best_step == 1
        empty = TrainState(jnp.int32(0), {"w": np.zeros(100_000, np.float32)}, {}, {})
        restored = checkpoints.restore(1, empty)
    expected = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    np.testing.assert_array_equal(restored.params["w"], expected)


TRAINS_ON_A_FULL_DISK = """
import resource, runpy, signal, sys

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
sys.argv[0] = "main.py"
runpy.run_path("main.py", run_name="__main__")
"""


NOTHING_ELSE_WRITES = {"PYTHONDONTWRITEBYTECODE": "1", "JAX_ENABLE_COMPILATION_CACHE": "0"}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3_000, 20_000])
def test_full_disk_ends_training_with_one_line(tmp_path: Path, limit: int) -> None:
    (tmp_path / "small.py").write_text("from tests.small_runs import SMALL_CONFIG as config\n")
    manifest = write_noise_manifest(tmp_path / "data")
    words = ["--config", tmp_path / "small.py", "--workdir", tmp_path / "run", "--data.train", manifest]
    result = subprocess.run(
        [sys.executable, "-c", TRAINS_ON_A_FULL_DISK, str(limit), *map(str, words), "--data.dev", str(manifest)],
        cwd=ROOT,
        env=os.environ | NOTHING_ELSE_WRITES | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,  # the limit does not apply to pipes
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert re.fullmatch(r"((train|dev|test|each epoch|model|epoch \S+): .*\n)+error: .*\n", result.stderr), (
        result.stderr
    )
    assert "must have room for a checkpoint, got: File too large. Free space" in result.stderr

"""States come back whole, or an error says why not."""

import dataclasses
import functools
import gc
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import CheckpointConfig, Config
from ds2_jax.config.settings import ENGLISH
from ds2_jax.model.update import TrainState
from ds2_jax.parallel.mesh import data_mesh, replicate
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints, load_variables
from ds2_jax.runs.run_folder import saved_steps
from ds2_jax.system.errors import InputError
from tests.small_runs import SMALL_CONFIG, some_state, write_noise_manifest, write_untrained_run

ROOT = Path(__file__).parents[2]

CONFIG = dataclasses.replace(SMALL_CONFIG, model=dataclasses.replace(SMALL_CONFIG.model, num_layers=1, hidden_size=4))


@pytest.fixture(scope="module")
def state() -> TrainState:
    return replicate(some_state(CONFIG), data_mesh())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("runs") / "run", CONFIG)


def at(state: TrainState, step: int) -> TrainState:
    """A state that its step tells from others."""
    params = jax.tree.map(lambda x: x + step, state.params)
    return dataclasses.replace(state, step=jnp.int32(step), params=params)


def assert_equal(actual: object, expected: object) -> None:
    assert repr(jax.tree.structure(actual)) == repr(jax.tree.structure(expected))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_state_comes_back_whole_and_on_its_devices(tmp_path: Path, state: TrainState) -> None:
    saved = at(state, 7)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(saved)
        checkpoints.wait()
        restored = checkpoints.restore(7, state)
    assert_equal(jax.device_get(restored), jax.device_get(saved))
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored.params)} == {8}


def test_weights_come_back_without_the_optimiser(tmp_path: Path, state: TrainState) -> None:
    like = {"params": state.params, "batch_stats": state.batch_stats}
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(at(state, 1))
        checkpoints.wait()
        restored = checkpoints.restore_variables(1, like)
    assert_equal(jax.device_get(restored), jax.device_get({**like, "params": at(state, 1).params}))


def test_best_and_latest_two_are_kept(tmp_path: Path, state: TrainState) -> None:
    rates = {1: 0.9, 2: 0.4, 3: 0.6, 4: 0.5, 5: 0.7}
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.latest_step is None
        assert checkpoints.best_step is None
        for step, rate in rates.items():
            checkpoints.save(at(state, step))
            checkpoints.record(step, rate)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.latest_step == 5
        assert checkpoints.best_step == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]


AVERAGED = dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(average=3))


@pytest.mark.parametrize(
    ("rates", "averaged", "kept"),
    [
        ((0.3, 0.9, 0.2, 0.5, 0.4, 0.6), [3, 1, 5], ["1", "3", "5", "6"]),
        ((None,) * 6, [6, 5, 4], ["4", "5", "6"]),
        ((0.3, 0.2), [2, 1], ["1", "2"]),
    ],
)
def test_best_epochs_are_kept_and_averaged(
    tmp_path: Path, state: TrainState, rates: Sequence[float | None], averaged: list[int], kept: list[str]
) -> None:
    run_folder.open_run(tmp_path, AVERAGED, overwrite=False)
    with Checkpoints(tmp_path, AVERAGED) as checkpoints:
        for step, rate in enumerate(rates, start=1):
            checkpoints.save(at(state, 100 * step))  # within an epoch
            checkpoints.save(at(state, step))
            checkpoints.record(step, rate)
            shutil.rmtree(tmp_path / f"checkpoints/{100 * step}")
        assert checkpoints.best_steps == averaged
        best = checkpoints.best_variables(state.variables)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept
    assert best is not None
    assert best[0] == averaged[0]
    expected = jax.tree.map(lambda x: x + np.float32(np.mean(averaged)), jax.device_get(state.params))
    for variables in (best[1], load_variables(tmp_path, AVERAGED, data_mesh())):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), variables["params"], expected)


def test_saves_within_an_epoch_are_not_averaged(tmp_path: Path, state: TrainState) -> None:
    with Checkpoints(tmp_path, AVERAGED) as checkpoints:
        checkpoints.save(at(state, 1))
        checkpoints.wait()
        assert checkpoints.best_steps == [1]  # better than nothing
        checkpoints.save(at(state, 2))
        checkpoints.record(2, None)
        checkpoints.save(at(state, 3))
        checkpoints.wait()
        assert checkpoints.best_steps == [2]


def test_moving_average_is_saved_and_used(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, ema_decay=0.9))
    start = some_state(config)
    average = jax.tree.map(lambda x: x + 1, start.average)
    state = replicate(dataclasses.replace(start, average=average), data_mesh())
    run = write_untrained_run(tmp_path / "run", config, state)
    with Checkpoints(run, config) as checkpoints:
        assert_equal(jax.device_get(checkpoints.restore(0, state)), jax.device_get(state))
    assert_equal(jax.device_get(load_variables(run, config, data_mesh())), jax.device_get(average))


def test_variables_of_a_run_are_its_best_and_it_can_be_moved(run: Path, tmp_path: Path, state: TrainState) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    variables = load_variables(moved, CONFIG, data_mesh())
    assert_equal(jax.device_get(variables["params"]), jax.device_get(state.params))


@pytest.mark.parametrize(
    ("section", "change", "listed"),
    [
        ("data", {"alphabet": "ab"}, f"data.alphabet: {ENGLISH!r} there, 'ab' here"),
        ("features", {"window": "hann"}, "features.window: 'hamming' there, 'hann' here"),
        (
            "model",
            {"num_layers": 2, "dropout": 0.5},
            "model.num_layers: 1 there, 2 here; model.dropout: 0.0 there, 0.5",
        ),
    ],
)
def test_checkpoint_of_other_settings_is_refused(run: Path, section: str, change: dict[str, Any], listed: str) -> None:
    other = dataclasses.replace(CONFIG, **{section: dataclasses.replace(getattr(CONFIG, section), **change)})
    with pytest.raises(InputError) as caught:
        load_variables(run, other, data_mesh())
    message = str(caught.value)
    assert message.startswith(f"{run / 'checkpoints/0'} must belong to the settings in config.json, got a checkpoint ")
    assert listed in message
    assert message.endswith(". Restore the run's own settings.")


def test_checkpoint_from_before_a_setting_was_there_is_read(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    path = old / "checkpoints/0/meta/metadata"
    meta = json.loads(path.read_text())
    assert meta["settings"]["features"].pop("normalisation") == "utterance"
    meta.pop("sha256_of_this")
    path.write_text(json.dumps(meta))
    load_variables(old, CONFIG, data_mesh())
    other = dataclasses.replace(CONFIG, features=dataclasses.replace(CONFIG.features, normalisation="bins"))
    with pytest.raises(InputError, match=r"features\.normalisation: None there, 'bins' here"):
        load_variables(old, other, data_mesh())


def disguised(run: Path, folder: Path, config: Config) -> Path:
    """A copy of a run whose checkpoint claims to be of another configuration."""
    shutil.copytree(run, folder)
    with Checkpoints(folder.parent / "none", config) as checkpoints:
        meta = json.dumps(checkpoints._meta)
    (folder / "checkpoints/0/meta/metadata").write_text(meta)
    return folder


@pytest.mark.parametrize(
    ("field", "value", "difference"),
    [
        ("hidden_size", 5, "batch_stats.head_norm.mean (4,), not (5,); "),
        ("num_layers", 2, "batch_stats.rnn_1.norm.mean missing, not (4,); "),
        ("bidirectional", False, "params.rnn_0.hidden_bias.1 (16,), not there; "),
        ("channels", (2, 3), "batch_stats.conv_norm_1.mean (2,), not (3,); "),
    ],
)
def test_checkpoint_of_another_size_is_refused(
    run: Path, tmp_path: Path, field: str, value: Any, difference: str
) -> None:
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, **{field: value}))
    folder = disguised(run, tmp_path / "run", config)
    with pytest.raises(InputError) as caught:
        load_variables(folder, config, data_mesh())
    message = str(caught.value)
    assert message.startswith(
        f"{folder / 'checkpoints/0'} must hold the arrays of this configuration, got other sizes: "
    )
    assert difference in message
    assert message.endswith(". Use the run's own configuration, or another checkpoint.")


def test_checkpoint_with_more_layers_is_refused(tmp_path: Path) -> None:
    two_layers = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, num_layers=2))
    run = disguised(write_untrained_run(tmp_path / "run", two_layers), tmp_path / "copy", CONFIG)
    with pytest.raises(
        InputError, match=r"got other sizes: .*batch_stats.rnn_1.norm.mean \(4,\), not there; .* more\. "
    ):
        load_variables(run, CONFIG, data_mesh())


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
# Orbax leaves the reads of the other arrays unfinished: errors that nobody catches, at the next garbage collection.
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
    assert message.startswith(f"{damaged / 'checkpoints/0'} must be a whole checkpoint, got: ")
    assert message.endswith(". Delete this folder to use the checkpoint before it.")
    assert len(message.splitlines()) == 1


def flip_a_bit(run: Path, step: int) -> None:
    """In the last of the weights, which Orbax stores last in its largest file."""
    files = (run / "checkpoints" / str(step) / "state").rglob("d/*")
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.fixture
def uncompressed(tmp_path: Path) -> tuple[Path, TrainState]:
    """A run of three steps whose weights are noise, which TensorStore cannot compress and does not check."""
    noise = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    states = [TrainState(jnp.int32(step), {"w": jnp.asarray(noise + step)}, {}, {}) for step in (1, 2, 3)]
    with Checkpoints(tmp_path / "run", CONFIG) as checkpoints:
        for state in states:
            checkpoints.save(state)
            checkpoints.record(int(state.step), 0.5)
    return tmp_path / "run", states[-1]


def test_a_flipped_bit_is_found(uncompressed: tuple[Path, TrainState]) -> None:
    run, like = uncompressed
    flip_a_bit(run, 3)
    with Checkpoints(run, CONFIG) as checkpoints, pytest.raises(InputError) as caught:
        checkpoints.restore(3, like)
    assert str(caught.value) == (
        f"{run / 'checkpoints/3'} must be a whole checkpoint, got: other bytes than were saved in 1 arrays: params.w. "
        "Delete this folder to use the checkpoint before it."
    )


def test_damaged_steps_are_moved_aside_and_the_one_before_is_used(
    uncompressed: tuple[Path, TrainState], caplog: pytest.LogCaptureFixture
) -> None:
    run, like = uncompressed
    flip_a_bit(run, 3)
    with Checkpoints(run, CONFIG) as checkpoints:
        assert int(checkpoints.resume(like).step) == 2
        assert checkpoints.latest_step == 2
        checkpoints.save(like)  # the step that was damaged can be saved anew
        checkpoints.wait()
        assert int(checkpoints.resume(like).step) == 3
        assert len(caplog.messages) == 1
        assert caplog.messages[0].endswith(
            "in 1 arrays: params.w. It is moved to 3.damaged; the checkpoint before it is used."
        )
        flip_a_bit(run, 3)
        assert int(checkpoints.resume(like).step) == 2
    assert "moved to 3.damaged1;" in caplog.messages[1]
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
    np.testing.assert_allclose(found[1]["params"]["w"], like.params["w"] - 1, rtol=1e-6, atol=1e-6)  # of 1 and 3
    assert "checkpoints/2 must be a whole checkpoint" in caplog.messages[0]


def test_run_without_a_whole_checkpoint_does_not_begin_anew_in_silence(
    uncompressed: tuple[Path, TrainState], caplog: pytest.LogCaptureFixture
) -> None:
    run, like = uncompressed
    for step in (1, 2, 3):
        flip_a_bit(run, step)
    with Checkpoints(run, CONFIG) as checkpoints:
        for num_told in (3, 3):
            with pytest.raises(
                InputError, match=r"checkpoints must hold a whole checkpoint, got only damaged ones: .*"
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
        told = "must be readable, got: Permission denied. Mend that and run the same command again."
        assert str(caught.value) == f"{run / 'checkpoints/3'} {told}"
    assert saved_steps(run) == [1, 2, 3]


def test_process_that_cannot_see_a_checkpoint_does_not_damage_it(
    uncompressed: tuple[Path, TrainState], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, like = uncompressed
    monkeypatch.setattr("ds2_jax.runs.checkpoints.exchange", lambda name, value: [value, "it is not there."])
    with Checkpoints(run, CONFIG) as checkpoints, pytest.raises(InputError) as caught:
        checkpoints.resume(like)
    told = "must be whole for every process, got in process 1: it is not there. Let all processes read the same folder."
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
    del meta["sha256"], meta["sha256_of_this"]  # as older runs
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
        "checkpoints/99 must be a whole checkpoint, got: No such file or directory. It is moved to 99."
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


def test_run_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} must hold a checkpoint, got none. Train it: "):
        load_variables(tmp_path, CONFIG, data_mesh())
    assert not any(tmp_path.iterdir())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path} must hold a checkpoint, got none yet. Wait for the first epoch"):
        load_variables(tmp_path, CONFIG, data_mesh())


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
    assert "Free space (or lift the file size limit) and run the same command" in lines[1]
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
        capture_output=True,  # through pipes, which the limit does not bind
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert re.fullmatch(r"((train|dev|test|each epoch|model|epoch \S+): .*\n)+error: .*\n", result.stderr), (
        result.stderr
    )
    assert "must have room for a checkpoint, got: File too large. Free space" in result.stderr

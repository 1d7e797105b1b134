"""The folder of a run is opened, continued, refused or overwritten."""

import dataclasses
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ds2_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, to_json
from ds2_jax.runs.run_folder import ADDED_LATER, best_step, load_config, locked, open_run, prospects, stamp
from ds2_jax.system.errors import InputError

CONFIG = Config(
    data=DataConfig(root=Path("/data"), train=Path("/data/train.jsonl")), model=ModelConfig(channels=(4, 8))
)


def test_settings_are_kept(tmp_path: Path) -> None:
    open_run(tmp_path / "runs/one", CONFIG, overwrite=False)
    assert load_config(tmp_path / "runs/one") == CONFIG


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG, overwrite=False)
    assert load_config(tmp_path) == CONFIG


def test_same_settings_leave_the_run_as_it_is(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG, overwrite=False)
    (tmp_path / "kept").touch()
    open_run(tmp_path, CONFIG, overwrite=False)
    assert (tmp_path / "kept").exists()


def open_trained(folder: Path) -> None:
    """Opens a run and gives it a checkpoint, so that it has something to lose."""
    open_run(folder, CONFIG, overwrite=False)
    (folder / "checkpoints/7").mkdir(parents=True)


def test_run_without_a_checkpoint_takes_other_settings(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG, overwrite=False)
    (tmp_path / "checkpoints/7.orbax-checkpoint-tmp").mkdir(parents=True)  # an interrupted save
    other = dataclasses.replace(CONFIG, epochs=3)
    open_run(tmp_path, other, overwrite=False)
    assert load_config(tmp_path) == other


def test_other_settings_are_listed(tmp_path: Path) -> None:
    open_trained(tmp_path)
    other = dataclasses.replace(CONFIG, epochs=3, model=dataclasses.replace(CONFIG.model, channels=(4, 9)))
    with pytest.raises(InputError) as caught:
        open_run(tmp_path, other, overwrite=False)
    assert str(caught.value) == (
        f"{tmp_path} must be continued with its own settings, got others:\n"
        "  epochs: 70 in the run, 3 now\n"
        "  model.channels: [4, 8] in the run, [4, 9] now\n"
        "Give another --workdir, or --overwrite to delete that run and start anew."
    )
    assert load_config(tmp_path) == CONFIG


@pytest.mark.parametrize("field", ["root", "archive", "train", "test", "num_workers", "on_bad_utterance"])
def test_places_may_change_and_are_kept(tmp_path: Path, field: str) -> None:
    open_trained(tmp_path)
    place: dict[str, Any] = {field: {"num_workers": 3, "on_bad_utterance": "skip"}.get(field, tmp_path)}
    moved = dataclasses.replace(CONFIG, parallel="pmap", data=dataclasses.replace(CONFIG.data, **place))
    open_run(tmp_path, moved, overwrite=False)
    assert load_config(tmp_path) == moved


def test_overwrite_deletes_the_run_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    open_trained(folder)
    (folder / "skipped_train.jsonl").touch()
    (folder / "calibration.json").touch()
    (folder / "notes.txt").touch()
    other = dataclasses.replace(CONFIG, epochs=3)
    open_run(folder, other, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "notes.txt"]
    assert load_config(folder) == other


def test_overwrite_spares_a_folder_with_settings_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "metrics.jsonl").write_text("years of work")
    with pytest.raises(InputError, match=r"config\.json: model_type must be a known setting"):
        open_run(tmp_path, CONFIG, overwrite=True)
    assert (tmp_path / "metrics.jsonl").read_text() == "years of work"


@pytest.mark.parametrize("text", [b"{", b"\0" * 9, b'{"epochs": 3}'])
def test_overwrite_replaces_a_run_whose_settings_are_damaged(tmp_path: Path, text: bytes) -> None:
    open_trained(tmp_path)
    (tmp_path / "checkpoints/7/meta").mkdir()
    (tmp_path / "checkpoints/7/meta/metadata").touch()
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        open_run(tmp_path, CONFIG, overwrite=False)
    open_run(tmp_path, CONFIG, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert load_config(tmp_path) == CONFIG


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"config\.json must be writable, got: Not a directory\. Free space, or"):
        open_run(tmp_path / "file/run", CONFIG, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_of_something_else_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError) as caught:
        open_run(tmp_path, CONFIG, overwrite)
    assert str(caught.value) == (
        f"--workdir must be empty or hold a run, got {tmp_path}, which has files but no config.json. "
        "Give another --workdir."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_exported_model_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(to_json(CONFIG))
    with pytest.raises(InputError, match=r"must be empty or hold a run, got \S+, which holds an exported or imported"):
        open_run(tmp_path, dataclasses.replace(CONFIG, epochs=3), overwrite)
    assert load_config(tmp_path) == CONFIG


def test_origin_of_weights_that_are_not_used_is_deleted(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG, overwrite=False)
    (tmp_path / "origin.json").touch()
    open_run(tmp_path, CONFIG, overwrite=False)
    assert not (tmp_path / "origin.json").exists()
    (tmp_path / "origin.json").touch()
    (tmp_path / "checkpoints/7/meta").mkdir(parents=True)
    (tmp_path / "checkpoints/7/meta/metadata").touch()
    open_run(tmp_path, CONFIG, overwrite=False)
    assert (tmp_path / "origin.json").exists()


def test_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(InputError, match=r"--workdir must be a folder, got .*file, which is a file"), locked(path):
        pass


def test_one_process_trains_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "runs/one"
    with locked(folder):
        with pytest.raises(InputError) as caught, locked(folder):
            pass
        with locked(tmp_path / "runs/two"):
            pass
    assert str(caught.value) == (
        f"{folder} must be trained by one command at a time, got a second one. "
        "Wait until the other ends, or give another --workdir."
    )
    with locked(folder):  # the lock is free again
        assert [path.name for path in folder.iterdir()] == ["lock"]


def test_relative_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = DataConfig(root=Path("data"), train=Path("a/train.jsonl"))
    open_run(Path("run"), Config(data=data), overwrite=False)
    kept = load_config(Path("run")).data
    assert (kept.root, kept.train, kept.dev) == (tmp_path / "data", tmp_path / "a/train.jsonl", None)


def test_field_that_is_missing_is_no_default(tmp_path: Path) -> None:
    tree = json.loads(to_json(CONFIG))
    del tree["model"]["rnn_type"], tree["augment"]
    (tmp_path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(
        InputError, match=r"config\.json: .* must have every field, got none of augment, model\.rnn_type\."
    ):
        load_config(tmp_path)


def test_run_from_before_a_setting_was_there_is_read(tmp_path: Path) -> None:
    tree = json.loads(to_json(CONFIG))
    for name in sorted(ADDED_LATER, reverse=True):  # the fields of a section before the section
        *section, field = name.split(".")
        (tree[section[0]] if section else tree).pop(field)
    (tmp_path / "config.json").write_text(json.dumps(tree))
    assert load_config(tmp_path) == CONFIG
    open_run(tmp_path, CONFIG, overwrite=False)


def test_settings_that_came_later_are_what_older_runs_did(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, augment=AugmentConfig(2, 20, 2, 20))
    tree = json.loads(to_json(config))
    tree["augment"] = {
        "num_frequency_masks": 2,
        "frequency_mask_width": 20,
        "num_time_masks": 2,
        "time_mask_width": 20,
    }
    (tmp_path / "config.json").write_text(json.dumps(tree))
    assert load_config(tmp_path) == config
    (tmp_path / "checkpoints/3").mkdir(parents=True)
    open_run(tmp_path, config, overwrite=False)  # continues
    other = dataclasses.replace(config, augment=AugmentConfig(2, 20, 2, 20, time_warp_frames=5))
    with pytest.raises(InputError, match=r"augment\.time_warp_frames: 0 in the run, 5 now"):
        open_run(tmp_path, other, overwrite=False)


@pytest.mark.parametrize("name", ["config.json.123.new", "lock", "lost+found"])
def test_folder_of_a_run_that_was_killed_at_once_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    open_run(tmp_path, Config(), overwrite=False)
    assert load_config(tmp_path).model == Config().model
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"config.json", name} - {"config.json.123.new"})


def test_stamp_is_that_of_one_folder(tmp_path: Path) -> None:
    assert stamp(tmp_path / "none") is None
    for name in ("a", "b"):
        open_run(tmp_path / name, Config(), overwrite=False)
    assert stamp(tmp_path / "a") == stamp(tmp_path / "a")
    assert stamp(tmp_path / "a") != stamp(tmp_path / "b")


def test_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    with locked(tmp_path):
        pass
    assert (
        capsys.readouterr().err
        == f"{tmp_path} cannot be locked (No locks available): make sure that no other process trains it\n"
    )


def test_prospects_name_the_last_whole_checkpoint(tmp_path: Path) -> None:
    assert prospects(tmp_path) == "the same command starts anew"
    for name in ("9", "10", "11.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert prospects(tmp_path) == "the same command continues after step 10"
    assert prospects(tmp_path, overwrite=True) == "the same command without --overwrite continues after step 10"


def test_folder_without_settings_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == (
        "RUN must be the folder of a training run, a folder or file that export wrote, or spelling, got "
        f"{tmp_path}, which has no config.json."
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "The configuration must be JSON"),
        (b"\xff", "codec can't decode"),
        (to_json(CONFIG).replace("lstm", "lsd").encode(), "model.rnn_type must be one of lstm, gru, rnn, got 'lsd'"),
        (to_json(CONFIG).replace("seed", "sead").encode(), "sead must be a known setting"),
    ],
)
def test_damaged_settings_are_named(tmp_path: Path, text: bytes, reason: str) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(InputError, match=f"config.json: .*{reason}"):
        load_config(tmp_path)


def write_metrics(run: Path, step: int, text: str) -> None:
    path = run / "checkpoints" / str(step) / "metrics/metrics"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_best_step_has_the_lowest_dev_wer_and_is_the_first_of_equals(tmp_path: Path) -> None:
    assert best_step(tmp_path) is None
    for step, wer in ((10, None), (20, None), (30, 0.5), (40, 0.25), (50, 0.25)):
        write_metrics(tmp_path, step, json.dumps({"dev_wer": wer, "step": step}))
        assert best_step(tmp_path) == min(step, 40)  # without a WER the last is the best
    (tmp_path / "checkpoints/60").mkdir()  # saved but not evaluated
    assert best_step(tmp_path) == 40


@pytest.mark.parametrize(
    "text",
    [
        '{"dev_wer"',
        "[]",
        "{}",
        '{"dev_wer": -1}',
        '{"dev_wer": NaN}',
        '{"dev_wer": []}',
        "[" * 9999,
        '{"dev_wer": 1' + "0" * 400 + "}",
    ],
)
def test_damaged_note_of_an_evaluation_is_named(tmp_path: Path, text: str) -> None:
    write_metrics(tmp_path, 9, text)
    with pytest.raises(
        InputError, match=r"checkpoints/9/metrics/metrics must hold the dev WER of its checkpoint, got: "
    ):
        best_step(tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["calibration.json", "metrics.jsonl", "checkpoints/7/meta/metadata"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_run_with_what_can_be_read_for_ever_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    open_run(tmp_path, CONFIG, overwrite=False)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    message = f"{tmp_path} must hold files and folders, got the pipe or device {path}. Delete it."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_config(tmp_path)

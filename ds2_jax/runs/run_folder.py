"""The folder of a run: it contains the configuration, checkpoints and results, and you can move it."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.config.places import absolute
from ds2_jax.system import locks
from ds2_jax.system.checks import require
from ds2_jax.system.errors import LONGEST_VALUE, InputError, advice_for, brief, shorten
from ds2_jax.system.files import write_text, writing

logger = logging.getLogger(__package__)

CONFIG = "config.json"
MAX_CONFIG = 4 * 2**20
"""Bytes of the settings. Even an alphabet of all characters is shorter."""
LOCK = "lock"
NOTHING = {LOCK, "lost+found"}
"""Names that the folder of a new run may contain; lost+found lies at the root of a file system."""
UNFINISHED = "*.json*.[0-9]*.new"
"""Files that a process leaves if it is killed while it replaces another file."""
CHECKPOINTS = "checkpoints"
GRAPHS = "onnx"
"""Folder of the graphs of the best weights for ONNX Runtime."""
WHOLE, STREAMING, WEIGHTS = "model.onnx", "streaming.onnx", "model.safetensors"
"""Files of an exported model: the graph of whole utterances, that of a step of a stream, and the weights."""
METRICS = "metrics/metrics"
"""File in the folder of a checkpoint: its step and dev WER, written after its evaluation."""
CALIBRATION = "calibration.json"
METRIC_LOG = "metrics.jsonl"
EVALUATIONS = "evaluations"
CONDITIONS = "conditions"
OLDER_TEST = "test.json"
"""The result of the test split in runs of older versions."""
TUNING = "tuning"
TUNED = "decoding.json"

ORIGIN = "origin.json"
"""What an imported model, or a run that began with other weights, was made of."""

CONTENTS = (
    *(CHECKPOINTS, GRAPHS, "tensorboard", EVALUATIONS, CONDITIONS, "profile", "replay", TUNING),
    *(METRIC_LOG, f"{OLDER_TEST}*", "skipped_*.jsonl"),
    *(CALIBRATION, TUNED, CONFIG, UNFINISHED, ORIGIN),
)
"""Files and folders that `overwrite` deletes. The user's own files stay."""

MAY_DIFFER = {
    *("data.root", "data.archive", "data.train", "data.dev", "data.test", "data.num_workers", "watchdog_minutes"),
}
"""Settings that may differ between the processes of one training run: file locations and limits of a host."""

PLACES = MAY_DIFFER | {
    *("data.on_bad_utterance", "parallel", "rematerialise", "checkpoint.every_steps", "checkpoint.every_minutes"),
}
"""Settings that may change when a run continues, because they do not change what is learned. Manifests may move but not
change: each checkpoint contains a digest of the utterances."""

ADDED_LATER = {
    *("features.edges", "features.symmetric_window", "features.scale", "init_from", "freeze", "optim.layer_decay"),
    *("features.normalisation", "features.num_mels", "features.prior_seconds"),
    *("data.case", "data.remove", "data.train_on_dev", "data.units", "perturb"),
    *("augment.frequency_mask_probability", "augment.time_mask_probability", "augment.time_mask_share"),
    *("augment.frames_per_time_mask", "augment.time_warp_frames", "augment.time_warp_probability"),
    *("optim.accumulate", "optim.ema_decay", "rematerialise", "watchdog_minutes"),
    *("checkpoint", "checkpoint.average"),
}
"""Settings that older runs lack. The defaults keep the behaviour from before these settings existed."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Makes the folder of a run if it is missing, and keeps other processes from training the run.

    Yields:
        A function that raises InputError if the folder is no longer the one that was locked. When a disk is unmounted,
        an empty folder remains in its place, and training would silently write there.

    Raises:
        InputError: another process trains the run, the folder is a file, or it cannot be written.
    """
    _check_is_folder(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    before = _identity(folder)

    def check() -> None:
        if _identity(folder) != before:
            raise InputError(
                f"{folder} must not be moved during training, got another folder or none at this path. "
                "Mount its disk again or move the folder back, then continue the training."
            )

    def refuse() -> None:
        raise InputError(
            f"{folder} must be trained by one command at a time, got a second one. "
            "Wait until the other ends, or give another --workdir."
        )

    def warn(reason: str) -> None:
        logger.warning(f"{folder} cannot be locked ({reason}): make sure that no other process trains it")

    with contextlib.ExitStack() as stack:
        with writing(folder / LOCK):
            stack.enter_context(locks.locked(folder / LOCK, on_taken=refuse, on_no_locks=warn))
        yield check


def open_run(folder: Path, config: Config, overwrite: bool) -> None:
    """Makes the folder of a run, or checks that it holds a run with the same settings. Saves the settings there.

    Paths are saved as absolute paths, because a later command may be called from another folder.

    Args:
        folder: folder of the run.
        config: all settings.
        overwrite: whether to delete the run in that folder.

    Raises:
        InputError: see `check_run`; or the folder cannot be written.
    """
    check_run(folder, config, overwrite)
    path = folder / CONFIG
    if path.exists() and overwrite:
        _delete(folder, CONTENTS)
    # A run that had begun with other weights, and saved none, may begin anew without them.
    _delete(folder, (UNFINISHED,) if _holds_checkpoints(folder) else (UNFINISHED, ORIGIN))
    data = config.data
    places: dict[str, Any] = {name: absolute(value) for name, value in vars(data).items() if isinstance(value, Path)}
    config = dataclasses.replace(config, data=dataclasses.replace(data, **places))
    write_text(path, config_lib.to_json(config) + "\n")


def check_run(folder: Path, config: Config, overwrite: bool) -> None:
    """Checks that `open_run` accepts the folder. Writes nothing.

    A run without a checkpoint may change its settings, because it has nothing to lose. Any run may get more epochs or
    another patience, which decide how long it trains.

    Raises:
        InputError: the folder is a file, holds a run with other or damaged settings, or holds files that are not a run.
    """
    _check_is_folder(folder)
    path = folder / CONFIG
    if folder.is_dir() and not path.exists() and _holds_something(folder):
        raise InputError(
            f"--workdir must be empty or hold a run, got {folder}, which has files but no {CONFIG}. "
            "Give another --workdir."
        )
    if is_exported(folder):
        got = f"{folder}, which holds an exported or imported model"
        raise InputError(f"--workdir must be empty or hold a run, got {got}. Give another --workdir.")
    if path.exists() and not (overwrite and _holds_checkpoints(folder)):  # then the settings may even be damaged
        old, new = (json.loads(config_lib.to_json(settings)) for settings in (load_config(folder), config))
        differing = [
            f"{field}: {brief(before)} in the run, {brief(now)} now"
            for field, (before, now) in differences(old, new).items()
            if field not in PLACES | {"patience"} and not (field == "epochs" and now > before)
        ]
        if differing and not overwrite and last_step(folder) is not None:
            raise InputError(
                f"{folder} must be continued with its own settings, got others:\n  " + "\n  ".join(differing) + "\n"
                "Give another --workdir, or --overwrite to delete that run and start anew."
            )


def common_settings(config: Config) -> dict[str, str]:
    """Lists the settings that all processes of one training run must share: each field with its value."""

    def fields(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from fields(value, f"{prefix}{name}.")
            elif prefix + name not in MAY_DIFFER:
                text = json.dumps(value)
                yield prefix + name, text if len(text) <= LONGEST_VALUE else hashlib.sha256(text.encode()).hexdigest()

    return dict(fields(json.loads(config_lib.to_json(config))))


def load_config(folder: Path) -> Config:
    """Reads the settings of the run in `folder`.

    Raises:
        InputError: the folder holds no run, its configuration is damaged or lacks a field, or it holds a pipe or a
            device.
    """
    path = folder / CONFIG
    if not path.is_file():
        got = f"{folder}, which has no {CONFIG}" if folder.is_dir() else f"{folder}, where there is nothing"
        raise InputError(
            f"RUN must be the folder of a training run, a folder or file that export wrote, or spelling, got {got}."
        )
    _check_plain(folder)
    check_length(path, path.stat().st_size)
    try:
        text = path.read_text(encoding="utf-8")
        config = config_lib.from_json(text)
        # A missing field would silently become the default, but the run may have been trained with another value.
        whole = json.loads(config_lib.to_json(config))
        if missing := ", ".join(name for name in _missing(json.loads(text), whole) if name not in ADDED_LATER):
            raise InputError(f"The configuration of a run must have every field, got none of {missing}. Restore it.")
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    return config


def check_length(path: Path, length: int) -> None:
    """Raises InputError if the settings in a file are so long that reading them would take much memory."""
    require(length <= MAX_CONFIG, str(path), f"hold settings of at most {MAX_CONFIG} bytes", length, "Restore it.")


def _check_plain(folder: Path) -> None:
    """Raises InputError for files that could be read for ever: a pipe without a writer, a link to a device."""
    for place, _, names in os.walk(folder):  # os.walk skips folders that another process deletes meanwhile
        for path in (Path(place, name) for name in names):
            with contextlib.suppress(OSError):  # a file that was deleted meanwhile, or a broken link
                if not stat.S_ISREG(path.stat().st_mode):
                    raise InputError(f"{folder} must hold files and folders, got the pipe or device {path}. Delete it.")


def is_exported(model: Path) -> bool:
    """Whether a model is a file or a folder that `export` wrote, and no run."""
    files = (model / WHOLE, model / WEIGHTS)
    return model.is_file() or (not (model / CHECKPOINTS).is_dir() and any(file.is_file() for file in files))


def saved_steps(folder: Path) -> list[int]:
    """Lists the steps of the checkpoints of the run in `folder`, in rising order."""
    return sorted(int(path.name) for path in (folder / CHECKPOINTS).glob("*") if path.name.isdecimal())


def last_step(folder: Path) -> int | None:
    """Returns the step of the newest checkpoint of the run in `folder`; None if there is none."""
    return max(saved_steps(folder), default=None)


def best_step(folder: Path) -> int | None:
    """Returns the step of the best checkpoint of the run in `folder`, without Orbax; None if there is none."""
    return next(iter(best_steps(folder, 1)), None)


def best_steps(folder: Path, count: int) -> list[int]:
    """Lists the steps of the best checkpoints of the run in `folder`, at most `count`, the best first.

    The best checkpoint has the lowest dev WER; the first wins ties. If no WER was measured, the best is the newest
    checkpoint saved at the end of an epoch. If no epoch has ended, it is the newest checkpoint.

    Raises:
        InputError: the file with a checkpoint's dev WER is damaged.
    """
    steps = saved_steps(folder)
    rates = {step: wer for step in steps if (wer := dev_wer(folder, step)) is not None}
    ends = [step for step in steps if (folder / CHECKPOINTS / str(step) / METRICS).exists()]
    ranked = sorted(rates, key=lambda step: (rates[step], step)) or (ends or steps)[::-1]
    return ranked[:count]


def dev_wer(folder: Path, step: int) -> float | None:
    """Reads the dev WER of a checkpoint; None if it was not evaluated or there was no dev split.

    Raises:
        InputError: the file with the dev WER is damaged.
    """
    path = folder / CHECKPOINTS / str(step) / METRICS
    try:
        wer = json.loads(path.read_text(encoding="utf-8"))["dev_wer"]
        if wer is None:
            return None
        if type(wer) in (int, float) and 0 <= wer < 2**53:
            return float(wer)
        raise ValueError(f"a WER of {shorten(repr(wer))}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        advice = advice_for(error, "Delete the file; the checkpoint then counts as not evaluated.")
        raise InputError(f"{path} must hold the dev WER of its checkpoint, got: {error}. {advice}") from error


def read_metric_log(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Reads metrics.jsonl of the run in `folder`.

    A last line without a newline is left out: the run was killed while it wrote that line.

    Returns:
        Each line and its metrics; an empty list if there is no file.

    Raises:
        InputError: a line is damaged.
    """
    path = folder / METRIC_LOG
    text = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(line, _metrics(line, f"{path}, line {number}")) for number, line in enumerate(lines, start=1)]


def _metrics(line: str, place: str) -> dict[str, Any]:
    try:
        metrics = json.loads(line)
        if not isinstance(metrics["step"], int):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{place} must be a JSON object with a step, got {line[:60]!r}. Delete the line.") from error
    seconds = metrics.get("wall_seconds", 0.0)
    right = type(seconds) in (int, float) and 0 <= seconds < 2**53
    require(right, f"{place}: wall_seconds", "be a number of seconds", seconds, "Delete the line.")
    return dict(metrics)


def prospects(folder: Path, overwrite: bool = False) -> str:
    """Describes how to continue after an interruption. With --overwrite the same command would delete the run."""
    step = last_step(folder)
    command = "the same command without --overwrite" if overwrite else "the same command"
    return "the same command starts anew" if step is None else f"{command} continues after step {step}"


def stamp(folder: Path) -> list[int] | None:
    """Returns time and size of the configuration, to compare whether processes share the folder; None without a run."""
    with contextlib.suppress(OSError):
        status = (folder / CONFIG).stat()
        return [status.st_mtime_ns, status.st_size]
    return None


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Finds the fields in which two trees of settings differ, each with its old and its new value."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in old | new:
        field, before, now = prefix + name, old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found |= differences(before, now, f"{field}.")
        elif before != now:
            found[field] = before, now
    return found


def was_done_before(field: str, before: Any, now: Any) -> bool:
    """Whether the older settings lack a field whose new value keeps the older behaviour."""
    if before is not None or field not in ADDED_LATER:
        return False
    default: Any = json.loads(config_lib.to_json(Config()))
    for name in field.split("."):
        default = default[name]
    return bool(now == default)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Returns the device and inode of a folder; None if it is missing or its disk does not answer."""
    with contextlib.suppress(OSError):
        status = folder.stat()
        return status.st_dev, status.st_ino
    return None


def _holds_something(folder: Path) -> bool:
    """Whether the folder holds more than the remains of a run that was killed at its start."""
    return any(not (path.name in NOTHING or path.match(UNFINISHED)) for path in folder.iterdir())


def _holds_checkpoints(folder: Path) -> bool:
    """Whether training saved a checkpoint in the folder, so that it is a run, whatever its settings look like."""
    return any((folder / CHECKPOINTS).glob("[0-9]*/meta/metadata"))


def _check_is_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir must be a folder, got {folder}, which is a file. Give another --workdir.")


def _missing(tree: dict[str, Any], whole: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in whole.items():
        if name not in tree:
            yield prefix + name
        elif isinstance(value, dict):
            yield from _missing(tree[name], value, f"{prefix}{name}.")


def _delete(folder: Path, patterns: Sequence[str]) -> None:
    with writing(folder):
        for path in (found for pattern in patterns for found in folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

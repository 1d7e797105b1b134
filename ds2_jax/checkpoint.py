"""Orbax checkpoints of a run: the latest two and the best by dev WER; resume, and weights alone."""

import functools
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint.checkpoint_managers import preservation_policy

from ds2_jax import config as config_lib
from ds2_jax.alphabet import Alphabet
from ds2_jax.config import Config
from ds2_jax.errors import InputError
from ds2_jax.run import CHECKPOINTS, CONFIG, differences, rank
from ds2_jax.steps import TrainState, make_model

NUM_EXAMPLES = 3
REASON_LENGTH = 300


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for the last save.

    Saving copies the arrays and writes in the background. A step is complete once its folder has its final name, so a
    crash while saving leaves the steps before it.

    Args:
        run: folder of the run.
        config: its settings; a checkpoint of another alphabet, other features or another model is refused.
        utterances: digest of what it is trained and chosen on; the state of others is refused. None takes any.

    Raises:
        InputError: a checkpoint is not whole.
    """

    def __init__(self, run: Path, config: Config, utterances: str | None = None) -> None:
        _quieten()
        self._folder = (run / CHECKPOINTS).absolute()
        tree = json.loads(config_lib.to_json(config))
        settings = {"data": {"alphabet": config.data.alphabet}, "features": tree["features"], "model": tree["model"]}
        self._meta: dict[str, Any] = {"settings": settings, "utterances": utterances}
        for step in self._folder.glob("*"):
            if step.name.isdecimal():
                _read_meta(step)  # Orbax would fail on any that is not whole, whichever is wanted
        best = preservation_policy.BestN(get_metric_fn=rank, reverse=True, n=1)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(2), best]),
            best_fn=rank,  # without it Orbax does not write the metrics
            best_mode="min",
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_names=("state", "meta"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._manager.close()
        except Exception as failure:
            if error is None:  # it came first
                raise self._write_error(failure) from failure

    def save(self, state: TrainState, dev_wer: float | None) -> None:
        """Begins to save a state under its step; `dev_wer` is None where it was not measured.

        Raises:
            InputError: this save, or the one before it, could not be written.
        """
        step = int(state.step)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(vars(state)),
                    meta=ocp.args.JsonSave(self._meta),
                ),
                metrics={"dev_wer": dev_wer, "step": step},
            )
        except Exception as error:  # TensorStore's have no common class
            raise self._write_error(error) from error

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
            InputError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._write_error(error) from error

    def _write_error(self, error: Exception) -> InputError:
        reason = _reason(error)
        full = re.search("no space|too large|quota", reason, re.IGNORECASE)
        rule = "have room for a checkpoint" if full else "take a checkpoint"
        advice = "Free space (or lift the file size limit)" if full else "Mend that"
        return InputError(
            f"{self._folder} must {rule}, got: {reason}. "
            f"{advice} and run the same command; it continues from the last whole one."
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; None without any."""
        step: int | None = self._manager.latest_step()
        return step

    @property
    def best_step(self) -> int | None:
        """Step with the lowest dev WER, the first of equals; without any dev WER the last; None without steps."""
        step: int | None = self._manager.best_step()
        return step

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved at `step`, on the devices of `like`.

        Raises:
            InputError: it was saved with other settings, other sizes or other utterances, or cannot be read.
        """
        return TrainState(**self._restore(step, vars(like), partial=False))

    def restore_variables(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Weights and batch statistics alone, on the devices of `like` (params, batch_stats); errors as `restore`."""
        return self._restore(step, dict(like), partial=True)

    def _restore(self, step: int, like: dict[str, Any], partial: bool) -> dict[str, Any]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
        state = ocp.args.PyTreeRestore(item=abstract, restore_args=arguments, partial_restore=partial)
        folder = self._folder / str(step)
        self._check_meta(folder, same_utterances=not partial)
        # A manager keeps one handler for each item, and saving has taken it: read with a fresh one.
        with ocp.CheckpointManager(self._folder, item_names=("state", "meta")) as reader:
            try:
                # Checked here: a partial restore leaves out, in silence, what only one side has.
                stored = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
                if differing := _shape_differences({name: stored[name] for name in like}, like):
                    raise InputError(
                        f"{folder} must hold the arrays of this configuration, got other sizes: {differing}. "
                        "Use the run's own configuration, or another checkpoint."
                    )
                restored: dict[str, Any] = dict(reader.restore(step, args=ocp.args.Composite(state=state)).state)
            except InputError:
                raise
            except Exception as error:  # TensorStore's have no common class
                raise _damaged(folder, error) from error
        return restored

    def _check_meta(self, folder: Path, same_utterances: bool) -> None:
        meta = _read_meta(folder)
        if differing := differences(meta["settings"], self._meta["settings"]):
            listed = "; ".join(f"{field}: {there!r} there, {here!r} here" for field, (there, here) in differing.items())
            raise InputError(
                f"{folder} must belong to the settings in {CONFIG}, got a checkpoint of others: {listed}. "
                "Restore the run's own settings."
            )
        if same_utterances and self._meta["utterances"] not in (None, meta["utterances"]):
            raise InputError(
                f"{self._folder.parent} must go on with the utterances it began with, got others: a manifest "
                "of train or dev has changed, or files of it came or went. Restore them, or start anew with "
                "another --workdir or --overwrite."
            )


def _read_meta(folder: Path) -> dict[str, Any]:
    """What was saved beside the arrays of a step: its settings and the digest of its utterances."""
    try:
        meta, metrics = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in ("meta/metadata", "metrics/metrics")
        )
        rank(metrics)
        return {name: meta[name] for name in ("settings", "utterances")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> InputError:
    return InputError(
        f"{folder} must be a whole checkpoint, got: {_reason(error)}. "
        "Delete this folder to use the checkpoint before it."
    )


def _reason(error: Exception) -> str:
    """The end of an error's text: Orbax and TensorStore put a long account of the attempt before it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if found := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(found[1]))
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__} {lines[-1][-REASON_LENGTH:]}".strip()


@functools.cache
def _quieten() -> None:
    """Silences what Orbax prints about a failure that it raises as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine 'async_serialize", RuntimeWarning)
    tell = sys.unraisablehook

    def tell_others(event: "sys.UnraisableHookArgs") -> None:
        if str(event.exc_value) != "Event loop is closed":  # of a write that ends after another one has failed
            tell(event)

    sys.unraisablehook = tell_others


def _shape_differences(stored: Any, wanted: Any) -> str:
    """The first arrays that only one side has, or that differ in shape; "" where there are none."""
    here, there = (
        {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (wanted, stored))
    )
    names = [name for name in sorted(here | there) if here.get(name) != there.get(name)]
    listed = [f"{name} {there.get(name, 'missing')}, not {here.get(name, 'there')}" for name in names[:NUM_EXAMPLES]]
    return "; ".join(listed) + (f"; and {len(names) - NUM_EXAMPLES} more" if len(names) > NUM_EXAMPLES else "")


def load_variables(run: Path, config: Config, mesh: Mesh) -> dict[str, Any]:
    """Weights and batch statistics of a run's best checkpoint, on every device of `mesh`.

    Raises:
        InputError: the run has no checkpoint, or one of another alphabet or size.
    """
    num_labels = Alphabet(config.data.alphabet).size
    shapes = jax.eval_shape(
        make_model(config, num_labels).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 8, config.features.num_bins), "float32"),
        jax.ShapeDtypeStruct((1,), "int32"),
    )
    everywhere = NamedSharding(mesh, PartitionSpec())
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
    if not (run / CHECKPOINTS).is_dir():
        raise InputError(f"{run} must hold a checkpoint, got none. Train it: python main.py --workdir {run} ...")
    with Checkpoints(run, config) as checkpoints:
        step = checkpoints.best_step
        if step is None:
            raise InputError(f"{run} must hold a checkpoint, got none yet. Wait for the first epoch to end.")
        return checkpoints.restore_variables(step, like)

"""Orbax checkpoints of a run: saves and resumes states, and reads the weights of one, or averaged over several."""

import contextlib
import functools
import json
import logging
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.model.inference import init_variables
from ds2_jax.model.update import TrainState
from ds2_jax.parallel.processes import barrier, broadcast_from_primary, exchange, is_primary
from ds2_jax.runs import older_runs, run_folder
from ds2_jax.runs.checksums import checksums, named_leaves
from ds2_jax.runs.damage import (
    DAMAGED,
    DamagedCheckpointError,
    check_sums,
    move_aside,
    read_error,
    read_meta,
    reason_of,
    with_sum,
)
from ds2_jax.runs.run_folder import CHECKPOINTS, CONFIG, METRICS, differences, was_done_before
from ds2_jax.system.errors import InputError, brief
from ds2_jax.system.files import write_text, writing
from ds2_jax.system.program import command
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

NUM_EXAMPLES = 3
DELETING = ".deleting"
LEFTOVERS = (f"*{DELETING}", "*.orbax-checkpoint-tmp*")

Result = TypeVar("Result")


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for the last save.

    The folder contains the latest two steps and the best steps by dev WER. All processes of a training run call every
    method together, and all of them must see the folder.

    Saving copies the arrays and writes in the background. A checkpoint is complete once its folder has its final name,
    so a crash while saving leaves the earlier checkpoints intact. The SHA-256 of every array is saved and compared when
    the array is read, because Orbax restores a flipped bit without an error.

    Args:
        run: folder of the run.
        config: settings of the run; a checkpoint of another alphabet, other features or another model is refused.
        utterances: digest of the train and dev splits; a state of other utterances is refused. None accepts any.
        test: digest of the test split; None if there is none. A run without a test split may get one later.
    """

    def __init__(self, run: Path, config: Config, utterances: str | None = None, test: str | None = None) -> None:
        _quieten()
        self._run = run.absolute()
        tree = json.loads(config_lib.to_json(config))
        labels = {name: tree["data"][name] for name in ("alphabet", "units")}
        settings = {"data": labels, "features": tree["features"], "model": tree["model"]}
        self._meta: dict[str, Any] = {"settings": settings, "utterances": utterances, "test": test}
        self._num_averaged, self._keeps_average = config.checkpoint.average, config.optim.ema_decay > 0
        self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
        except Exception as failure:  # TensorStore's errors have no common class
            if error is None:  # an earlier error matters more
                raise self._write_error(failure) from failure

    def save(self, state: TrainState) -> None:
        """Waits for the previous save, then begins to save a state under its step.

        Raises:
            InputError: this save or the previous one could not be written.
        """
        self.wait()
        step = int(state.step)
        if step in self._steps():  # the state was restored and has not changed
            return
        tree = _tree(state)
        meta = self._meta | {"sha256": checksums(tree) if is_primary() else {}}  # only process 0 writes them
        arguments = ocp.args.Composite(state=ocp.args.PyTreeSave(tree), meta=ocp.args.JsonSave(with_sum(meta)))
        try:
            self._folder(step).parent.mkdir(parents=True, exist_ok=True)
            self._writer.save(self._folder(step), args=arguments)
        except Exception as error:
            raise self._write_error(error) from error

    def wait(self) -> None:
        """Waits until the last save is on disk, and deletes the checkpoints that are no longer needed.

        Raises:
            InputError: the state could not be written.
        """
        try:
            self._writer.wait_until_finished()
        except Exception as error:
            raise self._write_error(error) from error
        if is_primary():
            self._prune()

    def record(self, step: int, dev_wer: float | None) -> None:
        """Records that a saved state was evaluated; `dev_wer` is None if there is no dev split.

        Raises:
            InputError: the state could not be written.
        """
        self.wait()
        if is_primary():
            write_text(self._folder(step) / METRICS, json.dumps({"dev_wer": dev_wer, "step": step}))
            self._prune()
        barrier("recorded")

    def evaluated(self, step: int) -> bool:
        """Whether `record` was called for a step."""
        return bool(broadcast_from_primary("evaluated", (self._folder(step) / METRICS).exists()))

    def tidy(self) -> None:
        """Deletes the remains of saves and deletions that a crash interrupted. Only training may call it."""
        for pattern in LEFTOVERS if is_primary() else ():
            for path in (self._run / CHECKPOINTS).glob(pattern):
                shutil.rmtree(path)

    def _prune(self) -> None:
        """Deletes all checkpoints but `best_steps` and the latest two: the last one may turn out damaged."""
        steps = run_folder.saved_steps(self._run)
        with writing(self._run / CHECKPOINTS):
            for step in set(steps[:-2]) - set(run_folder.best_steps(self._run, self._num_averaged)):
                # Rename first: after a crash, a half-deleted checkpoint would look like a damaged one.
                shutil.rmtree(self._folder(step).rename(self._folder(step).with_suffix(DELETING)))

    def _write_error(self, error: Exception) -> InputError:
        reason = reason_of(error)
        full = re.search("no space|too large|quota", reason, re.IGNORECASE)
        rule = "have room for a checkpoint" if full else "be writable"
        advice = "Free space (or raise the file size limit)" if full else "Correct this"
        return InputError(
            f"{self._run / CHECKPOINTS} must {rule}, got: {reason}. "
            f"{advice} and run the same command without --overwrite; it continues from the last undamaged checkpoint."
        )

    def check_latest(self) -> None:
        """Checks that the newest undamaged checkpoint has the same settings and utterances. Writes nothing.

        Raises:
            InputError: it has others.
        """
        for step in reversed(run_folder.saved_steps(self._run)):
            with contextlib.suppress(DamagedCheckpointError):
                self._check_meta(self._folder(step), same_utterances=True)
                return

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; None if there is none."""
        return next(iter(self._latest()), None)

    @property
    def best_step(self) -> int | None:
        """Step of the best checkpoint (see `run_folder.best_steps`); None if there is none."""
        return next(iter(self.best_steps), None)

    @property
    def best_steps(self) -> list[int]:
        """Steps of the best `checkpoint.average` checkpoints, the best first."""
        found = run_folder.best_steps(self._run, self._num_averaged) if is_primary() else []
        steps: list[int] = broadcast_from_primary("best steps", found)
        return steps

    def _latest(self) -> list[int]:
        return self._steps()[-1:]

    def _steps(self) -> list[int]:
        steps: list[int] = broadcast_from_primary("steps", run_folder.saved_steps(self._run))
        return steps

    def resume(self, like: TrainState) -> TrainState:
        """Restores the newest undamaged state, on the devices of `like`.

        Args:
            like: a state with the same shapes. The method returns `like` if nothing was saved yet.

        Raises:
            InputError: see `restore`; or all checkpoints are damaged.
        """
        return self._first_whole(self._latest, lambda steps: self.restore(steps[0], like)) or like

    def best_variables(self, like: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Returns the step of the best undamaged checkpoint, and the mean of the variables over `best_steps`.

        Returns None if nothing is saved.

        Raises:
            InputError: see `resume`.
        """
        return self._first_whole(lambda: self.best_steps, lambda steps: (steps[0], self.mean_variables(steps, like)))

    def _first_whole(
        self, choose: Callable[[], Sequence[int]], read: Callable[[Sequence[int]], Result]
    ) -> Result | None:
        """Chooses steps and reads them. If a checkpoint is damaged, moves it aside and chooses again."""
        while steps := choose():
            found, finding, folder = None, "", self._folder(steps[0])
            try:
                found = read(steps)
            except DamagedCheckpointError as damage:
                finding, folder = damage.finding, damage.folder
            findings = exchange("findings", finding)
            if not any(findings):
                return found
            if not findings[0]:  # process 0, which wrote the checkpoint, can read it
                index, other = next((index, each) for index, each in enumerate(findings) if each)
                raise InputError(
                    f"{self._run} must be readable in every process, got an error in process {index}: {other} "
                    "Let all processes read the same folder."
                )
            if is_primary():
                aside = move_aside(folder)
                logger.warning(f"{finding} It was moved to {aside.name}. Training uses the remaining checkpoints.")
            barrier("moved aside")
        if damaged := [path.name for path in (self._run / CHECKPOINTS).glob(f"*{DAMAGED}*")]:
            raise InputError(
                f"{self._run / CHECKPOINTS} must hold an undamaged checkpoint, got only damaged ones: "
                f"{', '.join(damaged)}. Start anew with another --workdir, or with --overwrite."
            )
        return None

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Restores the state saved at `step`, on the devices of `like`.

        Raises:
            DamagedCheckpointError: the checkpoint cannot be read, or differs from what was saved.
            InputError: the state was saved with other settings, shapes or utterances.
        """
        restored = self._restore(step, _tree(like), partial=False)
        return TrainState(**restored, stopped=jnp.zeros((), bool, device=like.stopped.sharding))

    def restore_variables(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Restores only params and batch_stats, on the devices of `like`.

        With `optim.ema_decay` it restores their moving averages.

        Raises:
            InputError: see `restore`.
        """
        if not self._keeps_average:
            return self._restore(step, dict(like), partial=True)
        return dict(self._restore(step, {"average": dict(like)}, partial=True)["average"])

    def mean_variables(self, steps: Sequence[int], like: Mapping[str, Any]) -> dict[str, Any]:
        """Averages the variables of several steps, as read by `restore_variables`."""
        mean = self.restore_variables(steps[0], like)
        for count, step in enumerate(steps[1:], start=2):
            mean = _toward(self.restore_variables(step, like), mean, 1 / count)
        return mean

    def _restore(self, step: int, like: dict[str, Any], partial: bool) -> dict[str, Any]:
        abstract = saved = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        folder = self._folder(step)
        meta = self._check_meta(folder, same_utterances=not partial)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            try:
                # A partial restore silently skips arrays that are only in the file or only in `like`.
                stored = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
                if older := older_runs.holds_joined_directions(stored):
                    saved = older_runs.joined(abstract)
                if differing := _shape_differences({name: stored[name] for name in like}, saved):
                    raise InputError(
                        f"{folder} must hold the arrays of this configuration, got other sizes: {differing}. "
                        "Use the run's own configuration, or another checkpoint."
                    )
                arguments = ocp.checkpoint_utils.construct_restore_args(saved)
                state = ocp.args.PyTreeRestore(item=saved, restore_args=arguments, partial_restore=partial)
                restored: dict[str, Any] = dict(reader.restore(folder, args=ocp.args.Composite(state=state)).state)
            except (
                InputError,
                MemoryError,
                jax.errors.JaxRuntimeError,
            ):  # no damage: other settings, or the machine failed
                raise
            except Exception as error:  # TensorStore's errors have no common class
                raise read_error(folder, error) from error
        check_sums(folder, meta, restored)
        return older_runs.apart(restored, abstract) if older else restored

    def _check_meta(self, folder: Path, same_utterances: bool) -> dict[str, Any]:
        meta = read_meta(folder)
        found = differences(meta["settings"], self._meta["settings"])
        if differing := {field: pair for field, pair in found.items() if not was_done_before(field, *pair)}:
            listed = "; ".join(
                f"{field}: checkpoint {brief(there)}, configuration {brief(here)}"
                for field, (there, here) in differing.items()
            )
            raise InputError(
                f"{folder} must have the settings in {CONFIG}, got different ones: {listed}. "
                "Restore the run's own settings."
            )
        if not same_utterances or self._meta["utterances"] is None:
            return meta
        if self._meta["utterances"] != meta["utterances"]:
            raise InputError(
                f"{self._run} must continue with the utterances it began with, got others (the manifest "
                "of train or dev has changed, or files were added or removed). Restore them, or start anew with "
                "another --workdir, or with --overwrite."
            )
        if meta.get("test") not in (None, self._meta["test"]):  # older runs have none
            raise InputError(
                f"{self._run} must continue with the test split it began with, got another (the manifest of data.test "
                "has changed). Restore it, and evaluate others afterwards: "
                f"{command('evaluate', self._run, '--manifest')} FILE"
            )
        return meta

    def _folder(self, step: int) -> Path:
        return self._run / CHECKPOINTS / str(step)


_toward = jax.jit(optax.incremental_update)


def _tree(state: TrainState) -> dict[str, Any]:
    """Returns the parts of a state that are saved: `average` only if there is one, `stopped` never (it is false)."""
    left_out = {"stopped"} if state.average else {"stopped", "average"}
    return {name: value for name, value in vars(state).items() if name not in left_out}


@functools.cache
def _quieten() -> None:
    """Silences absl and asyncio, through which Orbax logs errors that it also raises."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine 'async_serialize", RuntimeWarning)
    tell = sys.unraisablehook

    def tell_others(event: "sys.UnraisableHookArgs") -> None:
        if str(event.exc_value) != "Event loop is closed":  # raised by a write that ends after another write failed
            tell(event)

    sys.unraisablehook = tell_others


def _shape_differences(stored: Any, wanted: Any) -> str:
    """Lists the first arrays that are only in the checkpoint, only in the configuration, or differ in shape."""
    here, there = ({name: tuple(leaf.shape) for name, leaf in named_leaves(tree).items()} for tree in (wanted, stored))
    names = [name for name in sorted(here | there) if here.get(name) != there.get(name)]
    listed = [
        f"{name}: checkpoint {there.get(name, 'none')}, configuration {here.get(name, 'none')}"
        for name in names[:NUM_EXAMPLES]
    ]
    return "; ".join(listed) + (f"; and {len(names) - NUM_EXAMPLES} more" if len(names) > NUM_EXAMPLES else "")


def load_variables(run: Path, config: Config, mesh: Mesh) -> dict[str, Any]:
    """Reads the variables of a run's best checkpoint, or their mean over the best ones, onto every device of `mesh`.

    Raises:
        InputError: the run has no checkpoint, or its checkpoint has another alphabet or other shapes.
    """
    num_labels = Alphabet.of(config.data).size
    shapes = jax.eval_shape(lambda: init_variables(config, num_labels))
    everywhere = NamedSharding(mesh, PartitionSpec())
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
    if not (run / CHECKPOINTS).is_dir():
        raise InputError(f"{run} must hold a checkpoint, got none. Train it: {command('--workdir', run)} ...")
    with Checkpoints(run, config) as checkpoints:
        steps = checkpoints.best_steps
        if not steps:
            raise InputError(f"{run} must hold a checkpoint, got none yet. Train until the first checkpoint is saved.")
        return checkpoints.mean_variables(steps, like)

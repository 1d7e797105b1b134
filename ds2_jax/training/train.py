"""The training loop: it connects the splits, the training step, saving, evaluation and logging."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ds2_jax.config import Config
from ds2_jax.data.epochs import Epochs
from ds2_jax.data.skipped import Skipped
from ds2_jax.data.splits import Split, digest
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.evaluation.account import account, print_and_write, tell_place
from ds2_jax.evaluation.calibrate import calibrate_model
from ds2_jax.evaluation.results import Evaluation
from ds2_jax.evaluation.split_outputs import evaluate_split
from ds2_jax.model import update as update_lib
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, init_state
from ds2_jax.parallel.mesh import TrainStep, data_mesh, parallel_train_step, replicate, row_layout
from ds2_jax.parallel.processes import barrier, broadcast_from_primary, check_same, exchange, is_primary
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training import start
from ds2_jax.training.profile import Profile
from ds2_jax.training.progress import MetricLog, Progress, dev_text
from ds2_jax.training.remaining import (
    check_start,
    checkpoints_of,
    describe_more_epochs,
    epochs_left,
    read_test,
    test_provenance,
    why_finished,
)
from ds2_jax.training.saving import Saver
from ds2_jax.training.splits import list_problems, make_stream, read_splits, with_units
from ds2_jax.training.statistics import with_statistics
from ds2_jax.training.updates import Updates
from ds2_jax.training.watch import RecompilationAlarm, alarms, disappointments, doubts
from ds2_jax.training.watchdog import Watchdog

logger = logging.getLogger(__package__)

SECONDS_TO_SHOW = 60.0
"""Time that a shared file system may take to show every host what one of them has written."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is open for training.

    Attributes:
        config: settings of the run.
        workdir: folder of the run.
        splits: the splits train, dev and test.
        epochs: batch plans of the training split.
        checkpoints: checkpoints of the run.
        check_place: raises InputError if the run's folder is gone.
    """

    config: Config
    workdir: Path
    splits: Mapping[str, Split]
    epochs: Epochs
    checkpoints: Checkpoints
    check_place: Callable[[], None]

    @functools.cached_property
    def skipped(self) -> Skipped | None:
        """List of the utterances that cannot be used; None if such an utterance stops training."""
        return Skipped(self.workdir / skipped_name()) if self.config.data.on_bad_utterance == "skip" else None


def train(config: Config, workdir: Path, overwrite: bool = False, profile: range | None = None) -> Evaluation | None:
    """Trains a run or continues it, then evaluates the test split once with the best checkpoint.

    If the run is finished, prints the stored test result, trains nothing and changes nothing in the folder.

    Args:
        config: settings of the run.
        workdir: folder of the run: config.json, checkpoints, metrics.jsonl, tensorboard, calibration.json, evaluations.
        overwrite: whether to delete the run in that folder first.
        profile: steps to record, counted from 1.

    Returns:
        The evaluation of the test split; None if there is no test split.

    Raises:
        InputError: settings, data or the run folder are wrong, a loss, gradient or weight is not finite, or a save
            fails.
        Stopped: a signal asked training to stop; the current step is finished and saved.
    """
    began = time.monotonic()
    config = with_units(config, workdir)
    splits = read_splits(config)  # before anything touches the run's folder
    epochs = Epochs(config, splits["train"])
    check_same(**run_folder.common_settings(config), data=digest(*splits.values()))
    with checkpoints_of(workdir, config, splits) as checkpoints:
        check_start(workdir, config, overwrite, checkpoints)
        if is_primary() and not overwrite and (told := describe_more_epochs(workdir, config, epochs.num_steps)):
            logger.info(told)
        if not overwrite and (reason := why_finished(config, checkpoints, epochs.num_steps)):
            logger.info(f"{workdir}: finished: {reason}")
            done, test = concluded(workdir, config, splits, epochs.num_steps)
            if done:
                return test
    prospects = functools.partial(run_folder.prospects, workdir, overwrite)
    with (
        opened(workdir, config, overwrite, splits) as check_place,
        interrupts.deferred(prospects, begun=False),
        checkpoints_of(workdir, config, splits) as checkpoints,
    ):
        checkpoints.tidy()
        return fit(Run(config, workdir, splits, epochs, checkpoints, check_place), profile, began)


def concluded(
    workdir: Path, config: Config, splits: Mapping[str, Split], num_steps: int
) -> tuple[bool, Evaluation | None]:
    """Prints the stored test result of a finished run. Writes nothing.

    Args:
        workdir: folder of the run.
        config: settings of the run.
        splits: the splits train, dev and test.
        num_steps: steps of an epoch.

    Returns:
        Whether the run needs no more work, and its test result, in the first process only.
    """
    done, test = False, None
    if is_primary():
        if not splits["test"].utterances:
            done = not splits["dev"].utterances or (workdir / run_folder.CALIBRATION).exists()
        elif found := read_test(workdir, config, splits["test"]):
            done, test = True, found[0]
            print(account(test, test_title(workdir, config, num_steps)))
            tell_place(found[1])
    return broadcast_from_primary("concluded", done), test


def test_title(workdir: Path, config: Config, num_steps: int) -> str:
    """Names the test split and the weights that are evaluated on it; `num_steps` are the steps of an epoch."""
    steps = run_folder.best_steps(workdir, config.checkpoint.average)
    return f"test, with {name_weights(config, [step // num_steps for step in steps])}"


def name_weights(config: Config, epochs: Sequence[int]) -> str:
    """Describes the weights that `Checkpoints.best_variables` returns.

    Args:
        config: settings of the run.
        epochs: epochs of the best checkpoints, counted from 1, the best first.
    """
    weights = "the moving average of the weights" if config.optim.ema_decay else "the weights"
    if len(epochs) == 1:
        return f"{weights} of epoch {epochs[0]}"
    return f"the mean over {weights} of epochs {', '.join(map(str, sorted(epochs)))}"


@contextlib.contextmanager
def opened(workdir: Path, config: Config, overwrite: bool, splits: Mapping[str, Split]) -> Iterator[Callable[[], None]]:
    """Locks and prepares the run's folder, in the first process only.

    Yields:
        A function that raises InputError if the run's folder is gone.

    Raises:
        InputError: the folder cannot be used, or another process does not see it.
    """
    with contextlib.ExitStack() as stack:
        check_place = nothing
        if is_primary():
            check_place = stack.enter_context(run_folder.locked(workdir))
            run_folder.open_run(workdir, config, overwrite)
            list_problems(splits, workdir)
        if not all(seen := exchange("folder seen", sees(workdir))):
            raise InputError(
                f"--workdir must be the same folder for all processes, got {workdir.absolute()}, which is different in "
                f"process {seen.index(False)}. Give a folder in a file system that all hosts share."
            )
        yield check_place


def sees(workdir: Path) -> bool:
    """Whether this process sees the folder that the first process has opened; waits up to `SECONDS_TO_SHOW`."""
    stamp = broadcast_from_primary("folder", run_folder.stamp(workdir))
    until = time.monotonic() + SECONDS_TO_SHOW
    while (found := run_folder.stamp(workdir)) != stamp and time.monotonic() < until:
        time.sleep(1)
    return bool(found == stamp)


def nothing() -> None:
    """Replaces the check of the run's folder in every process but the first."""


def fit(run: Run, profile: range | None, began: float) -> Evaluation | None:
    """Trains the remaining epochs, then calibrates on the dev split and evaluates the test split.

    Args:
        run: the run to train.
        profile: steps to record, counted from 1.
        began: `time.monotonic()` when this command began.

    Returns:
        The evaluation of the test split; None if there is no test split or no checkpoint.
    """
    config, checkpoints, epochs = run.config, run.checkpoints, run.epochs
    logger.info(f"each epoch: {epochs}")
    warn(doubts(config, epochs.num_steps))
    mesh = data_mesh()
    state, train_step = make_step(config, epochs.num_steps, mesh)
    model = TrainedModel(config, {}, mesh, run.workdir)  # each evaluation sets the weights
    state = checkpoints.resume(state)
    made = int(state.step)
    if made:
        logger.info(f"{run.workdir}: continuing after step {made}")
    elif config.init_from is not None:
        state = start.with_weights(state, config, mesh, run.workdir)
        start.tell_rates(model.with_variables(state.evaluated), run.splits["dev"], run.skipped)
    else:
        state = with_statistics(state, config, run.splits["train"], mesh)
    progress = Progress(config.features.sample_rate)
    saver = Saver(checkpoints, config.checkpoint, run.check_place)
    arguments = update_lib.step_arguments(config, epochs.num_steps)
    dev = Evaluation([], 0.0, 0)
    told: set[str] = set()
    with MetricLog(run.workdir, made, checkpoints.evaluated(made), began) as log:
        with (
            RecompilationAlarm(made, epochs.num_steps) as alarm,
            Profile(run.workdir, profile) as profiler,
            Watchdog(config.watchdog_minutes) as watchdog,
        ):
            updates = Updates(
                train_step=profiler.watch(alarm.watch(train_step), made),
                arguments=arguments,
                num_steps=epochs.num_steps,
                utterances=run.splits["train"].utterances,
                run=run.workdir,
                saver=saver,
                log=log,
                progress=progress,
                watchdog=watchdog,
            )
            for epoch in epochs_left(config, checkpoints, epochs.num_steps, made):
                state = updates.make(state, watched_batches(run, epoch, made, progress, log), epoch)
                check_epoch(state, epoch, progress)
                saver.save(state)  # before the evaluation, which may take long or fail
                summary, costs = progress.summary, progress.costs
                dev = evaluate_split(
                    model.with_variables(state.evaluated),
                    run.splits["dev"],
                    make_decoder(config),
                    title="dev",
                    on_problem=run.skipped,
                    on_result=lambda *_: watchdog.beat("evaluating the dev split"),
                )
                if dev.results:
                    check_finite(dev.rates["loss"], "dev loss", epoch)
                run.check_place()
                dev_rates = {f"dev_{name}": rate for name, rate in dev.rates.items()} if dev.results else {}
                step = int(state.step)
                learned = {"train_loss": progress.loss, "learning_rate": float(arguments(step - 1)["learning_rate"])}
                log.write(step, {"epoch": epoch + 1, **learned, **costs, **dev_rates})
                logger.info(f"epoch {epoch + 1}: loss {progress.loss:.2f}{dev_text(dev)}; {summary}")
                checkpoints.record(step, dev.words.rate if dev.results else None)
                found = alarms(log.epochs, dev)
                warn([line for kind, line in found.items() if kind not in told])
                told |= found.keys()
        test = conclude(run, model, state)
        warn(disappointments(test=test, dev=dev))
        if test is not None:
            log.write(int(state.step), {f"test_{name}": rate for name, rate in test.rates.items()})
        logger.info(f"{run.workdir}: {log.wall_seconds / 60:.1f} minutes of wall time, over all starts")
        return test


def warn(lines: Sequence[str]) -> None:
    """Logs warnings, in the first process only: they are the same in all."""
    for line in lines if is_primary() else ():
        logger.warning(line)


def make_step(config: Config, num_steps: int, mesh: Mesh) -> tuple[TrainState, TrainStep]:
    """Makes the state before the first update, on every device, and the compiled training step.

    Args:
        config: settings of the run.
        num_steps: steps of an epoch.
        mesh: the devices.
    """
    num_labels = Alphabet.of(config.data).size
    tx = make_optimizer(config, num_steps, num_steps * config.epochs)
    state = replicate(init_state(config, num_labels, tx), mesh)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    logger.info(f"model: {num_parameters:,} parameters on {mesh.size} x {jax.devices()[0].device_kind}")
    step = functools.partial(update_lib.train_step, config=config, num_labels=num_labels, tx=tx)
    return state, parallel_train_step(step, mesh, config.parallel)


def watched_batches(
    run: Run, epoch: int, made: int, progress: Progress, log: MetricLog
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the remaining batches of an epoch and shows the progress.

    Args:
        run: the run.
        epoch: counted from 0.
        made: updates made so far in the run.
        progress: shows the progress.
        log: has the metrics of the epoch's earlier steps.
    """
    num_steps = run.epochs.num_steps
    layout = row_layout(data_mesh(), run.config.optim.accumulate)
    plan = run.epochs.plan(epoch)[max(made - epoch * num_steps, 0) :]
    stream = make_stream(plan, run.splits["train"], run.config, layout, run.skipped, run.epochs.perturb(epoch))
    return progress.epoch(stream, f"epoch {epoch + 1}/{run.config.epochs}", num_steps, log.steps(epoch + 1))


def conclude(run: Run, model: TrainedModel, state: TrainState) -> Evaluation | None:
    """Calibrates the best weights on the dev split and evaluates the test split with them.

    Args:
        run: the trained run.
        model: the model that receives the best weights.
        state: any state of the run; checkpoints are restored with its shapes.

    Returns:
        The evaluation of the test split; None if there is no test split or no checkpoint.
    """
    best = run.checkpoints.best_variables(state.variables)
    if best is None:
        return None
    step, variables = best
    model = model.with_variables(variables)
    calibrate_model(model, run.splits["dev"], step, "dev", run.skipped)
    barrier("calibrated")  # every process reads the calibration when it decodes
    if not run.splits["test"].utterances:
        return None
    test = evaluate_split(model, run.splits["test"], model.decoder(), title="test", on_problem=run.skipped)
    if is_primary():
        provenance = test_provenance(run.workdir, run.config, run.splits["test"])
        title = test_title(run.workdir, run.config, run.epochs.num_steps)
        test = print_and_write(test, provenance, title, run.workdir / run_folder.EVALUATIONS)
    return test


def check_epoch(state: TrainState, epoch: int, progress: Progress) -> None:
    """Checks that an epoch has trained the model, before its last state is saved; `epoch` is counted from 0.

    Raises:
        InputError: no utterance could be read and aligned, or a weight is not finite.
    """
    if not progress.alignable:
        raise InputError(
            f"data.train must hold utterances that can be read and aligned, got none in epoch {epoch + 1}. "
            "See the run's skipped_while_reading*.jsonl for the reasons."
        )
    check_finite(float(_norm(state.variables)), "norm of the weights", epoch)


def check_finite(value: float, name: str, epoch: int) -> None:
    """Raises InputError if training has diverged, so that its weights are never chosen as the best."""
    if not np.isfinite(value):
        raise InputError(
            f"The {name} must be finite, got {value} after epoch {epoch + 1}. Start anew (--workdir or --overwrite) "
            "with a lower optim.learning_rate or optim.clip_norm."
        )


_norm = jax.jit(optax.tree.norm)


def skipped_name() -> str:
    """Returns the name of the file that lists the utterances that this process cannot use. Each process has its own."""
    return f"skipped_while_reading{'' if is_primary() else f'_{jax.process_index()}'}.jsonl"

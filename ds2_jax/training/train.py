"""The training loop: wiring only."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import optax

from ds2_jax.config import Config
from ds2_jax.corpora import split_manifests
from ds2_jax.data.epochs import Epochs
from ds2_jax.data.manifest import Problem, count_reasons, write_problems
from ds2_jax.data.pipeline import Perturb, batches
from ds2_jax.data.plan import Batch
from ds2_jax.data.skipped import Skipped
from ds2_jax.data.splits import Split, digest, read_split
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.evaluation.account import account
from ds2_jax.evaluation.calibrate import calibrate_model
from ds2_jax.evaluation.results import Evaluation, read_evaluation, write_evaluation
from ds2_jax.evaluation.split_outputs import evaluate_split
from ds2_jax.model import update as update_lib
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, init_state
from ds2_jax.parallel.mesh import data_mesh, parallel_train_step, replicate, row_layout
from ds2_jax.parallel.processes import barrier, broadcast_from_primary, check_same, exchange, is_primary
from ds2_jax.parallel.rows import RowLayout
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training.profile import Profile
from ds2_jax.training.progress import MetricLog, Progress
from ds2_jax.training.saving import Saver
from ds2_jax.training.updates import Updates
from ds2_jax.training.watch import RecompilationAlarm, Watchdog

logger = logging.getLogger(__package__)

SECONDS_TO_SHOW = 60.0
"""In which a shared file system shows to all hosts what one has written."""


def train(config: Config, workdir: Path, overwrite: bool = False, profile: range | None = None) -> Evaluation | None:
    """Trains, or goes on where the run stopped, then evaluates the test split once with the best checkpoint.

    A finished run only tells again what it found.

    Args:
        config: of the run.
        workdir: folder of the run: config.json, checkpoints, metrics.jsonl, tensorboard, calibration.json, test.json,
            test.jsonl.
        overwrite: deletes the run that is there.
        profile: steps to record, counted from 1.

    Returns:
        The evaluation of the test split; None without one.

    Raises:
        InputError: settings, data or the run folder are wrong, a loss is not finite, or a save fails.
        Stopped: asked to by a signal, after the step and a save.
    """
    began = time.monotonic()
    splits = read_splits(config)  # all of it before the run's folder is touched
    epochs = Epochs(config, splits["train"])
    prospects = functools.partial(run_folder.prospects, workdir, overwrite)
    utterances = digest(splits["train"], splits["dev"])
    check_same(**run_folder.common_settings(config), data=digest(*splits.values()))
    with (
        opened(workdir, config, overwrite, splits) as check_place,
        interrupts.deferred(prospects, begun=False),
        Checkpoints(workdir, config, utterances) as checkpoints,
    ):
        test = None
        if finished(config, workdir, checkpoints, epochs.num_steps) and is_primary():
            test = read_evaluation(workdir, "test")
        if not broadcast_from_primary("tested", test is not None):
            checkpoints.tidy()
            test = fit(config, workdir, splits, epochs, checkpoints, check_place, profile, began)
        best = [step // epochs.num_steps for step in checkpoints.best_steps]
    if test is not None and best and is_primary():
        print(account(test, f"test, with {name_weights(config, best)}", workdir / "test.jsonl"))
    return test


def name_weights(config: Config, epochs: Sequence[int]) -> str:
    """Says which weights `Checkpoints.best_variables` gives; `epochs` are counted from 1, the best first."""
    weights = "the moving average of the weights" if config.optim.ema_decay else "the weights"
    if len(epochs) == 1:
        return f"{weights} of epoch {epochs[0]}"
    return f"the mean over {weights} of epochs {', '.join(map(str, sorted(epochs)))}"


@contextlib.contextmanager
def opened(workdir: Path, config: Config, overwrite: bool, splits: Mapping[str, Split]) -> Iterator[Callable[[], None]]:
    """Locks and prepares the run's folder, in the first of several processes; yields as `run.locked`."""
    with contextlib.ExitStack() as stack:
        check_place = nothing
        if is_primary():
            check_place = stack.enter_context(run_folder.locked(workdir))
            run_folder.open_run(workdir, config, overwrite)
            list_problems(splits, workdir)
        if not all(seen := exchange("folder seen", sees(workdir))):
            raise InputError(
                f"--workdir must be one folder that all processes see, got {workdir.absolute()}, which is another in "
                f"process {seen.index(False)}. Give a folder of a file system that all hosts share."
            )
        yield check_place


def sees(workdir: Path) -> bool:
    """Whether this process sees the folder that the first has opened; file systems may take a while to show it."""
    stamp = broadcast_from_primary("folder", run_folder.stamp(workdir))
    until = time.monotonic() + SECONDS_TO_SHOW
    while (found := run_folder.stamp(workdir)) != stamp and time.monotonic() < until:
        time.sleep(1)
    return bool(found == stamp)


def nothing() -> None:
    """What the other processes check of the folder."""


def fit(
    config: Config,
    workdir: Path,
    splits: Mapping[str, Split],
    epochs: Epochs,
    checkpoints: Checkpoints,
    check_place: Callable[[], None],
    profile: range | None,
    began: float,
) -> Evaluation | None:
    """Trains the epochs that are left, then calibrates on the dev split and evaluates the test split.

    `began` is `time.monotonic()` when this start did; the other arguments are as of `train`.
    """
    alphabet = Alphabet.of(config.data)
    skipped = Skipped(workdir / skipped_name()) if config.data.on_bad_utterance == "skip" else None
    num_steps = epochs.num_steps
    logger.info(f"each epoch: {epochs}")
    mesh = data_mesh()
    layout = row_layout(mesh, config.optim.accumulate)
    tx = make_optimizer(config.optim, num_steps, num_steps * config.epochs)
    state = replicate(init_state(config, alphabet.size, tx), mesh)
    step = functools.partial(update_lib.train_step, config=config, num_labels=alphabet.size, tx=tx)
    train_step = parallel_train_step(step, mesh, config.parallel)
    model = TrainedModel(config, state.evaluated, mesh, workdir)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    logger.info(f"model: {num_parameters:,} parameters on {mesh.size} x {jax.devices()[0].device_kind}")
    state = checkpoints.resume(state)
    made = int(state.step)
    if made:
        logger.info(f"{workdir}: continuing after step {made}")

    progress = Progress(config.features.sample_rate)
    saver = Saver(checkpoints, config.checkpoint, check_place)
    with MetricLog(workdir, made, checkpoints.evaluated(made), began) as log:
        with (
            RecompilationAlarm(made, num_steps) as alarm,
            Profile(workdir, profile) as profiler,
            Watchdog(config.watchdog_minutes) as watchdog,
        ):
            updates = Updates(
                train_step=profiler.watch(alarm.watch(train_step), made),
                num_steps=num_steps,
                utterances=splits["train"].utterances,
                run=workdir,
                saver=saver,
                log=log,
                progress=progress,
                watchdog=watchdog,
            )
            for epoch in range(epochs_done(checkpoints, made, num_steps), config.epochs):
                if stops_early(config.patience, checkpoints.best_step, num_steps, epoch):
                    logger.info(f"no better dev WER for {config.patience} epochs: stopping")
                    break
                plan = epochs.plan(epoch)[max(made - epoch * num_steps, 0) :]
                stream = make_stream(plan, splits["train"], config, layout, skipped, epochs.perturb(epoch))
                title = f"epoch {epoch + 1}/{config.epochs}"
                watched = progress.epoch(stream, title, num_steps, log.steps(epoch + 1))
                state = updates.make(state, watched, epoch)
                check_epoch(state, epoch, progress)
                saver.save(state)  # before the evaluation, which may be long, or fail
                trained, metrics = progress.summary, {"epoch": epoch + 1, **progress.costs}
                dev = evaluate_split(
                    model.with_variables(state.evaluated),
                    splits["dev"],
                    make_decoder(config),
                    title="dev",
                    on_problem=skipped,
                    on_result=lambda *_: watchdog.beat("evaluating the dev split"),
                )
                if dev.results:
                    check_finite(dev.loss, "dev loss", epoch)
                    trained = f"{trained}; dev loss {dev.loss:.2f}, {dev}"
                    metrics |= {f"dev_{name}": value for name, value in dev.rates.items()}
                check_place()
                log.write(int(state.step), metrics)
                logger.info(f"epoch {epoch + 1}: {trained}")
                checkpoints.record(int(state.step), dev.words.rate if dev.results else None)
        best = checkpoints.best_variables(state.variables)
        test = None if best is None else conclude(model.with_variables(best[1]), splits, best[0], skipped)
        if test is not None:
            log.write(int(state.step), {f"test_{name}": rate for name, rate in test.rates.items()})
        logger.info(f"{workdir}: {log.wall_seconds / 60:.1f} minutes of wall time, over all starts")
        return test


def conclude(model: TrainedModel, splits: Mapping[str, Split], step: int, skipped: Skipped | None) -> Evaluation | None:
    """Calibrates the best weights, those of `step`, on the dev split, and evaluates the test split."""
    calibrate_model(model, splits["dev"], step, "dev", skipped)
    barrier("calibrated")  # decoding reads it
    if not splits["test"].utterances:
        return None
    test = evaluate_split(model, splits["test"], model.decoder(), title="test", on_problem=skipped)
    if is_primary():
        assert model.run is not None
        write_evaluation(model.run, "test", test)
    return test


def finished(config: Config, workdir: Path, checkpoints: Checkpoints, num_steps: int) -> bool:
    """Whether a run has nothing left to train; says so."""
    step = checkpoints.latest_step
    if step is None:
        return False
    done = epochs_done(checkpoints, step, num_steps)
    whole = step == done * num_steps  # no epoch was begun after the one at which training could stop
    over = done >= config.epochs or (whole and stops_early(config.patience, checkpoints.best_step, num_steps, done))
    if over:
        logger.info(f"{workdir}: finished: {done} of {config.epochs} epochs")
    return over


def epochs_done(checkpoints: Checkpoints, step: int, num_steps: int) -> int:
    """Epochs that are trained and evaluated after `step` updates, of which the last is a saved one."""
    done, since = divmod(step, num_steps)
    return done if since or checkpoints.evaluated(step) else max(done - 1, 0)


def read_splits(config: Config) -> dict[str, Split]:
    """The splits train, dev and test, checked; dev and test may be empty. Says what they are.

    Raises:
        InputError: there is no training manifest, or an utterance cannot be used and data.on_bad_utterance is "error".
    """
    manifests = split_manifests(config.data, build=True)
    if manifests.train is None:
        raise InputError("data.train must be set, got None. Give a manifest, or a data.corpus.")
    alphabet = Alphabet.of(config.data)
    splits = {}
    for name, path in manifests._asdict().items():
        splits[name] = split = read_split(path, config, alphabet, prune=name != "test")
        hours = sum(utterance.duration for utterance in split.utterances) / 3600
        logger.info(
            f"{name}: {path}, {len(split.utterances)} utterances, {hours:.2f} hours" if path else f"{name}: none"
        )
    return train_on_dev(splits) if config.data.train_on_dev else splits


def train_on_dev(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Moves the utterances of dev into train.

    Raises:
        InputError: there are none, or an id is in both.
    """
    train, dev = splits["train"], splits["dev"]
    if not dev.utterances:
        raise InputError("data.train_on_dev needs a dev split, got none. Give --data.dev, or leave it out.")
    if common := {utterance.id for utterance in train.utterances} & {utterance.id for utterance in dev.utterances}:
        raise InputError(
            f"data.train_on_dev needs train and dev without a common id, got {len(common)}, such as {min(common)}. "
            "Leave it out, or mend the manifests."
        )
    logger.info("data.train_on_dev: train has dev's utterances too; nothing is chosen by them")
    both = Split([*train.utterances, *dev.utterances], train.alphabet, [*train.problems, *dev.problems])
    return {**splits, "train": both, "dev": Split((), train.alphabet)}


def list_problems(splits: Mapping[str, Split], workdir: Path) -> None:
    """Says how many utterances are left out and lists them in the run's folder."""
    for name, split in splits.items():
        listed = workdir / f"skipped_{name}.jsonl"
        listed.unlink(missing_ok=True)  # of an earlier start
        if split.problems:
            write_problems(listed, split.problems)
            total = len(split.utterances) + len(split.problems)
            reasons = count_reasons(split.problems)
            logger.info(f"{name}: {len(split.problems)} of {total} utterances left out ({reasons}), listed in {listed}")


def make_stream(
    plan: Sequence[Batch],
    split: Split,
    config: Config,
    layout: RowLayout,
    skipped: Callable[[Problem], None] | None,
    perturb: Perturb | None = None,
) -> Iterable[dict[str, np.ndarray]]:
    """The arrays of a plan, `perturb` applied to the waveforms.

    `skipped` is told of bad audio, whose row is left empty. Without it bad audio stops.
    """
    return batches(
        plan,
        split,
        sample_rate=config.features.sample_rate,
        hop_length=config.features.hop_length,
        layout=layout,
        num_workers=config.data.num_workers,
        time_reduction=config.model.time_reduction,
        perturb=perturb,
        on_problem=skipped,
    )


def stops_early(patience: int, best_step: int | None, num_steps: int, epoch: int) -> bool:
    """Whether the best checkpoint lies `patience` epochs back; `epoch` is the next one, counted from 0."""
    return bool(patience) and best_step is not None and epoch - best_step // num_steps >= patience


def check_epoch(state: TrainState, epoch: int, progress: Progress) -> None:
    """Sees that an epoch has taught the model something, before its end is saved; `epoch` is counted from 0.

    Raises:
        InputError: no utterance could be read and aligned, or a weight is not finite.
    """
    if not progress.alignable:
        raise InputError(
            f"data.train must hold utterances that can be read and aligned, got none in epoch {epoch + 1}. "
            "The run's skipped_while_reading.jsonl says what is wrong with each."
        )
    check_finite(float(_norm(state.variables)), "norm of the weights", epoch)


def check_finite(value: float, name: str, epoch: int) -> None:
    """Raises InputError, before the weights of a diverged training can be chosen as the best."""
    if not np.isfinite(value):
        raise InputError(
            f"The {name} must be finite, got {value} after epoch {epoch + 1}. Start anew (--workdir or --overwrite) "
            "with a lower optim.learning_rate or optim.clip_norm."
        )


_norm = jax.jit(optax.tree.norm)


def skipped_name() -> str:
    """File of the utterances that this process cannot read; several write one each."""
    return f"skipped_while_reading{'' if is_primary() else f'_{jax.process_index()}'}.jsonl"

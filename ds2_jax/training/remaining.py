"""What remains to be trained: a start reads it before it changes the run's folder."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from ds2_jax.config import Config
from ds2_jax.corpora import split_manifests
from ds2_jax.data.splits import Split, digest
from ds2_jax.evaluation.provenance import Provenance
from ds2_jax.evaluation.results import Evaluation, read_evaluation
from ds2_jax.model.optimizer import learning_rate_schedule
from ds2_jax.parallel.processes import is_primary
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.runs.weights import weights_of
from ds2_jax.training import start

logger = logging.getLogger(__package__)


def checkpoints_of(workdir: Path, config: Config, splits: Mapping[str, Split]) -> Checkpoints:
    """Makes the checkpoints of a run, which accept no other utterances than those of `splits`."""
    test = splits["test"]
    return Checkpoints(
        workdir, config, digest(splits["train"], splits["dev"]), digest(test) if test.utterances else None
    )


def check_start(workdir: Path, config: Config, overwrite: bool, checkpoints: Checkpoints) -> None:
    """Checks that a run can be started or continued. Writes nothing.

    Raises:
        InputError: the folder cannot be used, its run has other settings or utterances, or a new run cannot begin with
            the weights of `init_from`.
    """
    if config.init_from is not None and (overwrite or run_folder.last_step(workdir) is None):
        start.check(config, workdir)
    if is_primary():
        run_folder.check_run(workdir, config, overwrite)
        if not overwrite:
            checkpoints.check_latest()


def describe_more_epochs(workdir: Path, config: Config, num_steps: int) -> str:
    """Says what happens to the learning rate of a run that gets more epochs; "" if it gets no more.

    The schedule is that of a run with the new number of epochs from the beginning. Call it before the settings of the
    run are replaced.

    Args:
        workdir: folder of the run.
        config: the new settings.
        num_steps: steps of an epoch.
    """
    step = run_folder.last_step(workdir)
    if step is None or config.epochs <= (before := run_folder.load_config(workdir).epochs):
        return ""
    old, new = (
        learning_rate_schedule(config.optim, num_steps, num_steps * epochs) for epochs in (before, config.epochs)
    )
    last = num_steps * config.epochs
    rates = (
        f"{float(new(step)):.3g} at the next step, {step + 1:,}, and {float(new(last - 1)):.3g} at the last, {last:,}"
    )
    told = "goes on as it was"
    if config.optim.schedule == "cosine":  # the only one that depends on the number of epochs
        was = float(old(min(step, num_steps * before - 1)))
        told = f"is now that of {config.epochs} epochs, where that of {before} had come to {was:.3g}"
    schedule = f"the {config.optim.schedule} schedule of the learning rate {told}"
    return f"{workdir}: {config.epochs} epochs instead of {before}; {schedule}: {rates}"


def why_finished(config: Config, checkpoints: Checkpoints, num_steps: int) -> str:
    """Says why a run has nothing left to train; "" if it has.

    Args:
        config: settings of the run.
        checkpoints: checkpoints of the run.
        num_steps: steps of an epoch.
    """
    step = checkpoints.latest_step
    if step is None:
        return ""
    done = epochs_done(checkpoints, step, num_steps)
    reason = f"{done} of {config.epochs} epochs"
    if done >= config.epochs:
        return reason
    whole = step == done * num_steps  # training has not begun another epoch
    if whole and stops_early(config.patience, checkpoints.best_step, num_steps, done):
        return f"{reason}, because {patience_reason(config)}"
    return ""


def epochs_left(config: Config, checkpoints: Checkpoints, num_steps: int, made: int) -> Iterator[int]:
    """Yields the epochs that remain after `made` updates, counted from 0, until training stops early."""
    for epoch in range(epochs_done(checkpoints, made, num_steps), config.epochs):
        if stops_early(config.patience, checkpoints.best_step, num_steps, epoch):
            logger.info(f"training stops after epoch {epoch}: {patience_reason(config)}")
            return
        yield epoch


def patience_reason(config: Config) -> str:
    """Says that the dev WER has not improved, and how to train on."""
    return (
        f"no epoch of the last {config.patience} had a better dev WER (raise --patience, or set it to 0, to train on)"
    )


def epochs_done(checkpoints: Checkpoints, step: int, num_steps: int) -> int:
    """Returns the number of epochs that are trained and evaluated after `step` updates.

    `step` must be the newest saved step.
    """
    done, since = divmod(step, num_steps)
    return done if since or checkpoints.evaluated(step) else max(done - 1, 0)


def stops_early(patience: int, best_step: int | None, num_steps: int, epoch: int) -> bool:
    """Whether the best checkpoint is `patience` epochs old; `epoch` is the next epoch, counted from 0."""
    return bool(patience) and best_step is not None and epoch - best_step // num_steps >= patience


def test_provenance(workdir: Path, config: Config, test: Split) -> Provenance:
    """Describes the evaluation of the test split with the best weights of a run."""
    manifest = split_manifests(config.data, build=False).test
    assert manifest is not None, "there is a test split"
    return Provenance.of(manifest, test, weights_of(workdir, config))


def read_test(workdir: Path, config: Config, test: Split) -> tuple[Evaluation, Path] | None:
    """Reads the evaluation of the test split that a finished run has written.

    Returns:
        The evaluation and the .jsonl file with all utterances; None if there is no such evaluation.

    Raises:
        InputError: the evaluation is damaged.
    """
    folder = workdir / run_folder.EVALUATIONS
    place = folder / f"{test_provenance(workdir, config, test).name}.jsonl"
    if (found := read_evaluation(folder, place.stem)) is not None:
        return found, place
    older = workdir / run_folder.OLDER_TEST
    # It is of these weights if it was written after the last step.
    if (found := read_evaluation(workdir, older.stem)) is not None and _tested_last(workdir):
        return found, older.with_suffix(".jsonl")
    return None


def _tested_last(workdir: Path) -> bool:
    log = run_folder.read_metric_log(workdir)
    return any("test_wer" in metrics and metrics["step"] == run_folder.last_step(workdir) for _, metrics in log[-1:])

"""The training loop: wiring only."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ds2_jax import interrupts, optim, parallel, steps
from ds2_jax import run as run_lib
from ds2_jax.alphabet import Alphabet
from ds2_jax.calibrate import calibrate_run
from ds2_jax.checkpoint import Checkpoints
from ds2_jax.config import Config
from ds2_jax.corpora import split_manifests
from ds2_jax.data.manifest import Problem, Utterance, count_reasons, write_problems
from ds2_jax.data.pipeline import Perturb, batches
from ds2_jax.data.plan import Batch
from ds2_jax.data.splits import Split, digest, read_split
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.epochs import Epochs
from ds2_jax.errors import InputError
from ds2_jax.evaluate import evaluate_utterances, make_eval_step, report
from ds2_jax.progress import MetricLog, Progress, Skipped, say
from ds2_jax.results import Evaluation, read_evaluation, write_evaluation
from ds2_jax.rows import RowLayout


def train(config: Config, workdir: Path, overwrite: bool = False) -> Evaluation | None:
    """Trains, or goes on where the run stopped, then evaluates the test split once with the best checkpoint.

    A finished run only tells again what it found.

    Args:
        config: of the run.
        workdir: folder of the run: config.json, checkpoints, metrics.jsonl, tensorboard, calibration.json, test.json,
            test.jsonl.
        overwrite: deletes the run that is there.

    Returns:
        The evaluation of the test split; None without one.

    Raises:
        InputError: settings, data or the run folder are wrong, a loss is not finite, or a save fails.
        KeyboardInterrupt: after Ctrl-C, when the step is made and a running save is on disk.
    """
    splits = read_splits(config)  # all of it before the run's folder is touched
    epochs = Epochs(config, splits["train"])
    with run_lib.locked(workdir), interrupts.deferred(functools.partial(run_lib.prospects, workdir)):
        run_lib.open_run(workdir, config, overwrite)
        list_problems(splits, workdir)
        with Checkpoints(workdir, config, digest(splits["train"], splits["dev"])) as checkpoints:
            num_epochs = (checkpoints.latest_step or 0) // epochs.num_steps
            finished = num_epochs >= config.epochs or stops_early(
                config.patience, checkpoints.best_step, epochs.num_steps, num_epochs
            )
            if finished:
                say(f"{workdir}: finished: {num_epochs} of {config.epochs} epochs")
            elif checkpoints.latest_step is not None:
                say(f"{workdir}: continuing after step {checkpoints.latest_step}")
            test = read_evaluation(workdir, "test") if finished else None
            test = test or fit(config, workdir, splits, epochs, checkpoints)
            best = checkpoints.best_step
    if test is not None and best is not None:
        print(report(test, f"test, with the weights of epoch {best // epochs.num_steps}", workdir / "test.jsonl"))
    return test


def fit(
    config: Config, workdir: Path, splits: Mapping[str, Split], epochs: Epochs, checkpoints: Checkpoints
) -> Evaluation | None:
    """Trains the epochs that are left, then calibrates on the dev split and evaluates the test split."""
    alphabet = Alphabet.of(config.data)
    skipped = Skipped(workdir / "skipped_while_reading.jsonl") if config.data.on_bad_utterance == "skip" else None
    num_steps = epochs.num_steps
    say(f"each epoch: {epochs}")
    mesh = parallel.data_mesh()
    layout = parallel.row_layout(mesh, config.optim.accumulate)
    tx = optim.make_optimizer(config.optim, num_steps, num_steps * config.epochs)
    state = parallel.replicate(steps.init_state(config, alphabet.size, tx), mesh)
    step = functools.partial(steps.train_step, config=config, num_labels=alphabet.size, tx=tx)
    train_step = parallel.parallel_train_step(step, mesh, config.parallel)
    eval_step = make_eval_step(config, mesh)
    evaluate = functools.partial(
        evaluate_utterances, eval_step, config=config, layout=parallel.row_layout(mesh), on_problem=skipped
    )
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    say(f"model: {num_parameters:,} parameters on {mesh.size} x {jax.devices()[0].device_kind}")
    if checkpoints.latest_step is not None:
        state = checkpoints.restore(checkpoints.latest_step, state)

    progress = Progress(config.features.sample_rate)
    with MetricLog(workdir, int(state.step)) as log:
        for epoch in range(int(state.step) // num_steps, config.epochs):
            if stops_early(config.patience, checkpoints.best_step, num_steps, epoch):
                say(f"no better dev WER for {config.patience} epochs: stopping")
                break
            plan = epochs.plan(epoch)[int(state.step) % num_steps :]
            stream = make_stream(plan, splits["train"], config, alphabet, layout, skipped, epochs.perturb(epoch))
            watched = progress.epoch(stream, f"epoch {epoch + 1}/{config.epochs}", len(plan))
            finish = functools.partial(
                finish_step, epoch=epoch, utterances=splits["train"].utterances, log=log, progress=progress
            )
            state = run_epoch(train_step, state, watched, epoch, finish)
            check_epoch(state, epoch, progress)
            trained = f"epoch {epoch + 1}: {progress.summary}"
            metrics = {"epoch": epoch + 1, **progress.costs}
            try:
                dev = evaluate(variables_of(state), splits["dev"], title="dev", decoder=make_decoder(config))
            except InputError:  # a recording of dev cannot be read: keep what was learned
                checkpoints.save(state, None)
                raise
            if dev.results:
                check_finite(dev.loss, "dev loss", epoch)
                metrics |= {f"dev_{name}": value for name, value in dev.rates.items()}
            log.write(int(state.step), metrics)
            say(f"{trained}; dev loss {dev.loss:.2f}, {dev}" if dev.results else trained)
            checkpoints.save(state, dev.words.rate if dev.results else None)
    checkpoints.wait()
    best = checkpoints.best_step
    if best is None:
        return None
    variables = checkpoints.restore_variables(best, variables_of(state))
    calibrate_run(workdir, eval_step, variables, splits["dev"], config, parallel.row_layout(mesh), best, "dev", skipped)
    if not splits["test"].utterances:
        return None
    test = evaluate(variables, splits["test"], title="test", decoder=make_decoder(config, workdir))
    write_evaluation(workdir, "test", test)
    return test


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
        say(f"{name}: {path}, {len(split.utterances)} utterances, {hours:.2f} hours" if path else f"{name}: none")
    return splits


def list_problems(splits: Mapping[str, Split], workdir: Path) -> None:
    """Says how many utterances are left out and lists them in the run's folder."""
    for name, split in splits.items():
        listed = workdir / f"skipped_{name}.jsonl"
        listed.unlink(missing_ok=True)  # of an earlier start
        if split.problems:
            write_problems(listed, split.problems)
            total = len(split.utterances) + len(split.problems)
            reasons = count_reasons(split.problems)
            say(f"{name}: {len(split.problems)} of {total} utterances left out ({reasons}), listed in {listed}")


def make_stream(
    plan: Sequence[Batch],
    split: Split,
    config: Config,
    alphabet: Alphabet,
    layout: RowLayout,
    skipped: Callable[[Problem], None] | None,
    perturb: Perturb | None = None,
) -> Iterable[dict[str, np.ndarray]]:
    """The arrays of a plan, `perturb` applied to the waveforms.

    `skipped` is told of bad audio, whose row is left empty. Without it bad audio stops.
    """
    return batches(
        plan,
        split.utterances,
        alphabet,
        sample_rate=config.features.sample_rate,
        hop_length=config.features.hop_length,
        label_width=max(len(alphabet.normalise(utterance.transcript)) for utterance in split.utterances),
        layout=layout,
        num_workers=config.data.num_workers,
        time_reduction=config.model.time_reduction,
        perturb=perturb,
        on_problem=skipped,
    )


def stops_early(patience: int, best_step: int | None, num_steps: int, epoch: int) -> bool:
    """Whether the best checkpoint lies `patience` epochs back; `epoch` is the next one, counted from 0."""
    return bool(patience) and best_step is not None and epoch - best_step // num_steps >= patience


def check_epoch(state: steps.TrainState, epoch: int, progress: Progress) -> None:
    """Sees that an epoch has taught the model something, before it is saved; `epoch` is counted from 0.

    Raises:
        InputError: no utterance could be read and aligned, or a weight is not finite.
    """
    if not progress.alignable:
        raise InputError(
            f"data.train must hold utterances that can be read and aligned, got none in epoch {epoch + 1}. "
            "The run's skipped_while_reading.jsonl says what is wrong with each."
        )
    check_finite(float(_norm(variables_of(state))), "norm of the weights", epoch)


def check_finite(value: float, name: str, epoch: int) -> None:
    """Raises InputError, before the weights of a diverged training replace better ones."""
    if not np.isfinite(value):
        raise InputError(
            f"The {name} must be finite, got {value} after epoch {epoch + 1}. Start anew (--workdir or --overwrite) "
            "with a lower optim.learning_rate or optim.clip_norm."
        )


_norm = jax.jit(optax.tree.norm)


def variables_of(state: steps.TrainState) -> dict[str, Any]:
    """What the model reads of a train state."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def run_epoch(
    train_step: Callable[..., Any],
    state: steps.TrainState,
    stream: Iterable[dict[str, np.ndarray]],
    epoch: int,
    finish: Callable[[int, Mapping[str, jax.Array], np.ndarray], None],
) -> steps.TrainState:
    """Makes the updates of an epoch.

    A step's metrics are fetched while the next step runs, so that the device never waits for the host.

    Args:
        train_step: compiled by `parallel.parallel_train_step`.
        state: before the epoch; its memory is reused.
        stream: batches.
        epoch: counted from 0.
        finish: gets the number of updates, the metrics and the utterances' indices of every step, a step late.
    """
    step = int(state.step)
    previous: tuple[int, Mapping[str, jax.Array], np.ndarray] | None = None
    for batch in stream:
        state, metrics = train_step(state, batch, jnp.int32(epoch))
        step += 1
        if previous is not None:
            finish(*previous)
        previous = step, metrics, batch["indices"]
        interrupts.check()
    if previous is not None:
        finish(*previous)
    return state


def finish_step(
    step: int,
    metrics: Mapping[str, jax.Array],
    indices: np.ndarray,
    *,
    epoch: int,
    utterances: Sequence[Utterance],
    log: MetricLog,
    progress: Progress,
) -> None:
    """Checks and logs a step's metrics.

    Raises:
        InputError: the loss or its gradient is not finite; names the step and the utterances of its batch.
    """
    values = {name: float(value) for name, value in metrics.items()}
    if not np.isfinite([values["loss"], values["grad_norm"]]).all():
        names = ", ".join(utterances[index].id for index in indices if index >= 0)
        raise InputError(
            f"The loss must be finite, got {values['loss']} (gradient norm {values['grad_norm']}) at step {step}, "
            f"epoch {epoch + 1}, utterances {names}. Listen to these recordings, or start anew (--workdir or "
            "--overwrite) with a lower optim.learning_rate or optim.clip_norm."
        )
    progress.step(values)
    log.write(step, {"epoch": epoch + 1, **values, "hours_per_hour": progress.speed})

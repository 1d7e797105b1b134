"""The training loop: wiring only."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ds2_jax import optim, parallel, steps
from ds2_jax import run as run_lib
from ds2_jax.alphabet import Alphabet
from ds2_jax.checkpoint import Checkpoints
from ds2_jax.config import Config
from ds2_jax.corpora import split_manifests
from ds2_jax.data import manifest as manifest_lib
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import Batch, plan_epoch, summarise
from ds2_jax.errors import InputError
from ds2_jax.evaluate import Evaluation, evaluate_utterances, make_eval_step, report, write_evaluation
from ds2_jax.progress import MetricLog, Progress, say


def train(config: Config, workdir: Path, overwrite: bool = False) -> Evaluation | None:
    """Trains, or goes on where the run stopped, then evaluates the test split once with the best checkpoint.

    Args:
        config: of the run.
        workdir: folder of the run: config.json, checkpoints, metrics.jsonl, tensorboard, test.json, test.jsonl.
        overwrite: deletes the run that is there.

    Returns:
        The evaluation of the test split; None without one.

    Raises:
        InputError: settings, data or the run folder are wrong, a loss is not finite, or a save fails.
    """
    alphabet = Alphabet(config.data.alphabet)
    splits = split_manifests(config.data)
    if splits.train is None:
        raise InputError("data.train must be set, got None. Give a manifest, or a data.corpus.")
    run_lib.open_run(workdir, config, overwrite)
    train_set = read_split(splits.train, config, alphabet, workdir)
    dev_set = read_split(splits.dev, config, alphabet, workdir) if splits.dev else []
    test_set = manifest_lib.read_manifest(splits.test) if splits.test else []

    plan_of = make_planner(config, train_set)
    num_steps = len(plan_of(0))  # of every epoch
    say(f"train: {len(train_set)} utterances; each epoch {describe_plan(plan_of(0), config, train_set)}")
    mesh = parallel.data_mesh()
    tx = optim.make_optimizer(config.optim, num_steps, num_steps * config.epochs)
    state = parallel.replicate(steps.init_state(config, alphabet.size, tx), mesh)
    step = functools.partial(steps.train_step, config=config, num_labels=alphabet.size, tx=tx)
    train_step = parallel.parallel_train_step(step, mesh, config.parallel)
    evaluate = functools.partial(
        evaluate_utterances, make_eval_step(config, mesh), config=config, num_devices=mesh.size
    )
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    say(f"model: {num_parameters:,} parameters on {mesh.size} x {jax.devices()[0].device_kind}")

    with Checkpoints(workdir, alphabet.characters) as checkpoints:
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(checkpoints.latest_step, state)
            say(f"{workdir}: continuing after step {int(state.step)}")
        progress = Progress(config.features.sample_rate)
        with MetricLog(workdir, int(state.step)) as log:
            for epoch in range(int(state.step) // num_steps, config.epochs):
                if stops_early(config.patience, checkpoints.best_step, num_steps, epoch):
                    say(f"no better dev WER for {config.patience} epochs: stopping")
                    break
                plan = plan_of(epoch)[int(state.step) % num_steps :]
                stream = make_stream(plan, train_set, config, alphabet, mesh.size, workdir)
                watched = progress.epoch(stream, f"epoch {epoch + 1}/{config.epochs}", len(plan))
                finish = functools.partial(finish_step, epoch=epoch, utterances=train_set, log=log, progress=progress)
                state = run_epoch(train_step, state, watched, epoch, finish)
                message, dev_wer = f"epoch {epoch + 1}: {progress.summary}", float(-epoch)  # without dev: the last
                metrics = {"epoch": epoch + 1, **progress.costs}
                if dev_set:
                    evaluation = evaluate(variables_of(state), dev_set, title="dev")
                    dev_wer = evaluation.words.rate
                    message += f"; dev loss {evaluation.loss:.2f}, {evaluation}"
                    metrics |= {f"dev_{name}": value for name, value in evaluation.rates.items()}
                log.write(int(state.step), metrics)
                say(message)
                checkpoints.save(state, dev_wer)
        checkpoints.wait()
        best = checkpoints.best_step
        if not test_set or best is None:
            return None
        evaluation = evaluate(checkpoints.restore_variables(best, variables_of(state)), test_set, title="test")
    path = write_evaluation(workdir, "test", evaluation)
    print(report(evaluation, f"test, with the weights of epoch {best // num_steps}", path))
    return evaluation


def read_split(path: Path, config: Config, alphabet: Alphabet, workdir: Path) -> list[Utterance]:
    """Reads and checks a manifest; what is left out is listed in the run folder.

    Raises:
        InputError: an utterance cannot be used and data.on_bad_utterance is "error", or none is left.
    """
    utterances = manifest_lib.read_manifest(path)
    problems = manifest_lib.check_utterances(
        utterances,
        alphabet,
        sample_rate=config.features.sample_rate,
        hop_length=config.features.hop_length,
        time_reduction=config.model.time_reduction,
        min_duration=config.data.min_duration,
        max_duration=config.data.max_duration,
    )
    on_bad = config.data.on_bad_utterance
    usable = manifest_lib.usable_utterances(utterances, problems, on_bad_utterance=on_bad, manifest=path)
    if problems:
        listed = workdir / f"skipped_{path.stem}.jsonl"
        manifest_lib.write_problems(listed, problems)
        reasons = manifest_lib.count_reasons(problems)
        say(f"{path}: {len(problems)} of {len(utterances)} utterances left out ({reasons}), listed in {listed}")
    return usable


def make_planner(config: Config, utterances: Sequence[Utterance]) -> Callable[[int], list[Batch]]:
    """The function from an epoch, counted from 0, to its batches; every epoch has the same number of them."""
    num_samples = np.array([utterance.num_samples(config.features.sample_rate) for utterance in utterances])

    def plan_of(epoch: int) -> list[Batch]:
        return plan_epoch(
            num_samples,
            batch_size=config.data.batch_size,
            batch_samples=math.ceil(config.data.batch_seconds * config.features.sample_rate),
            num_buckets=config.data.num_buckets,
            hop_length=config.features.hop_length,
            seed=config.seed,
            epoch=epoch,
            sortagrad=config.data.sortagrad,
        )

    return plan_of


def describe_plan(plan: Sequence[Batch], config: Config, utterances: Sequence[Utterance]) -> str:
    """Hours, batches, shapes, padding and empty rows of an epoch."""
    num_samples = np.array([utterance.num_samples(config.features.sample_rate) for utterance in utterances])
    hours = num_samples.sum() / config.features.sample_rate / 3600
    return f"{hours:.2f} hours, {summarise(plan, num_samples, hop_length=config.features.hop_length)}"


def make_stream(
    plan: Sequence[Batch],
    utterances: Sequence[Utterance],
    config: Config,
    alphabet: Alphabet,
    num_devices: int,
    workdir: Path,
) -> Iterable[dict[str, np.ndarray]]:
    """The arrays of a plan; with data.on_bad_utterance "skip", bad audio is named, listed and left empty."""

    def left_out(problem: Problem) -> None:
        say(f"left out: {problem.id} ({problem.reason}: {problem.detail})")
        with (workdir / "skipped_while_training.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(problem), ensure_ascii=False) + "\n")

    return batches(
        plan,
        utterances,
        alphabet,
        sample_rate=config.features.sample_rate,
        hop_length=config.features.hop_length,
        label_width=max(len(alphabet.normalise(utterance.transcript)) for utterance in utterances),
        row_multiple=num_devices,
        num_workers=config.data.num_workers,
        on_problem=left_out if config.data.on_bad_utterance == "skip" else None,
    )


def stops_early(patience: int, best_step: int | None, num_steps: int, epoch: int) -> bool:
    """Whether the best checkpoint lies `patience` epochs back; `epoch` is the next one, counted from 0."""
    return bool(patience) and best_step is not None and epoch - best_step // num_steps >= patience


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
            f"epoch {epoch + 1}, utterances {names}. Lower optim.learning_rate or optim.clip_norm, or listen to these "
            "recordings; the run continues from its last checkpoint."
        )
    progress.step(values)
    log.write(step, {"epoch": epoch + 1, **values, "hours_per_hour": progress.speed})

"""The training loop: wiring only."""

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from ds2_jax import optim, parallel, steps
from ds2_jax import run as run_lib
from ds2_jax.alphabet import Alphabet
from ds2_jax.checkpoint import Checkpoints
from ds2_jax.config import Config, require
from ds2_jax.corpora import split_manifests
from ds2_jax.data import manifest as manifest_lib
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import Batch, plan_epoch, summarise
from ds2_jax.errors import InputError
from ds2_jax.evaluate import Evaluation, evaluate_utterances, make_eval_step, write_evaluation


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
    require(splits.train is not None, "data.train", "be set", None, "Give a manifest, or a data.corpus.")
    run_lib.open_run(workdir, config, overwrite)
    train_set = read_split(splits.train, config, alphabet, workdir)
    dev_set = read_split(splits.dev, config, alphabet, workdir) if splits.dev else []
    test_set = manifest_lib.read_manifest(splits.test) if splits.test else []

    mesh = parallel.data_mesh()
    epochs = EpochPlans(config, train_set)
    print(f"train: {describe(train_set)}; each epoch {epochs.summary}", file=sys.stderr)
    schedule = optim.learning_rate_schedule(config.optim, epochs.num_steps, epochs.num_steps * config.epochs)
    tx = optim.make_optimizer(config.optim, schedule)
    state = parallel.replicate(steps.init_state(config, alphabet.size, tx), mesh)
    train_step = parallel.parallel_train_step(
        functools.partial(steps.train_step, config=config, num_labels=alphabet.size, tx=tx), mesh, config.parallel
    )
    eval_step = make_eval_step(config, mesh)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(f"model: {num_parameters:,} parameters on {mesh.size} x {jax.devices()[0].device_kind}", file=sys.stderr)

    with Checkpoints(workdir, alphabet.characters) as checkpoints, Log(workdir) as log:
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(checkpoints.latest_step, state)
            print(f"{workdir}: continuing after step {int(state.step)}", file=sys.stderr)
        log.cut(int(state.step))
        skips = config.data.on_bad_utterance == "skip"
        on_problem = functools.partial(record_problem, workdir) if skips else None
        for epoch in range(int(state.step) // epochs.num_steps, config.epochs):
            if stops_early(config, checkpoints, epochs.num_steps, epoch):
                print(f"no better dev WER for {config.patience} epochs: stopping", file=sys.stderr)
                break
            plan = epochs.plan(epoch)[int(state.step) % epochs.num_steps :]
            stream = batches(
                plan,
                train_set,
                alphabet,
                sample_rate=config.features.sample_rate,
                hop_length=config.features.hop_length,
                label_width=max(len(alphabet.normalise(utterance.transcript)) for utterance in train_set),
                row_multiple=mesh.size,
                num_workers=config.data.num_workers,
                on_problem=on_problem,
            )
            progress = Progress(f"epoch {epoch + 1}/{config.epochs}", plan, config.features.sample_rate)
            state = run_epoch(train_step, state, stream, epoch, schedule, train_set, log, progress)
            dev_wer = float(epoch)  # without a dev split the last epoch is the best
            if dev_set:
                variables = {"params": state.params, "batch_stats": state.batch_stats}
                evaluation = evaluate_utterances(eval_step, variables, dev_set, config, mesh.size, "dev")
                dev_wer = evaluation.words.rate
                log.write(int(state.step), {"epoch": epoch + 1, **flat("dev", evaluation.metrics)})
                print(f"epoch {epoch + 1}: {progress.summary}; dev loss {evaluation.loss:.2f}, {evaluation}", file=sys.stderr)
            checkpoints.save(state, dev_wer if dev_set else -dev_wer)
        checkpoints.wait()
        if not test_set:
            return None
        best = checkpoints.best_step
        assert best is not None
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        variables = checkpoints.restore_variables(best, variables)
        evaluation = evaluate_utterances(eval_step, variables, test_set, config, mesh.size, "test")
    path = write_evaluation(workdir, "test", evaluation)
    print(f"test, after epoch {best // epochs.num_steps}: {evaluation}")
    print(f"Utterance by utterance, worst first: {path}")
    return evaluation


class EpochPlans:
    """The batch plans of a run; every epoch has the same number of steps."""

    def __init__(self, config: Config, utterances: Sequence[Utterance]) -> None:
        self._config = config
        sample_rate = config.features.sample_rate
        self._num_samples = np.array([utterance.num_samples(sample_rate) for utterance in utterances])
        plan = self.plan(0)
        self.num_steps = len(plan)
        self.summary = summarise(plan, self._num_samples, hop_length=config.features.hop_length)

    def plan(self, epoch: int) -> list[Batch]:
        """The batches of an epoch, counted from 0."""
        config = self._config
        return plan_epoch(
            self._num_samples,
            batch_size=config.data.batch_size,
            num_buckets=config.data.num_buckets,
            hop_length=config.features.hop_length,
            seed=config.seed,
            epoch=epoch,
            sortagrad=config.data.sortagrad,
        )


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
    usable = manifest_lib.usable_utterances(
        utterances, problems, on_bad_utterance=config.data.on_bad_utterance, manifest=path
    )
    if problems:
        listed = workdir / f"skipped_{path.stem}.jsonl"
        manifest_lib.write_problems(listed, problems)
        reasons = manifest_lib.count_reasons(problems)
        print(f"{path}: {len(problems)} of {len(utterances)} left out ({reasons}), listed in {listed}", file=sys.stderr)
    return usable


def record_problem(workdir: Path, problem: Problem) -> None:
    """Names an utterance that became an empty row while training."""
    tqdm.write(f"left out: {problem.id} ({problem.reason}: {problem.detail})", file=sys.stderr)
    with (workdir / "skipped_while_training.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(problem.__dict__, ensure_ascii=False) + "\n")


def describe(utterances: Sequence[Utterance]) -> str:
    """Counts of a split in words."""
    hours = sum(utterance.duration for utterance in utterances) / 3600
    return f"{len(utterances)} utterances, {hours:.2f} hours"


def stops_early(config: Config, checkpoints: Checkpoints, steps_per_epoch: int, epoch: int) -> bool:
    """Whether the best epoch lies `patience` epochs back."""
    best = checkpoints.best_step
    return bool(config.patience and best is not None and epoch - best // steps_per_epoch >= config.patience)


def run_epoch(
    train_step: Callable[..., Any],
    state: steps.TrainState,
    stream: Any,
    epoch: int,
    schedule: Callable[..., Any],
    utterances: Sequence[Utterance],
    log: "Log",
    progress: "Progress",
) -> steps.TrainState:
    """Makes the updates of an epoch.

    The metrics of a step are fetched while the next one runs, so that the device never waits for the host.

    Raises:
        InputError: a loss is not finite; names the step and the utterances of its batch.
    """
    step = int(state.step)
    pending: list[tuple[int, Any, np.ndarray]] = []
    with progress:
        for batch in stream:
            progress.before(batch)
            state, metrics = train_step(state, batch, jnp.int32(epoch))
            step += 1
            pending.append((step, metrics, batch["indices"]))
            if len(pending) > 1:
                finish_step(*pending.pop(0), epoch, schedule, utterances, log, progress)
        for item in pending:
            finish_step(*item, epoch, schedule, utterances, log, progress)
    return state


def finish_step(
    step: int,
    metrics: Mapping[str, Any],
    indices: np.ndarray,
    epoch: int,
    schedule: Callable[..., Any],
    utterances: Sequence[Utterance],
    log: "Log",
    progress: "Progress",
) -> None:
    """Waits for a step's metrics, checks and logs them."""
    values = {name: float(value) for name, value in metrics.items()}
    if not np.isfinite(values["loss"]) or not np.isfinite(values["grad_norm"]):
        names = ", ".join(utterances[index].id for index in indices if index >= 0)
        raise InputError(
            f"The loss must be finite, got {values['loss']} (gradient norm {values['grad_norm']}) at step {step}, "
            f"epoch {epoch + 1}. Utterances of the batch: {names}. Lower optim.learning_rate or optim.clip_norm, or look "
            "at these recordings; the run continues from its last checkpoint."
        )
    progress.after(values)
    log.write(
        step,
        {"epoch": epoch + 1, "learning_rate": float(schedule(step - 1)), "hours_per_hour": progress.speed, **values},
    )


class Progress:
    """A bar with loss, hours of audio an hour and time left; says when a new shape compiles."""

    compiled: set[tuple[int, ...]] = set()

    def __init__(self, title: str, plan: Sequence[Batch], sample_rate: int) -> None:
        self._bar = tqdm(total=len(plan), desc=title, unit="step", leave=False, disable=not sys.stderr.isatty())
        self._sample_rate = sample_rate
        self._started = time.perf_counter()
        self._seconds, self._losses = 0.0, []  # type: float, list[float]

    def __enter__(self) -> None:
        self._bar.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    @property
    def speed(self) -> float:
        """Hours of audio in an hour of this epoch."""
        return self._seconds / (time.perf_counter() - self._started)

    @property
    def summary(self) -> str:
        """The epoch in words."""
        elapsed = time.perf_counter() - self._started
        return f"loss {np.mean(self._losses):.2f} in {elapsed:.0f} s ({self.speed:.0f} hours of audio an hour)"

    def before(self, batch: Mapping[str, np.ndarray]) -> None:
        """Tells of a shape that is new and so compiles."""
        shape = batch["waveforms"].shape
        if shape not in self.compiled:
            self.compiled.add(shape)
            seconds = shape[1] / self._sample_rate
            self._bar.set_postfix_str(f"compiling for {shape[0]} x {seconds:.1f} s", refresh=True)

    def after(self, metrics: Mapping[str, float]) -> None:
        """Shows a finished step."""
        self._seconds += metrics["num_samples"] / self._sample_rate
        self._losses.append(metrics["loss"])
        self._bar.set_postfix_str(f"loss {metrics['loss']:.1f}, {self.speed:.0f} h/h", refresh=False)
        self._bar.update()


class Log:
    """Metrics to RUN/metrics.jsonl and RUN/tensorboard; a line a step, a line a dev evaluation."""

    def __init__(self, workdir: Path) -> None:
        self._path = workdir / "metrics.jsonl"
        self._board = SummaryWriter(str(workdir / "tensorboard"))

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: Any) -> None:
        self._board.close()

    def cut(self, step: int) -> None:
        """Removes lines after `step`: an interrupted run repeats those steps."""
        if self._path.exists():
            lines = self._path.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self._path.write_text("".join(line + "\n" for line in kept))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends metrics of a step (updates made so far)."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)


def flat(prefix: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The rates of an evaluation under names of their own."""
    return {f"{prefix}_{name}": value for name, value in metrics.items() if isinstance(value, int | float)}

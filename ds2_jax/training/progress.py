"""Reports on a run while it trains: a bar or log lines on stderr, metrics.jsonl, TensorBoard."""

import functools
import itertools
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from ds2_jax.evaluation.results import Evaluation
from ds2_jax.parallel.processes import broadcast_from_primary, is_primary
from ds2_jax.runs.run_folder import METRIC_LOG, read_metric_log
from ds2_jax.system.files import write_text, writing

logger = logging.getLogger(__package__)

SECONDS_BETWEEN_LINES = 60.0
"""Seconds between log lines if stderr is not a terminal, where no bar is shown."""
MUCH_WAITING = 0.1
"""From this share of an epoch's time on, its line tells how long the loop waited for data."""


class Progress:
    """Shows a bar with loss, speed and time left, or logs one line a minute if stderr is not a terminal.

    It also reports each new batch shape, because the step then compiles.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._shapes: set[tuple[int, ...]] = set()
        self._begin("", 0)

    def _begin(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._started = self._told = time.perf_counter()
        self._seconds, self._loss, self._steps = 0.0, 0.0, 0
        self.alignable, self._unalignable = 0, 0
        self._waited, self._computed, self._empty, self._valid = (
            0.0,
            0.0,
            0.0,
            0.0,
        )  # the wait in seconds, the other three in samples

    def epoch(
        self,
        batches: Iterable[dict[str, np.ndarray]],
        title: str,
        total: int,
        made: Sequence[Mapping[str, float]] = (),
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the remaining batches of an epoch and shows a new bar for it.

        Args:
            batches: remaining batches of the epoch.
            title: text in front of the bar.
            total: steps of the whole epoch.
            made: metrics of the steps that the epoch made before an interruption.
        """
        self._begin(title, total)
        for metrics in made:
            self._count(metrics)
        shows_bar = sys.stderr.isatty() and is_primary()
        with tqdm(
            total=total, initial=len(made), desc=title, unit="step", leave=False, disable=not shows_bar
        ) as self._bar:
            for batch in self._timed(batches):
                num_rows, num_samples = shape = batch["waveforms"].shape
                if shape not in self._shapes:
                    self._shapes.add(shape)
                    compiling = f"compiling for {num_rows} x {num_samples / self._sample_rate:.1f} s"
                    self._bar.set_postfix_str(compiling)
                    if not shows_bar:
                        logger.info(f"{title}: {compiling}")
                yield batch
                self._bar.update()

    def _timed(self, batches: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def step(self, metrics: Mapping[str, float]) -> None:
        """Counts a finished step.

        Args:
            metrics: loss (nats per utterance); num_samples (valid samples); alignable, unalignable and empty (rows);
                num_rows and padded_samples (shape of the batch).
        """
        self._count(metrics)
        self._seconds += metrics["num_samples"] / self._sample_rate
        state = f"loss {metrics['loss']:.1f}, {self.speed:.0f}x real time"
        self._bar.set_postfix_str(state, refresh=False)
        if self._bar.disable and time.perf_counter() - self._told > SECONDS_BETWEEN_LINES:
            self._told = time.perf_counter()
            logger.info(f"{self._title}: step {self._steps} of {self._total}, {state}")

    def _count(self, metrics: Mapping[str, float]) -> None:
        self._loss += metrics["loss"]
        self.alignable += int(metrics["alignable"])
        self._unalignable += int(metrics["unalignable"])
        self._steps += 1
        self._computed += metrics["num_rows"] * metrics["padded_samples"]
        self._empty += metrics["empty"] * metrics["padded_samples"]
        self._valid += metrics["num_samples"]

    @property
    def speed(self) -> float:
        """Hours of audio per hour of training, since this epoch began or continued."""
        return self._seconds / (time.perf_counter() - self._started)

    @property
    def costs(self) -> dict[str, float]:
        """The costs of the epoch so far.

        Returns:
            epoch_seconds: time since the epoch began or continued.
            data_wait_seconds: time in which the loop waited for a batch. The device may have been busy meanwhile, so
                at most this time is lost.
            padding_share: share of all computed samples that are padding after an utterance.
            empty_share: share of all computed samples that lie in empty rows.
        """
        computed = max(self._computed, 1)
        return {
            "epoch_seconds": time.perf_counter() - self._started,
            "data_wait_seconds": self._waited,
            "padding_share": (self._computed - self._empty - self._valid) / computed,
            "empty_share": self._empty / computed,
        }

    @property
    def summary(self) -> str:
        """The costs of the epoch so far in words, short enough for a line. Waiting is told only if it takes long."""
        costs = self.costs
        seconds, waited = costs["epoch_seconds"], costs["data_wait_seconds"]
        return (
            f"{seconds:.0f} s, {self.speed:.0f}x real time"
            + (f", {waited:.0f} s of them waiting for data" if waited > MUCH_WAITING * seconds else "")
            + (f"; {self._unalignable} utterances that CTC cannot align" if self._unalignable else "")
        )

    @property
    def loss(self) -> float:
        """The mean of the losses of the epoch's steps so far, in nats per utterance."""
        return self._loss / max(self._steps, 1)


class MetricLog:
    """Appends metrics to metrics.jsonl and TensorBoard, in the first process only; a context manager.

    Every line gets `wall_seconds`: the time that the run has taken so far over all its starts. Starts that ended
    before their first step are not counted.

    Args:
        run: folder of the run.
        step: updates made so far. Lines of later steps are removed: the continued run makes those steps again.
        evaluated: whether that step was evaluated; if not, its epoch's line is removed too.
        began: `time.monotonic()` when this start of the run began; by default now.

    Attributes:
        epochs: the lines of the epochs so far, in the first process.

    Raises:
        InputError: a line of metrics.jsonl is damaged, or the file cannot be written.
    """

    def __init__(self, run: Path, step: int, evaluated: bool, began: float | None = None) -> None:
        self._path = run / METRIC_LOG
        self._began, self._before = time.monotonic() if began is None else began, 0.0
        self._board: Any = None  # opened at the first write, because it creates a file
        self._kept: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        if not is_primary():
            return
        log = read_metric_log(run)
        lines, parsed = [line for line, _ in log], [metrics for _, metrics in log]
        kept = [metrics["step"] < step + (evaluated or "loss" in metrics) for metrics in parsed]
        self._kept = list(itertools.compress(parsed, kept))
        self.epochs = [metrics for metrics in self._kept if "epoch_seconds" in metrics]
        self._before = max((metrics.get("wall_seconds", 0.0) for metrics in parsed), default=0.0)
        write_text(self._path, "".join(itertools.compress(lines, kept)))
        self._make_board = functools.partial(
            SummaryWriter, str(run / "tensorboard"), purge_step=step + 1 if log else None
        )

    def steps(self, epoch: int) -> list[dict[str, Any]]:
        """Returns the metrics of the steps of an epoch (counted from 1) that earlier starts of the run made."""
        steps = [metrics for metrics in self._kept if metrics.get("epoch") == epoch and "loss" in metrics]
        made: list[dict[str, Any]] = broadcast_from_primary("steps made", steps)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    @property
    def wall_seconds(self) -> float:
        """The time that the run has taken so far, in this start and earlier ones."""
        return self._before + time.monotonic() - self._began

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends the metrics that are known after `step` updates; numbers go to TensorBoard too."""
        if not is_primary():
            return
        if "epoch_seconds" in metrics:
            self.epochs.append({"step": step, **metrics})
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics, "wall_seconds": self.wall_seconds}, allow_nan=False) + "\n")
        self._board = self._board or self._make_board()
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)


def dev_text(dev: Evaluation) -> str:
    """Describes the dev split in the line of an epoch; "" if there is no dev split."""
    if not dev.results:
        return ""
    rates = "".join(f", {name.upper()} {dev.rates[name]:.2%}" for name in ("wer", "cer"))
    left_out = f" ({dev.left_out} utterances left out)" if dev.left_out else ""
    return f"; dev loss {dev.rates['loss']:.2f}{rates}{left_out}"

"""Runs the command `plot`: the curves of trainings, from their metrics.jsonl, as one picture."""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from ds2_jax.evaluation.summary import RUNS, distinct, names_of
from ds2_jax.runs.run_folder import METRIC_LOG, read_metric_log
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import writing
from ds2_jax.system.markdown import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "curves.png"
SIZE = (13.0, 7.5)
"""Width and height in inches, at 100 pixels each."""
COLOURS = ("#2f5fc4", "#d1602c", "#3c8d5a", "#8a4fae", "#b59410", "#c04a78", "#4aa3b5", "#6b6b6b")
NUM_MEDIANS, NUM_POINTS = 100, 4000
"""Points of a thick line, which are medians over steps, and the most points of a thin one, which are single steps."""
LARGEST = 2**53


class Curves(NamedTuple):
    """The metrics of a run.

    Attributes:
        name: name of the run.
        steps: the lines of its steps.
        epochs: the lines of its epochs.
        per_epoch: steps of an epoch; 1 if none has ended, so that epochs are counted in updates.
    """

    name: str
    steps: Sequence[dict[str, Any]]
    epochs: Sequence[dict[str, Any]]
    per_epoch: float

    def of_steps(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the epochs of the steps, such as 1.5, and a metric, both [N] float; steps without it are left out."""
        return _columns((line["step"] / self.per_epoch, line.get(name)) for line in self.steps)

    def of_epochs(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the epochs and a metric at their ends, both [E] float; epochs without it are left out."""
        return _columns((line["epoch"], line.get(name)) for line in self.epochs)

    @property
    def waiting(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the epochs and the share of their time in which the loop waited for data, in per cent."""
        times = [(line["epoch"], line.get("data_wait_seconds"), line.get("epoch_seconds", 0.0)) for line in self.epochs]
        return _columns((epoch, wait if wait is None else 100 * wait / whole) for epoch, wait, whole in times if whole)


def plot(runs: Annotated[tuple[Path, ...], tyro.conf.Positional, RUNS], out: Path | None = None) -> int:
    """Draw the curves of training runs: losses, error rates, learning rate, gradient, speed and waiting.

    Several runs are drawn together. A run that has not ended is drawn as far as it is.

    Args:
        runs: Folders of training runs.
        out: The picture, a PNG file; by default RUN/curves.png for one run, and curves.png for several.
    """
    require(out is None or out.suffix == ".png", "--out", "be a .png file", str(out), "Give another name.")
    folders = distinct(runs)
    curves = [read_curves(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]
    if ended := [run.per_epoch for run in curves if run.epochs]:  # a run in its first epoch does not know it yet
        curves = [run if run.epochs else run._replace(per_epoch=ended[0]) for run in curves]
    path = out or (folders[0] / NAME if len(folders) == 1 else Path(NAME))
    draw(path, curves)
    print("\n".join(describe(curves)))
    print(f"\npicture: {path}")
    return 0


def read_curves(folder: Path, name: str) -> Curves:
    """Reads the metrics of a run.

    Raises:
        InputError: there are none, or a line is damaged.
    """
    lines = [metrics for _, metrics in read_metric_log(folder)]
    steps = [line for line in lines if "loss" in line]
    if not steps:
        rule = f"be the folder of a training with steps in {METRIC_LOG}"
        raise InputError(f"{folder} must {rule}, got none. Give the folder of a run.")
    epochs = [line for line in lines if "epoch_seconds" in line or ("epoch" in line and "loss" not in line)]
    epochs = [line for line in epochs if _is_number(line.get("epoch")) and line["epoch"] >= 1 and line["step"] >= 1]
    return Curves(name, steps, epochs, epochs[-1]["step"] / epochs[-1]["epoch"] if epochs else 1.0)


def describe(curves: Sequence[Curves]) -> list[str]:
    """Formats a Markdown table: epochs, the best dev WER, the last losses, and the time of each run."""
    rows = []
    for run in curves:
        places, wers = run.of_epochs("dev_wer")
        best = f"{wers.min():.2%} in epoch {places[wers.argmin()]:.0f}" if len(wers) else "–"
        losses = [run.epochs[-1].get(f"{split}_loss") if run.epochs else None for split in ("train", "dev")]
        last = [f"{loss:.2f}" if type(loss) in (int, float) else "–" for loss in losses]  # NaN too
        seconds = [line["wall_seconds"] for line in (*run.steps, *run.epochs) if "wall_seconds" in line]
        time = f"{max(seconds) / 60:.1f} min" if seconds else "–"
        rows.append([run.name, f"{len(run.epochs)}", best, *last, time])
    return table(["run", "epochs", "best dev WER", "last train loss", "last dev loss", "time"], rows)


def draw(path: Path, curves: Sequence[Curves]) -> None:
    """Draws six charts over the epochs into a PNG file.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no global state as in pyplot
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(SIZE, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    loss, wer, rate, gradient, speed, waiting = figure.subplots(2, 3).flat
    for colour, run in zip(itertools.cycle(COLOURS), curves, strict=False):
        _smooth(loss, run.of_steps("loss"), colour)
        loss.plot(*run.of_epochs("dev_loss"), color=colour, linestyle="--", marker="o", markersize=3)
        wer.plot(*_percent(run.of_epochs("dev_wer")), color=colour, marker="o", markersize=3)
        wer.plot(*_percent(run.of_epochs("dev_cer")), color=colour, marker="o", markersize=3, linestyle=":", alpha=0.6)
        rate.plot(*run.of_steps("learning_rate"), color=colour, linewidth=1.5, label=_plain(run.name))
        _smooth(gradient, run.of_steps("grad_norm"), colour)
        _smooth(speed, run.of_steps("hours_per_hour"), colour)
        waiting.plot(*run.waiting, color=colour, marker="o", markersize=3)
    titles = {
        loss: "loss in nats: train (line), dev (dashed)",
        wer: "dev error rates in %: words (line), characters (dotted)",
        rate: "learning rate",
        gradient: "norm of the gradient, before clipping",
        speed: "hours of audio trained in an hour",
        waiting: "time spent waiting for data, %",
    }
    for axes, title in titles.items():
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0)
    for axes in (loss, gradient):
        if any((line.get_ydata() > 0).any() for line in axes.get_lines()):
            axes.set_yscale("log")
    for axes in (wer, rate, speed, waiting):
        axes.set_ylim(bottom=0)
    for axes in (gradient, speed, waiting):
        axes.set_xlabel("epoch" if any(run.epochs for run in curves) else "update")
    figure.legend(*rate.get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")


def _smooth(axes: "Axes", columns: tuple[np.ndarray, np.ndarray], colour: str) -> None:
    """Draws the values lightly, and medians of them."""
    places, values = columns
    thin = slice(None, None, -(-len(values) // NUM_POINTS) or 1)
    axes.plot(
        places[thin], values[thin], color=colour, alpha=0.2, linewidth=0.8, marker="." if len(values) == 1 else ""
    )
    count = min(NUM_MEDIANS, len(values))
    if count:
        medians = [np.median(part) for part in np.array_split(values, count)]
        middles = [np.mean(part) for part in np.array_split(places, count)]
        axes.plot(middles, medians, color=colour, linewidth=1.5)


def _percent(columns: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return columns[0], 100 * columns[1]


def _plain(name: str) -> str:
    """Writes a name so that matplotlib neither hides it nor reads it as mathematics."""
    return f" {name}".replace("$", r"\$") if name.startswith("_") else name.replace("$", r"\$")


def _columns(rows: Iterable[tuple[float, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Makes columns of rows, without those that lack the second value."""
    places, values = np.array([row for row in rows if _is_number(row[1])], float).reshape(-1, 2).T
    return places, values


def _is_number(value: object) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < LARGEST)

"""Draws the picture of `lm tune`, an error rate over the two weights, without a display."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds2_jax.system.files import writing

SIZE = (8.0, 6.0)
"""Width and height in inches, at 100 pixels each."""
NUM_LEVELS = 14
"""The number of colours of the surface."""
NUM_POINTS = 150
"""The number of points of the surface along each axis."""
SMOOTHING = 0.02
"""Smooths the surface between the trials, so that a single word error makes no valley."""


class Surface(NamedTuple):
    """The error rates to draw.

    Attributes:
        name: name of the error rate.
        title: title of the picture.
        weights: [N, 2] float, alpha and beta of the trials.
        rates: [N] float, error rates of the trials, fractions.
        best: alpha and beta of the best trial.
        greedy: error rate without a language model; all worse rates have one colour.
        ranges: the ranges of alpha and of beta.
    """

    name: str
    title: str
    weights: np.ndarray
    rates: np.ndarray
    best: tuple[float, float]
    greedy: float
    ranges: tuple[tuple[float, float], tuple[float, float]]


def draw_surface(path: Path, surface: Surface) -> None:
    """Draws the trials as dots over the surface that they suggest, into a PNG file.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no global state as in pyplot
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from scipy.interpolate import RBFInterpolator

    figure = Figure(SIZE, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    percent = 100 * surface.rates
    worst = max(100 * surface.greedy, percent.min() + 0.1)
    levels = MaxNLocator(NUM_LEVELS).tick_values(percent.min(), worst)
    lows, highs = np.array(surface.ranges).T
    places = surface.weights
    between = RBFInterpolator((places - lows) / (highs - lows), percent, kernel="linear", smoothing=SMOOTHING)
    steps = np.linspace(0, 1, NUM_POINTS)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1)
    heights = between(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    heights = np.clip(heights, levels[0], None)
    alphas, betas = np.moveaxis(lows + grid * (highs - lows), -1, 0)
    filled = axes.contourf(alphas, betas, heights, levels, cmap="viridis_r", extend="max")
    if heights.min() < 100 * surface.greedy < heights.max():
        axes.contour(alphas, betas, heights, [100 * surface.greedy], colors="red", linewidths=1.5)
    colours = filled.cmap(filled.norm(percent))
    axes.scatter(places[:, 0], places[:, 1], c=colours, edgecolors="white", s=28, label="trials")
    axes.scatter(surface.best[0], surface.best[1], marker="*", c="red", edgecolors="white", s=260, label="best")
    bar = figure.colorbar(filled, ax=axes, label=f"{surface.name} on the dev split, %")
    bar.ax.axhline(100 * surface.greedy, color="red", linewidth=1.5)
    axes.set(xlabel="alpha, weight of the language model", ylabel="beta, nats for each word", title=surface.title)
    axes.set(xlim=surface.ranges[0], ylim=surface.ranges[1])
    axes.plot([], [], c="red", linewidth=1.5, label="as good as greedy decoding")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")

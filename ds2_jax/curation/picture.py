"""Draws histograms of checked manifests, without a display."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ds2_jax.config import DataConfig
from ds2_jax.curation.findings import Checked
from ds2_jax.curation.stats import column_names
from ds2_jax.system.files import writing

NUM_BINS = 50
SIZE = (9.0, 7.0)
"""Width and height in inches, at 100 pixels each."""


def draw_histograms(path: Path, manifests: Sequence[Checked], data: DataConfig) -> None:
    """Draws histograms of the durations and speech rates of manifests, with labelled lines at the duration limits.

    Args:
        path: PNG file to write.
        manifests: the checked manifests.
        data: the settings with the duration limits.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no global state as in pyplot
    from matplotlib.figure import Figure

    figure = Figure(SIZE, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    names = column_names([each.path for each in manifests])
    durations = [np.array([utterance.duration for utterance in each.utterances]) for each in manifests]
    rates = [(values := each.rates())[np.isfinite(values)] for each in manifests]
    top, bottom = figure.subplots(2)
    for axes, samples, label in (
        (top, durations, "duration, seconds"),
        (bottom, rates, "speech rate, characters a second"),
    ):
        axes.hist(samples, bins=NUM_BINS, stacked=True, label=names)
        axes.set(xlabel=label, ylabel="utterances")
    left, right = top.get_xlim()
    for name, style in (("min_duration", "dashed"), ("max_duration", "dashdot")):
        limit = getattr(data, name)
        if left <= limit <= right:
            top.axvline(limit, color="black", linestyle=style, linewidth=1, label=f"data.{name}, {limit:g} s")
    for axes in (top, bottom):
        axes.legend()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")

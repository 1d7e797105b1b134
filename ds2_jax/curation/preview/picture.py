"""Draws two spectrograms above each other, without a display."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ds2_jax.config import FeatureConfig
from ds2_jax.config.mel_bands import frequencies
from ds2_jax.curation.preview.look import Look
from ds2_jax.system.files import writing

SIZE = (11.0, 7.0)
"""Width and height in inches, at 100 pixels each."""
QUIETEST = -0.8
"""The value of the first colour, in standard deviations of the spectrogram."""
LOUDEST = 3.5
"""The value of the last colour, in standard deviations of the spectrogram."""
SHARP = 500
"""Up to this number of frames, each has sharp edges. More frames are smoothed, because some would not show."""
MASKED = "0.7"
"""Grey, which is unlike all colours of the spectrogram."""
HEIGHTS = np.linspace(0, 1, 1000)
"""The heights at which the frequency scale is inverted."""
TITLE = (105, 3)
"""Characters in a line of the title, and number of lines."""
CAPTION = (135, 2)
"""Characters in a line of a caption, and number of lines."""


def draw(path: Path, title: str, captions: Sequence[str], look: Look, features: FeatureConfig) -> None:
    """Draws an utterance before and after on the same axes; masks are grey, and a dashed line is the warp's target.

    Args:
        path: PNG file to write.
        title: the title, which is shortened if it is too long.
        captions: the captions of the two spectrograms, which are shortened too.
        look: the spectrograms, masks and warp to draw.
        features: the settings of the spectrograms, for the units.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no global state as in pyplot
    from matplotlib.figure import Figure

    figure = Figure(SIZE, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_wrap(title, *TITLE), parse_math=False)
    panels = figure.subplots(2, sharex=True, sharey=True)
    hidden = look.in_time[:, None] | look.in_frequency[None, :]
    after = np.ma.masked_array(look.after, hidden)
    stride, highest = features.window_stride, features.sample_rate / 2000
    for axes, caption, spectrogram in zip(panels, captions, (look.before, after), strict=True):
        image = axes.imshow(
            spectrogram.T,
            origin="lower",
            aspect="auto",
            extent=(-stride / 2, (len(spectrogram) - 0.5) * stride, 0, highest),
            vmin=QUIETEST,
            vmax=LOUDEST,
            cmap=colormaps["magma"].with_extremes(bad=MASKED),
            interpolation="nearest" if len(spectrogram) <= SHARP else "auto",
        )
        axes.set_title(_wrap(caption, *CAPTION), loc="left", fontsize="medium", parse_math=False)
        axes.set_ylabel("kHz")
        if features.num_mels:  # bands have equal heights, so the kHz get closer and closer
            ticks = np.array([0, 0.5, 1, 2, 4, 8, 16])
            heights = np.interp(1000 * ticks, frequencies(HEIGHTS, features), HEIGHTS)
            shown = ticks <= highest
            axes.set_yticks(highest * heights[shown], [f"{tick:g}" for tick in ticks[shown]])
    keys = ["grey: masked"] if hidden.any() else []
    if look.origin != look.target:
        keys.append("dashed: target of the warp")
        panels[1].axvline(look.target * stride, color="white", linestyle="dashed", linewidth=1)
    panels[1].set_xlabel("seconds" + (f"   ({'; '.join(keys)})" if keys else ""))
    panels[1].set_xlim(0, max(len(look.before), len(look.after)) * stride)
    quantity = "log energy" if features.num_mels else "log magnitude"
    figure.colorbar(image, ax=panels, label=f"{quantity}, standard deviations from the mean", extend="both")
    with writing(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a script without a font is drawn as boxes
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")


def _wrap(text: str, line: int, num_lines: int) -> str:
    return textwrap.fill(text, line, max_lines=num_lines, placeholder=" ...")

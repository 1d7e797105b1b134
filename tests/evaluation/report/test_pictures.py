"""Spectrograms and sounds of the page."""

import io
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soundfile

from ds2_jax.config import FeatureConfig
from tests.evaluation.report.conftest import TRANSCRIPTS
from tests.evaluation.report.document import Document, decode
from tests.small_runs import RATE


def test_every_picture_is_a_spectrogram_and_every_sound_lasts_as_long_as_its_utterance(
    folder: Path, document: Document, numbers: dict[str, Any]
) -> None:
    assert len(document.of("audio")) == len(document.of("img")) == len(TRANSCRIPTS)
    for audio, image, row in zip(document.of("audio"), document.of("img"), numbers["worst_utterances"], strict=True):
        samples, rate = soundfile.read(io.BytesIO(decode(audio["src"], "audio/wav")))
        assert len(samples) / rate == pytest.approx(row["duration"], abs=1e-3)
        original, _ = soundfile.read(folder / Path(row["audio"]).name)
        np.testing.assert_allclose(samples, original, atol=2 / 2**15)
        pixels = matplotlib.image.imread(io.BytesIO(decode(image["src"], "image/png")), format="png")
        assert pixels.shape[:2] == (161, len(samples) // 160 + 1)
        assert pixels.std() > 0.05
        assert audio["aria-label"] == f"Recording {row['id']}"


def test_spectrogram_has_low_frequencies_at_the_bottom_and_time_to_the_right() -> None:
    from ds2_jax.evaluation.report.pictures import spectrogram_maker, spectrogram_png

    time = np.arange(RATE) / RATE
    waveform = np.where(time < 0.5, np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 7000 * time)).astype(np.float32)
    png = spectrogram_png(spectrogram_maker(FeatureConfig())(waveform))
    brightness = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3].sum(-1)
    for frame, row in ((20, 160 - 20), (80, 160 - 140)):  # 1000 and 7000 Hz: bins 20 and 140 of 50 Hz each
        column = brightness[:, frame]
        assert np.flatnonzero(column == column.max()).mean() == row

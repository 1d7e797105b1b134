"""Folders for programs that resample everything to 16 kHz."""

import dataclasses
from pathlib import Path

import pytest

from ds2_jax.exchange import layouts
from ds2_jax.exchange.target import Target
from ds2_jax.system.errors import InputError
from tests.small_runs import SMALL_CONFIG


@pytest.mark.parametrize("target", ["sherpa-onnx", "onnx-asr"])
def test_model_of_another_sample_rate_is_refused(tmp_path: Path, target: Target) -> None:
    config = dataclasses.replace(SMALL_CONFIG, features=dataclasses.replace(SMALL_CONFIG.features, sample_rate=8000))
    with pytest.raises(InputError, match=f"--for {target} must have a model of 16000 Hz, .* got one of 8000 Hz"):
        layouts.write(target, config, {}, tmp_path, int8=False, level=1.0)
    assert not any(tmp_path.iterdir())

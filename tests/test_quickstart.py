"""configs/quickstart.py, from an empty folder to error rates on voices that are not in the training data."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.config import load_config
from ds2_jax.evaluation.account import word_time_errors
from ds2_jax.evaluation.reliability import reliability, right_words
from ds2_jax.training.train import train

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus, which is built once because every seed uses the same."""
    return tmp_path_factory.mktemp("corpora")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_words_of_unheard_voices_are_recognised_timed_and_doubted(corpora: Path, tmp_path: Path, seed: int) -> None:
    config = load_config(ROOT / "configs/quickstart.py")
    config = dataclasses.replace(config, seed=seed, data=dataclasses.replace(config.data, root=corpora))
    evaluation = train(config, tmp_path / "run")
    assert evaluation is not None
    assert evaluation.words.reference_length == 948
    assert evaluation.words.rate <= 0.1
    errors = word_time_errors(evaluation)
    assert errors is not None
    assert np.abs(errors.starts).mean() <= 0.06
    assert np.abs(errors.ends).mean() <= 0.06
    words = [word.confidence for result in evaluation.results for word in result.readings[0].words]
    right = [each for result in evaluation.results for each in right_words(result.reference, result.hypothesis)]
    measured = reliability(words, right)
    print(errors, measured, sep="\n")
    assert measured is not None
    assert measured.calibration_error <= 0.05
    assert measured.area_under_curve is not None
    assert measured.area_under_curve >= 0.8

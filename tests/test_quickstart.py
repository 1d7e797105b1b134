"""configs/quickstart.py from nothing to error rates on unheard voices."""

import dataclasses
from pathlib import Path

import pytest

from ds2_jax.config import load_config
from ds2_jax.train import train

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus is the same for every seed: built once."""
    return tmp_path_factory.mktemp("corpora")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_at_most_a_tenth_of_the_words_of_unheard_voices_are_wrong(corpora: Path, tmp_path: Path, seed: int) -> None:
    config = load_config(ROOT / "configs/quickstart.py")
    config = dataclasses.replace(config, seed=seed, data=dataclasses.replace(config.data, root=corpora))
    evaluation = train(config, tmp_path / "run")
    assert evaluation is not None
    assert evaluation.words.reference_length == 948
    assert evaluation.words.rate <= 0.1

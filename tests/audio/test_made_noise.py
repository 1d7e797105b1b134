"""Synthetic silence, noise and music."""

import numpy as np
import pytest

from ds2_jax.audio import made_noise

LENGTHS = [1, 2, 1601, 160_000]


@pytest.mark.parametrize("kind", made_noise.KINDS)
@pytest.mark.parametrize("num_samples", LENGTHS)
def test_every_length_and_seed_gives_finite_samples(kind: str, num_samples: int) -> None:
    for seed in range(8):
        made = made_noise.KINDS[kind](num_samples, np.random.default_rng(seed))
        assert made.shape == (num_samples,)
        assert np.isfinite(made).all()


@pytest.mark.parametrize("kind", made_noise.KINDS)
def test_a_seed_gives_the_same_and_another_seed_another_signal(kind: str) -> None:
    one, same, other = (made_noise.KINDS[kind](8000, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_music_has_tones_and_noise_has_none() -> None:
    """A tone is a peak of the spectrum; that of noise has none, except for hum and knocks."""

    def peak(kind: str) -> float:
        spectra = [np.abs(np.fft.rfft(made_noise.KINDS[kind](80_000, np.random.default_rng(i)))) for i in range(12)]
        return float(np.median([spectrum.max() / np.median(spectrum) for spectrum in spectra]))

    assert peak("music") > 3 * peak("noise")


def test_the_level_is_the_one_that_is_asked_for() -> None:
    for kind in ("noise", "music"):
        made = made_noise.with_level(made_noise.KINDS[kind](16_000, np.random.default_rng(0)), 0.1)
        assert made.dtype == np.float32
        assert np.sqrt(np.mean(np.square(made))) == pytest.approx(0.1, rel=1e-4)
    assert not made_noise.with_level(np.zeros(5), 0.1).any()

"""augment.py: what the masks cover, and what decides where they lie."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax import augment
from ds2_jax.config import AugmentConfig

NUM_BINS = 12
LENGTHS = (30, 17, 5, 1, 0)


def keys_of(indices: range | list[int], seed: int = 0, epoch: int = 0) -> jax.Array:
    return augment.row_keys(seed, jnp.int32(epoch), jnp.asarray(indices, jnp.int32))


def masked(config: AugmentConfig, lengths: list[int], keys: jax.Array, size: int = 30) -> np.ndarray:
    """[B, T, F] bool: where spectrograms of ones were set to 0."""
    ones = jnp.ones((len(lengths), size, NUM_BINS))
    outputs = jax.jit(augment.spec_augment, static_argnums=3)(ones, jnp.array(lengths, jnp.int32), keys, config)
    assert np.isin(outputs, [0, 1]).all()
    return np.asarray(outputs) == 0


def runs(line: np.ndarray) -> list[int]:
    """Lengths of the runs of True."""
    return [len(list(group)) for value, group in itertools.groupby(line) if value]


@pytest.fixture(scope="module")
def frequency_masks() -> np.ndarray:
    """[B, F] bool of 400 utterances, one mask of at most 4 bins each."""
    hits = masked(AugmentConfig(1, 4, 0, 0), [30] * 400, keys_of(range(400)))
    assert (hits == hits[:, :1]).all()  # a band covers all frames
    return hits[:, 0]


@pytest.fixture(scope="module")
def time_masks() -> np.ndarray:
    """[B, T] bool of 1000 utterances, 200 of each length in LENGTHS, one mask of at most 6 frames each."""
    hits = masked(AugmentConfig(0, 0, 1, 6), [n for n in LENGTHS for _ in range(200)], keys_of(range(1000)))
    assert (hits == hits[:, :, :1]).all()  # a run covers all bins
    return hits[:, :, 0]


def test_frequency_mask_is_one_band_of_every_width_anywhere(frequency_masks: np.ndarray) -> None:
    assert all(len(runs(line)) <= 1 for line in frequency_masks)
    assert {int(line.sum()) for line in frequency_masks} == {0, 1, 2, 3, 4}
    assert frequency_masks.any(0).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_time_mask_is_one_run_inside_the_valid_frames(time_masks: np.ndarray, length: int) -> None:
    hits = time_masks[LENGTHS.index(length) * 200 :][:200]
    assert not hits[:, length:].any()
    assert hits[:, :length].any(0).all()  # first and last frame too
    assert all(len(runs(line)) <= 1 for line in hits)
    assert {int(line.sum()) for line in hits} == set(range(min(length, 6) + 1))


def test_widths_are_uniform(frequency_masks: np.ndarray) -> None:
    counts = np.bincount(frequency_masks.sum(1), minlength=5)
    np.testing.assert_allclose(counts, 80, atol=4 * np.sqrt(400 * 0.2 * 0.8))  # four standard deviations


def test_number_of_masks_bounds_the_number_of_runs() -> None:
    hits = masked(AugmentConfig(2, 2, 3, 4), [30] * 3000, keys_of(range(3000)))
    in_time, in_frequency = np.asarray(hits.all(2)), np.asarray(hits.all(1))
    np.testing.assert_array_equal(hits, in_time[:, :, None] | in_frequency[:, None, :])
    for lines, count, width in ((in_time, 3, 4), (in_frequency, 2, 2)):
        assert max(len(runs(line)) for line in lines) == count
        assert lines.sum(1).max() == count * width


def test_time_and_frequency_are_drawn_apart() -> None:
    square = masked(AugmentConfig(1, 5, 1, 5), [NUM_BINS] * 50, keys_of(range(50)), size=NUM_BINS)
    assert (square.all(2) != square.all(1)).any(1).sum() > 25


@pytest.mark.parametrize(
    "config", [AugmentConfig(), AugmentConfig(0, 27, 0, 70), AugmentConfig(2, 0, 2, 0)], ids=["default", "0", "width"]
)
def test_no_masks_change_nothing(config: AugmentConfig) -> None:
    spectrograms = jax.random.normal(jax.random.key(0), (3, 9, NUM_BINS))
    outputs = augment.spec_augment(spectrograms, jnp.array([9, 4, 0]), keys_of(range(3)), config)
    np.testing.assert_array_equal(outputs, spectrograms)


BOTH = AugmentConfig(2, 4, 2, 5)


def test_utterance_decides_not_its_row_its_neighbours_or_the_padding() -> None:
    lengths = [30, 17, 24, 9]
    hits = masked(BOTH, lengths, keys_of([4, 8, 2, 6]))
    longer = masked(BOTH, [0, *lengths[::-1]], keys_of([-1, 6, 2, 8, 4]), size=47)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(longer[4 - row, :length], hits[row, :length])
        alone = masked(BOTH, [length], keys_of([[4, 8, 2, 6][row]]), size=length)
        np.testing.assert_array_equal(alone[0], hits[row, :length])


def test_seed_epoch_and_utterance_each_change_the_draw() -> None:
    first = masked(BOTH, [30] * 20, keys_of(range(20)))
    np.testing.assert_array_equal(first, masked(BOTH, [30] * 20, keys_of(range(20))))
    for other in (keys_of(range(20), seed=1), keys_of(range(20), epoch=1), keys_of(range(20, 40))):
        same = (first == masked(BOTH, [30] * 20, other)).all((1, 2))
        assert same.sum() <= 2
    assert len({line.tobytes() for line in first}) >= 19

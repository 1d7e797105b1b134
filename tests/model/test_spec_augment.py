"""The time warp moves frames and the masks cover spans as documented; their draws depend on the utterance only."""

import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import AugmentConfig
from ds2_jax.model import spec_augment

NUM_BINS = 12
LENGTHS = (30, 17, 5, 1, 0)


def keys_of(indices: range | list[int], seed: int = 0, epoch: int = 0) -> jax.Array:
    return spec_augment.row_keys(seed, jnp.int32(epoch), jnp.asarray(indices, jnp.int32))


def masked(config: AugmentConfig, lengths: list[int], keys: jax.Array, size: int = 30) -> np.ndarray:
    """Marks where SpecAugment sets spectrograms of ones to 0: [B, T, F] bool."""
    ones = jnp.ones((len(lengths), size, NUM_BINS))
    outputs = jax.jit(spec_augment.spec_augment, static_argnums=3)(ones, jnp.array(lengths, jnp.int32), keys, config)
    assert np.isin(outputs, [0, 1]).all()
    return np.asarray(outputs) == 0


def runs(line: np.ndarray) -> list[int]:
    """Returns the lengths of the runs of True."""
    return [len(list(group)) for value, group in itertools.groupby(line) if value]


@pytest.fixture(scope="module")
def frequency_masks() -> np.ndarray:
    """Draws one frequency mask of at most 4 bins for each of 400 utterances: [B, F] bool."""
    hits = masked(AugmentConfig(1, 4, 0, 0), [30] * 400, keys_of(range(400)))
    assert (hits == hits[:, :1]).all()  # a band covers all frames
    return hits[:, 0]


@pytest.fixture(scope="module")
def time_masks() -> np.ndarray:
    """Draws one time mask of at most 6 frames for each of 1000 utterances, 200 of each length: [B, T] bool."""
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
    outputs = spec_augment.spec_augment(spectrograms, jnp.array([9, 4, 0]), keys_of(range(3)), config)
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


def test_draws_are_those_of_earlier_runs() -> None:
    """Recorded before warps, probabilities and adaptive masks existed. A resumed run must repeat these draws."""
    hits = masked(AugmentConfig(1, 4, 2, 6), [20, 13, 5, 2], keys_of(range(4), seed=3, epoch=2), size=20)
    lines = [np.asarray(hits.all(axis)) for axis in (2, 1)]
    time, frequency = (["".join(".#"[int(hit)] for hit in row) for row in each] for each in lines)
    assert time == ["...........#...#....", "######..............", "####................", "##.................."]
    assert frequency == ["...........#", "..####......", ".....####...", "####........"]


@pytest.mark.parametrize(
    ("config", "axis"),
    [
        (AugmentConfig(1, 5, 1, 5, frequency_mask_probability=0.3), 1),
        (AugmentConfig(1, 5, 1, 5, time_mask_probability=0.3), 2),
    ],
    ids=["frequency", "time"],
)
def test_probability_is_the_share_of_utterances_with_masks(config: AugmentConfig, axis: int) -> None:
    always = AugmentConfig(1, 5, 1, 5)
    hits, rare = (masked(each, [30] * 1000, keys_of(range(1000))) for each in (always, config))
    np.testing.assert_array_equal(rare.all(3 - axis), hits.all(3 - axis))  # the other kind of mask is unchanged
    lines, rare_lines = np.asarray(hits.all(axis)), np.asarray(rare.all(axis))
    assert ((rare_lines == lines).all(1) | ~rare_lines.any(1)).all()  # an utterance has all of its masks or none
    share = (rare_lines.any(1) & lines.any(1)).sum() / lines.any(1).sum()
    np.testing.assert_allclose(share, 0.3, atol=4 * np.sqrt(0.3 * 0.7 / 1000))
    never = dataclasses.replace(always, frequency_mask_probability=0.0, time_mask_probability=0.0)
    assert not masked(never, [30] * 50, keys_of(range(50))).any()


def test_what_happens_to_an_utterance_is_decided_for_each_kind_apart() -> None:
    config = AugmentConfig(1, 5, 1, 5, frequency_mask_probability=0.5, time_mask_probability=0.5)
    hits = masked(config, [30] * 400, keys_of(range(400)))
    in_time, in_frequency = np.asarray(hits.all(2)), np.asarray(hits.all(1))
    both = (in_time.any(1) & in_frequency.any(1)).mean()
    np.testing.assert_allclose(both, (0.5 * 5 / 6) ** 2, atol=4 * np.sqrt(0.17 * 0.83 / 400))


@pytest.mark.parametrize(("share", "length", "most"), [(0.29, 100, 29), (0.25, 30, 7), (0.1, 9, 0), (0.999, 6, 5)])
def test_time_masks_cover_at_most_their_share_of_the_utterance(share: float, length: int, most: int) -> None:
    config = AugmentConfig(0, 0, 1, 1000, time_mask_share=share)
    hits = masked(config, [length] * 600, keys_of(range(600)), size=100)[:, :, 0]
    assert {int(line.sum()) for line in hits} == set(range(most + 1))
    counts = np.bincount(hits.sum(1), minlength=most + 1)
    expected = 600 / (most + 1)
    np.testing.assert_allclose(counts, expected, atol=4.5 * np.sqrt(expected))  # uniform
    assert not hits[:, length:].any()


def test_time_mask_width_and_share_both_hold() -> None:
    for share, width, most in ((0.5, 4, 4), (0.1, 20, 3)):
        config = AugmentConfig(0, 0, 1, width, time_mask_share=share)
        assert masked(config, [30] * 300, keys_of(range(300)))[:, :, 0].sum(1).max() == most


def test_longer_utterances_get_more_time_masks() -> None:
    """Each mask is one frame wide, so in 900 frames nearly every mask is a run of its own."""
    lengths = [0, 9, 10, 19, 20, 59, 900]
    config = AugmentConfig(0, 0, 5, 1, frames_per_time_mask=10)
    hits = masked(config, [n for n in lengths for _ in range(300)], keys_of(range(2100)), size=900)[:, :, 0]
    most = hits.reshape(len(lengths), 300, -1).sum(2).max(1)
    np.testing.assert_array_equal(most, [0, 0, 1, 1, 2, 5, 5])


def warped(spectrograms: np.ndarray, lengths: list[int], centres: list[int], shifts: list[int]) -> np.ndarray:
    numbers = (jnp.array(each, jnp.int32) for each in (lengths, centres, shifts))
    return np.asarray(jax.jit(spec_augment.time_warp)(jnp.asarray(spectrograms), *numbers))


@pytest.mark.parametrize(
    ("length", "centre", "shift"), [(30, 10, 4), (30, 10, -5), (30, 28, -14), (10, 4, 2), (3, 1, 0)]
)
def test_warp_moves_the_impulse_at_the_control_point(length: int, centre: int, shift: int) -> None:
    spectrograms = np.zeros((1, 30, 2), np.float32)
    spectrograms[0, centre] = 3, 5
    outputs = warped(spectrograms, [length], [centre], [shift])[0]
    np.testing.assert_allclose(outputs[centre + shift], [3, 5], rtol=1e-6)
    assert outputs.argmax(0).tolist() == [centre + shift] * 2


def test_warp_reads_between_frames_along_two_straight_lines() -> None:
    ramp = np.arange(30, dtype=np.float32)[None, :, None]  # a frame's value is its index
    outputs = warped(ramp, [25], [8], [8])[0, :25, 0]
    expected = np.interp(np.arange(25), [0, 16, 24], [0, 8, 24])
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_warped_speech_keeps_its_ends_and_its_padding() -> None:
    generator = np.random.default_rng(0)
    spectrograms = generator.normal(size=(4, 30, 5)).astype(np.float32)
    lengths = [30, 21, 10, 4]
    outputs = warped(spectrograms, lengths, [12, 9, 5, 2], [6, -4, 2, -1])
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(outputs[row, [0, length - 1]], spectrograms[row, [0, length - 1]])
        np.testing.assert_array_equal(outputs[row, length:], spectrograms[row, length:])
        assert (outputs[row, 1 : length - 1] != spectrograms[row, 1 : length - 1]).any()


WARP = AugmentConfig(time_warp_frames=12)


def read_places(config: AugmentConfig, lengths: list[int], keys: jax.Array, size: int) -> np.ndarray:
    """Returns the index from which each frame was read: [B, T]. NaN in the padding must not reach valid frames."""
    places = np.where(np.arange(size) < np.array(lengths)[:, None], np.arange(size, dtype=np.float32), np.nan)
    numbers = jnp.array(lengths, jnp.int32)
    outputs = jax.jit(spec_augment.spec_augment, static_argnums=3)(
        jnp.asarray(places)[..., None], numbers, keys, config
    )
    return np.asarray(outputs)[..., 0]


@hypothesis.given(length=st.integers(0, 60), index=st.integers(0, 1000))
@hypothesis.example(length=10, index=0)
def test_warp_keeps_order_ends_and_half_of_each_side(length: int, index: int) -> None:
    places = read_places(WARP, [length], keys_of([index]), 60)[0, :length]
    assert np.isfinite(places).all()
    if length:
        assert (places[0], places[-1]) == (0, length - 1)
    steps = np.diff(places)
    assert ((steps > 0) & (steps < 2.0001)).all()  # at most twice as fast
    assert np.abs(places - np.arange(length)).max(initial=0) <= 12


def test_warps_reach_their_largest_extent_back_and_forward() -> None:
    moves = read_places(WARP, [60] * 500, keys_of(range(500)), 60) - np.arange(60)
    extremes = np.where(moves.max(1) > -moves.min(1), moves.max(1), moves.min(1)).round()
    assert set(extremes) == set(range(-12, 13))
    assert abs(extremes.mean()) < 4 * 12 / np.sqrt(500)


@pytest.mark.parametrize(
    "config", [AugmentConfig(time_warp_probability=1.0), dataclasses.replace(WARP, time_warp_probability=0.0)]
)
def test_no_warp_changes_nothing(config: AugmentConfig) -> None:
    spectrograms = jax.random.normal(jax.random.key(0), (3, 9, NUM_BINS))
    outputs = spec_augment.spec_augment(spectrograms, jnp.array([9, 4, 0]), keys_of(range(3)), config)
    np.testing.assert_array_equal(outputs, spectrograms)


def test_probability_is_the_share_of_utterances_that_are_warped() -> None:
    rare = dataclasses.replace(WARP, time_warp_probability=0.3)
    rarely, always = (read_places(config, [60] * 1000, keys_of(range(1000)), 60) for config in (rare, WARP))
    unchanged = (rarely == np.arange(60)).all(1)
    np.testing.assert_array_equal(rarely[~unchanged], always[~unchanged])
    moved = (always != np.arange(60)).any(1)
    share = (moved & ~unchanged).sum() / moved.sum()
    np.testing.assert_allclose(share, 0.3, atol=4 * np.sqrt(0.3 * 0.7 / 1000))


def test_utterance_decides_its_warp_not_its_row_its_neighbours_or_the_padding() -> None:
    lengths, indices = [60, 34, 10, 1], [4, 8, 2, 6]
    places = read_places(WARP, lengths, keys_of(indices), 60)
    others = read_places(WARP, [0, *lengths[::-1]], keys_of([-1, *indices[::-1]]), 75)
    shorter = read_places(WARP, lengths[1:], keys_of(indices[1:]), 60)
    assert (places[1] != np.arange(60)).any()
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(others[4 - row, :length], places[row, :length])
        if row:
            np.testing.assert_array_equal(shorter[row - 1, :length], places[row, :length])


def test_warps_and_masks_are_drawn_apart() -> None:
    """If both used the same bits, the warped frames 1 to 58 would equal the widths 0 to 57 of the same utterances."""
    places = read_places(WARP, [60] * 200, keys_of(range(200)), 60)
    targets = np.abs(places - np.arange(60)).argmax(1)
    centres = places[np.arange(200), targets].round()
    widths = masked(AugmentConfig(0, 0, 1, 57), [60] * 200, keys_of(range(200)), size=60)[:, :, 0].sum(1)
    assert (centres - 1 == widths).mean() < 0.1


def test_warp_comes_before_the_masks() -> None:
    """If masks were warped, their edges would be soft."""
    config = dataclasses.replace(BOTH, time_warp_frames=12)
    spectrograms = jax.random.uniform(jax.random.key(0), (20, 60, NUM_BINS), minval=1.0, maxval=2.0)
    augmented = jax.jit(spec_augment.spec_augment, static_argnums=3)
    outputs = np.asarray(augmented(spectrograms, jnp.full(20, 60), keys_of(range(20)), config))
    np.testing.assert_array_equal(outputs == 0, masked(BOTH, [60] * 20, keys_of(range(20)), size=60))
    assert ((outputs == 0) | (outputs >= 1)).all()

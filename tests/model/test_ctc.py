"""The CTC loss equals the sum over all paths. Rows without a path have loss 0."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2_jax.config.frames import ctc_min_frames
from ds2_jax.model.ctc import ctc_losses
from ds2_jax.model.masks import is_alignable

NUM_FRAMES, NUM_LABELS, MAX_LABELS = 5, 4, 4
ROWS = [  # valid frames, labels
    (5, [1, 2, 3]),
    (5, [2, 2, 1]),
    (5, [3, 3, 3]),
    (4, [1]),
    (3, [2, 2]),
    (2, [3, 1]),
    (1, [2]),
    (5, []),
    (1, []),
    (2, [1, 1]),  # from here on: no path
    (4, [1, 2, 2, 1]),
    (1, [3, 2]),
    (0, [1]),
    (0, []),
]


def batch() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Makes output_lengths [B], labels [B, N] and num_labels [B] of ROWS. Padding of labels is not blank on purpose."""
    labels = np.full((len(ROWS), MAX_LABELS), 2, np.int32)
    for row, (_, values) in zip(labels, ROWS, strict=True):
        row[: len(values)] = values
    return (
        jnp.array([frames for frames, _ in ROWS], jnp.int32),
        jnp.asarray(labels),
        jnp.array([len(values) for _, values in ROWS], jnp.int32),
    )


def random_logits(scale: float = 2.0) -> np.ndarray:
    """[B, T', V] float64."""
    return scale * np.random.default_rng(0).standard_normal((len(ROWS), NUM_FRAMES, NUM_LABELS))


@jax.jit
def losses_and_gradients(logits: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns losses [B], alignable [B] and the gradient of the sum of the losses [B, T', V]."""
    losses, pullback, alignable = jax.vjp(lambda x: ctc_losses(x, *batch()), logits, has_aux=True)
    return losses, alignable, pullback(jnp.ones_like(losses))[0]


def paths_of(num_frames: int, labels: list[int]) -> list[tuple[int, ...]]:
    """Lists all paths over the frames that give `labels` when repeats are merged and blanks removed."""
    return [
        path
        for path in itertools.product(range(NUM_LABELS), repeat=num_frames)
        if [label for label, _ in itertools.groupby(path) if label] == labels
    ]


def probability_and_gradient(logits: np.ndarray, labels: list[int]) -> tuple[float, np.ndarray]:
    """Computes -log of the summed probability of all paths, and its gradient: softmax minus expected occupancy."""
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total, occupancy = 0.0, np.zeros_like(probs)
    for path in paths_of(len(logits), labels):
        spot = (np.arange(len(logits)), np.array(path))
        probability = probs[spot].prod()
        total += probability
        occupancy[spot] += probability
    return -np.log(total), probs - occupancy / total


def has_path(row: tuple[int, list[int]]) -> bool:
    return row[0] > 0 and bool(paths_of(*row))


@pytest.mark.parametrize(("float_type", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_loss_and_gradient_sum_over_all_paths(float_type: type, tolerance: float) -> None:
    logits = random_logits()
    with jax.enable_x64(float_type is np.float64):
        losses, alignable, gradients = losses_and_gradients(logits.astype(float_type))
    assert losses.dtype == gradients.dtype == float_type
    for row, (num_frames, labels) in enumerate(ROWS):
        assert bool(alignable[row]) == has_path(ROWS[row])
        if alignable[row]:
            loss, gradient = probability_and_gradient(logits[row, :num_frames], labels)
            assert losses[row] == pytest.approx(loss, rel=tolerance)
            np.testing.assert_allclose(gradients[row, :num_frames], gradient, rtol=0, atol=tolerance)


def test_gradient_is_that_of_optax_in_float64() -> None:
    """Rows are too long for a sum over paths. Some have repeats, one has no labels."""
    rng = np.random.default_rng(1)
    num_frames, num_labels = np.array([90, 71, 40, 33, 12]), np.array([40, 23, 15, 11, 0])
    labels = jnp.asarray(rng.integers(1, 4, (5, 40)), jnp.int32)  # three labels: many repeats
    with jax.enable_x64(True):
        logits = jnp.asarray(3 * rng.standard_normal((5, 90, 4)))
        weights = jnp.asarray(rng.standard_normal(5))

        def ours(logits: jax.Array) -> jax.Array:
            return (weights * ctc_losses(logits, jnp.asarray(num_frames), labels, jnp.asarray(num_labels))[0]).sum()

        def optaxs(logits: jax.Array) -> jax.Array:
            paddings = [np.arange(size) >= count[:, None] for size, count in ((90, num_frames), (40, num_labels))]
            return (weights * optax.ctc_loss(logits, paddings[0] * 1.0, labels, paddings[1] * 1.0)).sum()

        assert is_alignable(jnp.asarray(num_frames), labels, jnp.asarray(num_labels)).all()
        np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(optaxs)(logits), rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_row_without_a_path_has_neither_loss_nor_gradient(scale: float) -> None:
    losses, alignable, gradients = losses_and_gradients(random_logits(scale).astype(np.float32))
    assert not alignable[9:].any()
    np.testing.assert_array_equal(losses[9:], 0)
    np.testing.assert_array_equal(gradients[9:], 0)


@pytest.mark.parametrize("filler", [np.nan, np.inf])
def test_logits_past_the_length_and_of_rows_without_a_path_do_not_matter(filler: float) -> None:
    clean = random_logits().astype(np.float32)
    dirty = clean.copy()
    for row, (num_frames, _) in enumerate(ROWS):
        dirty[row, num_frames if has_path(ROWS[row]) else 0 :] = filler
    for one, other in zip(losses_and_gradients(clean), losses_and_gradients(dirty), strict=True):
        assert np.isfinite(other).all()
        np.testing.assert_array_equal(one, other)
    _, _, gradients = losses_and_gradients(dirty)
    for row, (num_frames, _) in enumerate(ROWS):
        assert not gradients[row, num_frames:].any()


def test_loss_of_certain_logits_is_never_negative() -> None:
    """Logits favour one path with rising certainty. Without the bound, rounding takes the loss below 0."""
    for seed, height in enumerate(np.linspace(5, 100, 20)):
        logits = np.random.default_rng(seed).uniform(0, 1e-2, (len(ROWS), NUM_FRAMES, NUM_LABELS))
        for row, (num_frames, labels) in enumerate(ROWS):
            for frame, label in enumerate(paths_of(num_frames, labels)[0] if has_path(ROWS[row]) else ()):
                logits[row, frame, label] += height
        losses, _, gradients = losses_and_gradients(logits.astype(np.float32))
        assert (losses >= 0).all()
        assert (losses <= 5 * 1.1 * NUM_LABELS * np.exp(0.02 - height) + 1e-5).all()  # other paths are as unlikely
        assert np.isfinite(gradients).all()


alignable = jax.jit(is_alignable)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 17), st.lists(st.integers(1, 3), max_size=8)), min_size=6, max_size=6),
    st.integers(1, 3),
)
def test_alignable_counts_labels_and_repeats(rows: list[tuple[int, list[int]]], filler: int) -> None:
    labels = np.full((len(rows), 8), filler, np.int32)
    for row, (_, values) in zip(labels, rows, strict=True):
        row[: len(values)] = values
    num_frames = jnp.array([frames for frames, _ in rows], jnp.int32)
    actual = alignable(num_frames, jnp.asarray(labels), jnp.array([len(values) for _, values in rows], jnp.int32))
    expected = [frames > 0 and ctc_min_frames(values) <= frames for frames, values in rows]
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("labels", [[], [1], [1, 1], [1, 2, 1], [2, 2, 2], [1, 1, 2, 2]])
def test_fewest_frames_are_those_of_the_shortest_path(labels: list[int]) -> None:
    fewest = next(n for n in range(8) if paths_of(n, labels))
    assert ctc_min_frames(labels) == fewest

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.config.frames import Count, conv_output_lengths, count_frames, ctc_min_frames, ctc_min_samples
from ds2_jax.model.masks import mask_from_lengths, paddings_from_lengths


def test_an_empty_row_has_no_frames() -> None:
    assert count_frames(0, 160) == 0
    assert conv_output_lengths(0) == 0


@pytest.mark.parametrize(("kernels", "strides"), [((11, 11), (2, 1)), ((11, 11), (2, 2)), ((1, 5), (2, 2))])
def test_conv_output_lengths_are_those_of_real_convolutions(kernels: tuple[int, int], strides: tuple[int, int]) -> None:
    def convolve(x: jax.Array) -> jax.Array:
        for taps, stride in zip(kernels, strides, strict=True):
            x = jax.lax.conv_general_dilated(x, jnp.zeros((1, 1, taps)), (stride,), [(taps // 2, taps // 2)])
        return x

    for size in range(1, 60):
        shape = jax.eval_shape(convolve, jax.ShapeDtypeStruct((1, 1, size), jnp.float32)).shape
        assert conv_output_lengths(size, time_reduction=strides[0] * strides[1]) == shape[-1]


@given(st.lists(st.integers(0, 10**6), min_size=4, max_size=4))
def test_integers_numpy_and_jax_count_alike(counts: list[int]) -> None:
    def output_lengths(num_samples: Count) -> Count:
        return conv_output_lengths(count_frames(num_samples, 160), 4)

    expected = [output_lengths(count) for count in counts]
    for result in (output_lengths(np.array(counts, np.int32)), output_lengths(jnp.array(counts, jnp.int32))):
        assert result.dtype == np.int32
        np.testing.assert_array_equal(result, expected)


def test_masks_and_paddings() -> None:
    mask = mask_from_lengths(jnp.array([0, 1, 3]), 3)
    np.testing.assert_array_equal(mask, [[False, False, False], [True, False, False], [True, True, True]])
    paddings = paddings_from_lengths(jnp.array([0, 1, 3]), 3)
    assert paddings.dtype == jnp.float32
    np.testing.assert_array_equal(paddings, [[1, 1, 1], [0, 1, 1], [0, 0, 0]])


@given(st.lists(st.integers(1, 2), max_size=4))
def test_ctc_min_frames_is_the_length_of_the_shortest_path(labels: list[int]) -> None:
    def collapse(path: tuple[int, ...]) -> list[int]:
        return [label for label, _ in itertools.groupby(path) if label != 0]

    shortest = next(
        size
        for size in itertools.count()
        if any(collapse(p) == labels for p in itertools.product(range(3), repeat=size))
    )
    assert ctc_min_frames(labels) == shortest


@given(st.integers(2, 50), st.integers(1, 300), st.sampled_from([2, 4]))
def test_no_fewer_samples_give_as_many_output_frames(min_frames: int, hop_length: int, time_reduction: int) -> None:
    def outputs(num_samples: int) -> int:
        return conv_output_lengths(count_frames(num_samples, hop_length), time_reduction)

    least = ctc_min_samples(min_frames, hop_length, time_reduction)
    assert outputs(least) >= min_frames > outputs(least - 1)
    assert ctc_min_samples(1, hop_length, time_reduction) == 0

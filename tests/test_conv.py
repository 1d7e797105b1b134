"""conv.py: the folded convolution is the ordinary one, and so are its gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2_jax.conv import strided_conv

taps = st.integers(0, 4).map(lambda half: 2 * half + 1)
pairs_of_strides = st.tuples(st.integers(1, 4), st.integers(1, 4))


def plain_conv(inputs: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """XLA's own strided convolution, padded by half the kernel."""
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        inputs, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def assert_same(
    shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: tuple[int, int], tolerance: float
) -> None:
    """Values and both gradients, in the float type that is on."""
    rng = np.random.default_rng(0)
    inputs, kernel = jnp.array(rng.standard_normal(shape)), jnp.array(rng.standard_normal(kernel_shape))
    out_shape = (shape[0], -(-shape[1] // strides[0]), -(-shape[2] // strides[1]), kernel_shape[3])
    cotangent = jnp.array(rng.standard_normal(out_shape))

    @jax.jit
    def run(inputs: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Any:
        results = []
        for conv in (strided_conv, plain_conv):
            outputs, pullback = jax.vjp(lambda x, k, conv=conv: conv(x, k, strides), inputs, kernel)
            results.append((outputs, *pullback(cotangent)))
        return results

    for name, actual, expected in zip(
        ("value", "input gradient", "kernel gradient"), *run(inputs, kernel, cotangent), strict=True
    ):
        assert actual.shape == expected.shape
        error = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-3)
        assert error <= tolerance, f"{name} is off by {error:.1e}"


@settings(max_examples=10, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    taps=st.tuples(taps, taps),
    strides=pairs_of_strides,
    channels=st.sampled_from([(1, 2), (3, 1), (2, 3)]),
)
def test_equals_the_plain_convolution(
    sizes: tuple[int, int], taps: tuple[int, int], strides: tuple[int, int], channels: tuple[int, int]
) -> None:
    with jax.enable_x64(True):
        assert_same((2, *sizes, channels[0]), (*taps, *channels), strides, 1e-12)


@pytest.mark.parametrize("strides", [(2, 2), (1, 2)])
def test_equals_the_plain_convolution_at_the_models_kernel(strides: tuple[int, int]) -> None:
    assert_same((2, 24, 161, 1), (11, 41, 1, 4), strides, 1e-5)

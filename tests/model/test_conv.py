"""The folded convolution and its gradients equal those of XLA's strided convolution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2_jax.model.conv import BLOCK, direct_conv, fourier_conv, strided_conv

taps = st.integers(0, 4).map(lambda half: 2 * half + 1)
pairs_of_strides = st.tuples(st.integers(1, 4), st.integers(1, 4))


def plain_conv(inputs: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Runs XLA's own strided convolution, padded by half the kernel."""
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        inputs, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def assert_same(
    shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: tuple[int, int], tolerance: float
) -> None:
    """Compares values and both gradients in the enabled float type."""
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


@settings(max_examples=10, deadline=None)
@given(
    out_frames=st.integers(1, 3 * BLOCK),
    taps=st.tuples(st.integers(1, 11), st.integers(1, 5)),
    out_bins=st.integers(1, 6),
    channels=st.sampled_from([(1, 2), (3, 1), (2, 3)]),
)
def test_fourier_route_equals_the_direct_one(
    out_frames: int, taps: tuple[int, int], out_bins: int, channels: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        inputs = jnp.array(rng.standard_normal((2, out_frames + taps[0] - 1, out_bins + taps[1] - 1, channels[0])))
        kernel = jnp.array(rng.standard_normal((*taps, *channels)))
        actual, expected = jax.jit(fourier_conv)(inputs, kernel), direct_conv(inputs, kernel)
        assert actual.shape == expected.shape == (2, out_frames, out_bins, channels[1])
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize(("batch", "fourier"), [(16, True), (1, False)])
def test_value_alone_takes_the_faster_route_for_its_size(batch: int, fourier: bool) -> None:
    """Counts convolution operations from the shapes, without computing: one if direct, none with Fourier transforms."""
    inputs = jax.ShapeDtypeStruct((batch, 229, 81, 32), jnp.float32)
    kernel = jax.ShapeDtypeStruct((11, 21, 32, 32), jnp.float32)
    text = jax.jit(lambda x, k: strided_conv(x, k, (1, 2))).lower(inputs, kernel).as_text()
    assert ("stablehlo.convolution" not in text) is fourier


def test_accelerators_keep_the_compilers_convolution() -> None:
    inputs = jax.ShapeDtypeStruct((16, 229, 81, 32), jnp.float32)
    kernel = jax.ShapeDtypeStruct((11, 21, 32, 32), jnp.float32)

    def summed(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        return strided_conv(inputs, kernel, (1, 2)).sum()

    traced = jax.jit(jax.grad(summed, (0, 1))).trace(inputs, kernel)
    counts = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.convolution")
        for platform in ("cpu", "cuda", "tpu")
    }
    assert counts["cpu"] == 0
    assert counts["cuda"] == counts["tpu"] >= 2


@pytest.mark.parametrize("strides", [(2, 2), (1, 2)])
def test_equals_the_plain_convolution_at_the_models_kernel(strides: tuple[int, int]) -> None:
    assert_same((2, 24, 161, 1), (11, 41, 1, 4), strides, 1e-5)

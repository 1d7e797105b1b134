"""The convolution with Fourier transforms equals ONNX's own."""

import numpy as np
import onnxruntime
import pytest

from ds2_jax.config import Config
from ds2_jax.engines import fourier, stages
from ds2_jax.engines.builder import Graph

RNG = np.random.default_rng(0)


def convolved(direct: bool, values: np.ndarray, kernel: np.ndarray, strides: tuple[int, int]) -> np.ndarray:
    """Convolves [B, C, F, T] with 1 frame padded before and 2 behind."""
    g, taps = Graph(), kernel.shape[2] // 2
    if direct:
        name = g("Conv", "values", kernel, strides=list(strides), pads=[taps, 1, taps, 2])
    else:
        name = fourier.conv(g, "values", values.shape[2], kernel, strides, (1, 2))
    inputs = [stages.value("values", np.float32, *values.shape)]
    model = g.model(Config(), inputs, {name: stages.value("outputs", np.float32, "B", "C", "F", "T")})
    (outputs,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"values": values})
    return np.asarray(outputs)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("num_bins", "taps"), [(12, 5), (13, 5), (13, 7), (4, 9), (1, 3), (8, 1)])
@pytest.mark.parametrize("time_stride", [1, 2])
def test_equals_the_operator(num_bins: int, taps: int, stride: int, time_stride: int) -> None:
    values = RNG.standard_normal((2, 3, num_bins, 10)).astype(np.float32)
    kernel = RNG.standard_normal((5, 3, taps, 4)).astype(np.float32)
    strides = stride, time_stride
    expected = convolved(True, values, kernel, strides)
    actual = convolved(False, values, kernel, strides)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=3e-6 * np.abs(expected).max())


def test_the_long_kernels_of_the_default_model_take_it_and_short_ones_do_not() -> None:
    assert fourier.is_faster(161, (32, 1, 41, 11), (2, 2))
    assert fourier.is_faster(81, (32, 32, 21, 11), (2, 1))
    assert not fourier.is_faster(32, (16, 16, 11, 11), (2, 2))
    assert not fourier.is_faster(81, (32, 32, 3, 11), (2, 1))

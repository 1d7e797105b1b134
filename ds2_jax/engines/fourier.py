"""A convolution over time and frequency as ONNX operators, with Fourier transforms along the axis of frequency.

A kernel of many taps along that axis costs a multiplication per tap and bin. Between discrete Fourier transforms it
costs four per frequency, whatever its length. Over time it stays a convolution. The transforms are products with
matrices of cosines and sines, since ONNX's DFT has one axis and no layout to choose. A stride is folded into the
channels: `stride` neighbouring bins become as many channels, so that the kernel has a stride of 1 there.
"""

import numpy as np

from ds2_jax.engines.builder import Graph

WORTH = 0.57
"""Largest share of the direct convolution's multiplications that makes up for the transposes. Those with a share of
0.28, 0.40, 0.55 and 0.60 took 0.36, 0.35, 0.6 and 0.9 of the time of ONNX Runtime's operator."""


def is_faster(num_bins: int, kernel_shape: tuple[int, ...], strides: tuple[int, int]) -> bool:
    """Decides from the shapes of `conv` whether it takes less time than ONNX's operator."""
    size, channels, freq_taps, time_taps = kernel_shape
    num_outputs, _, frequencies = _sizes(num_bins, freq_taps, strides[0])
    numbers = 2 * frequencies
    transforms = numbers * strides[0] * num_bins * channels * strides[1] + num_outputs * numbers * size
    products = numbers * 2 * strides[0] * channels * size * time_taps
    return transforms + products < WORTH * num_outputs * freq_taps * channels * size * time_taps


def conv(
    g: Graph, hidden: str, num_bins: int, kernel: np.ndarray, strides: tuple[int, int], pads: tuple[int, int]
) -> str:
    """Convolves [B, C, F, T] to [B, C', F', T'].

    Args:
        g: the graph.
        hidden: [B, C, F, T].
        num_bins: F.
        kernel: [C', C, frequency taps, time taps], with an odd number of frequency taps; half of them are padded.
        strides: over frequency and time.
        pads: over time, before and behind.
    """
    size, channels, taps, time_taps = kernel.shape
    stride = strides[0]
    num_outputs, length, frequencies = _sizes(num_bins, taps, stride)
    folded = np.pad(kernel, ((0, 0), (0, 0), (0, -taps % stride), (0, 0)))
    folded = folded.reshape(size, channels, -1, stride, time_taps)
    angles = 2 * np.pi / length * np.outer(np.arange(frequencies), np.arange(length))
    cos, sin = np.cos(angles), np.sin(angles)

    # Position m of phase p is bin stride * m + p - taps // 2; outside of the bins it is zero.
    forward = np.zeros((frequencies, 2, stride, num_bins))
    for phase in range(stride):
        bins = stride * np.arange(length) + phase - taps // 2
        inside = (bins >= 0) & (bins < num_bins)
        forward[:, 0, phase, bins[inside]], forward[:, 1, phase, bins[inside]] = cos[:, inside], -sin[:, inside]
    spectra = g("MatMul", forward.reshape(-1, num_bins).astype(np.float32), hidden)  # [B, C, frequencies * 2p, T]
    spectra = g("Transpose", spectra, perm=[0, 2, 1, 3])
    wide = 2 * stride * channels
    spectra = g("Reshape", spectra, np.array([0, frequencies * wide, 1, -1]))

    # A convolutional layer computes a correlation, so the kernel's transform is the conjugate.
    real, imaginary = (np.einsum("kt,octpw->kopcw", each[:, : folded.shape[2]], folded) for each in (cos, sin))
    rows = np.stack([real, -imaginary], axis=2), np.stack([imaginary, real], axis=2)  # [k, C', re/im, p, C, time taps]
    weights = np.stack(rows, axis=1).reshape(frequencies * 2 * size, wide, 1, time_taps)
    around = [0, pads[0], 0, pads[1]]
    spectra = g(
        "Conv", spectra, weights.astype(np.float32), group=frequencies, strides=[1, strides[1]], pads=around
    )  # [B, frequencies * 2 * C', 1, T']

    counted = np.where((np.arange(frequencies) == 0) | (2 * np.arange(frequencies) == length), 1, 2) / length
    back = np.stack([cos, -sin], axis=1)[..., :num_outputs] * counted[:, None, None]
    spectra = g("Reshape", spectra, np.array([0, 2 * frequencies, -1]))
    outputs = g("MatMul", back.reshape(2 * frequencies, num_outputs).T.astype(np.float32), spectra)
    outputs = g("Reshape", outputs, np.array([0, num_outputs, size, -1]))
    return str(g("Transpose", outputs, perm=[0, 2, 1, 3]))


def _sizes(num_bins: int, taps: int, stride: int) -> tuple[int, int, int]:
    """Returns the number of output bins, the length of the transforms and the number of their frequencies."""
    num_outputs = -(-num_bins // stride)
    length = num_outputs + -(-taps // stride) - 1
    return num_outputs, length, length // 2 + 1

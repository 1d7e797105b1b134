"""The strided 2-D convolution of the front end, as an array function."""

import jax
import jax.numpy as jnp


def strided_conv(inputs: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Convolution over time and frequency, padded by half the kernel on each side.

    A stride s is folded into the channels: s neighbouring positions become s times the channels, and the kernel
    (with zero taps up to a multiple of s) becomes an ordinary one of stride 1. The sums are the same, but neither
    gradient is then a dilated convolution, which XLA runs about ten times slower on a CPU.

    Args:
        inputs: [B, T, F, C] float.
        kernel: [time taps, frequency taps, C, C'] float, odd numbers of taps.
        strides: over time and frequency.

    Returns:
        [B, ceil(T / strides[0]), ceil(F / strides[1]), C'] float.

    Source: torch.nn.Conv2d(C, C', taps, strides, padding=taps // 2), without its bias.
    """
    batch, *_, channels = inputs.shape
    folded_sizes, folded_taps, input_pads, kernel_pads = [], [], [], []
    for size, taps, stride in zip(inputs.shape[1:3], kernel.shape[:2], strides, strict=True):
        num_taps = -(-taps // stride)
        folded_size = -(-size // stride) + num_taps - 1
        folded_sizes.append(folded_size)
        folded_taps.append(num_taps)
        # The right pad is negative where the last positions meet no tap.
        input_pads.append((taps // 2, folded_size * stride - taps // 2 - size, 0))
        kernel_pads.append((0, num_taps * stride - taps))
    (time, freq), (time_taps, freq_taps), (time_stride, freq_stride) = folded_sizes, folded_taps, strides
    num_folded = time_stride * freq_stride * channels

    inputs = jax.lax.pad(inputs, jnp.zeros((), inputs.dtype), ((0, 0, 0), *input_pads, (0, 0, 0)))
    inputs = inputs.reshape(batch, time, time_stride, freq, freq_stride, channels)
    inputs = inputs.transpose(0, 1, 3, 2, 4, 5).reshape(batch, time, freq, num_folded)
    kernel = jnp.pad(kernel, (*kernel_pads, (0, 0), (0, 0)))
    kernel = kernel.reshape(time_taps, time_stride, freq_taps, freq_stride, channels, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(time_taps, freq_taps, num_folded, -1)
    return jax.lax.conv_general_dilated(inputs, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

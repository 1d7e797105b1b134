"""The front end's strided 2-D convolution as an array function."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

BLOCK = 60
"""Approximate number of output frames in a block of `fourier_conv`. In longer blocks the transforms cost more and the
overlaps less. Blocks of 38, 54, 78, 118 and 230 frames took 0.77, 0.40, 0.42, 0.45 and 0.68 s for the second
convolution and its gradients."""


def strided_conv(inputs: jax.Array, kernel: jax.Array, strides: tuple[int, int], *, pad_time: bool = True) -> jax.Array:
    """Convolves over time and frequency, padded by half the kernel on each side.

    The strides are folded into the channels: s neighbouring positions become s times as many channels, and the kernel,
    padded with zero taps to a multiple of s, becomes a kernel of stride 1. The sums are the same. Without strides
    neither gradient is a dilated convolution, which XLA runs about ten times slower on a CPU.

    Args:
        inputs: [B, T, F, C] float.
        kernel: [time taps, frequency taps, C, C'] float, with odd numbers of taps.
        strides: strides over time and frequency.
        pad_time: whether to pad over time too; otherwise only whole kernels count.

    Returns:
        [B, T', ceil(F / strides[1]), C'] float, where T' is ceil(T / strides[0]), or without padding
        1 + (T - taps) // strides[0].

    Source: torch.nn.Conv2d(C, C', taps, strides, padding=taps // 2), without its bias.
    """
    inputs, kernel = _fold_strides(
        inputs, kernel, strides, (kernel.shape[0] // 2 if pad_time else 0, kernel.shape[1] // 2)
    )
    if inputs.dtype == jnp.bfloat16:
        return direct_conv(inputs, kernel)
    # GPUs and TPUs use the compiler's own convolution.
    outputs: jax.Array = jax.lax.platform_dependent(inputs, kernel, cpu=_conv_on_cpu, default=direct_conv)
    return outputs


def _fold_strides(
    inputs: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Rewrites a convolution with strides and padding as one without: returns the padded inputs and the kernel."""
    batch, *_, channels = inputs.shape
    folded_sizes, folded_taps, input_pads, kernel_pads = [], [], [], []
    for size, taps, stride, pad in zip(inputs.shape[1:3], kernel.shape[:2], strides, pads, strict=True):
        num_taps = -(-taps // stride)
        num_outputs = 1 + (size + 2 * pad - taps) // stride  # ceil(size / stride) with odd taps and half of them as pad
        folded_size = num_outputs + num_taps - 1
        folded_sizes.append(folded_size)
        folded_taps.append(num_taps)
        # The right pad is negative if no tap reaches the last positions.
        input_pads.append((pad, folded_size * stride - pad - size, 0))
        kernel_pads.append((0, num_taps * stride - taps))
    (time, freq), (time_taps, freq_taps), (time_stride, freq_stride) = folded_sizes, folded_taps, strides
    num_folded = time_stride * freq_stride * channels

    inputs = jax.lax.pad(inputs, jnp.zeros((), inputs.dtype), ((0, 0, 0), *input_pads, (0, 0, 0)))
    inputs = inputs.reshape(batch, time, time_stride, freq, freq_stride, channels)
    inputs = inputs.transpose(0, 1, 3, 2, 4, 5).reshape(batch, time, freq, num_folded)
    kernel = jnp.pad(kernel, (*kernel_pads, (0, 0), (0, 0)))
    kernel = kernel.reshape(time_taps, time_stride, freq_taps, freq_stride, channels, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(time_taps, freq_taps, num_folded, -1)
    return inputs, kernel


def direct_conv(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Runs XLA's convolution: [B, T, F, C], [time taps, freq. taps, C, C'] -> [B, T - taps + 1, F - taps + 1, C']."""
    return jax.lax.conv_general_dilated(inputs, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


# XLA's weight gradient of a convolution is the slowest part of a training step on a CPU. Fourier transforms compute the
# value and both gradients faster (medians on two cores, Fourier against direct). Default model with 16 x 457 frames:
# 0.20 against 0.77 s for the first convolution (without its input's gradient), 0.40 against 2.68 s for the second.
# configs/an4_cpu.py: 14 against 19 ms, 46 against 58 ms. configs/quickstart.py: 13 against 22 ms, 14 against 28 ms.
@jax.custom_vjp
def _conv_on_cpu(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `direct_conv`, with Fourier transforms if they are faster."""
    conv = fourier_conv if _fourier_is_faster(inputs.shape, kernel.shape) else direct_conv
    return conv(inputs, kernel)


_conv_on_cpu.defvjp(
    lambda inputs, kernel: jax.vjp(fourier_conv, inputs, kernel), lambda pullback, d_outputs: pullback(d_outputs)
)


def _fourier_is_faster(inputs: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Decides from the shapes whether Fourier transforms compute the value, without gradients, faster.

    It counts multiplications, with weights for memory traffic. Measured, Fourier against direct: the second convolution
    of the default model took 0.21 against 0.63 s for 16 utterances, but 0.09 against 0.04 s for one; the first took
    0.12 against 0.07 s. The count is right in eight of ten measured cases and loses 1 and 3 ms in the others.
    """
    batch, num_frames, num_bins, channels = inputs
    if jax.export.is_symbolic_dim(batch * num_frames):
        return False
    time_taps, freq_taps, _, new_channels = kernel
    out_frames, out_bins = num_frames - time_taps + 1, num_bins - freq_taps + 1
    frames = BLOCK + time_taps - 1
    of_inputs = frames * (frames + 2 * num_bins) * num_bins * channels
    of_products = 2 * frames * num_bins * channels * new_channels
    of_outputs = frames * (2 * num_bins + BLOCK) * out_bins * new_channels
    of_kernel = (time_taps + 2 * num_bins) * frames * freq_taps * channels * new_channels
    fourier = 2 * batch * out_frames / BLOCK * (of_inputs + of_products + of_outputs) + 20 * of_kernel
    return fourier < batch * out_frames * out_bins * time_taps * freq_taps * channels * new_channels


def fourier_conv(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `direct_conv` with discrete Fourier transforms of blocks of frames (overlap and save).

    The transforms are products with matrices of cosines and sines. At these sizes such products are cheap. They read
    only the existing taps, compute only the outputs needed, and write each array in the order that the next product
    reads. The same holds for their gradients, which JAX derives. A complex number is a pair of real numbers on an axis
    of its own.
    """
    batch, num_frames, num_bins, channels = inputs.shape
    time_taps, freq_taps, _, new_channels = kernel.shape
    out_frames, out_bins = num_frames - time_taps + 1, num_bins - freq_taps + 1
    block = max(-(-out_frames // max(round(out_frames / BLOCK), 1)), time_taps - 1)
    num_blocks = -(-out_frames // block)
    block_input = block + time_taps - 1
    num_times, num_freqs = block_input // 2 + 1, num_bins  # half of the frequencies of real frames suffice

    def of_frames(matrix: np.ndarray, arrays: jax.Array) -> jax.Array:
        return jnp.matmul(jnp.asarray(matrix, inputs.dtype), arrays)

    def of_bins(matrix: np.ndarray, arrays: jax.Array) -> jax.Array:
        """Computes one product for each frequency of the frames."""
        matrices = jnp.broadcast_to(jnp.asarray(matrix, inputs.dtype), (num_times, *matrix.shape))
        return jnp.matmul(matrices, arrays.reshape(num_times, matrix.shape[1], -1))

    # A block reads its own frames and the first frames of the next block.
    inputs = jnp.pad(inputs, ((0, 0), (0, (num_blocks + 1) * block - num_frames), (0, 0), (0, 0)))
    blocks = inputs.reshape(batch, num_blocks + 1, block, num_bins, channels)
    blocks = jnp.concatenate([blocks[:, :-1], blocks[:, 1:, : time_taps - 1]], axis=2)
    blocks = blocks.transpose(2, 3, 4, 1, 0).reshape(block_input, -1)  # [T, F * C * blocks * B]
    spectra = of_bins(_complex_dft(num_freqs, num_bins, -1), of_frames(_real_dft(block_input, block_input, -1), blocks))
    spectra = spectra.reshape(num_times * num_freqs, 2 * channels, -1)  # [points, re/im * C, blocks * B]

    @jax.checkpoint  # the gradient transforms the kernel again: saves 56 MiB at no measurable cost in time
    def times_kernel(spectra: jax.Array, kernel: jax.Array) -> jax.Array:
        # The kernel's transform is the conjugate, because a convolutional layer computes a correlation.
        taps = kernel.transpose(0, 1, 3, 2).reshape(time_taps, -1)
        taps = of_bins(_complex_dft(num_freqs, freq_taps, 1), of_frames(_real_dft(block_input, time_taps, 1), taps))
        real, imag = jnp.moveaxis(taps.reshape(num_times * num_freqs, 2, new_channels, channels), 1, 0)
        rows = jnp.concatenate([real, -imag], axis=2), jnp.concatenate([imag, real], axis=2)
        taps = jnp.concatenate(rows, axis=1)  # [points, re/im * C', re/im * C]
        return jnp.matmul(taps, spectra)

    spectra = times_kernel(spectra, kernel)  # [points, re/im * C', blocks * B]
    blocks = of_bins(_complex_inverse(num_freqs, out_bins), spectra)  # [T / 2, re/im * F' * C' * blocks * B]
    blocks = of_frames(_real_inverse(block_input, block), blocks.reshape(2 * num_times, -1))
    blocks = blocks.reshape(block, out_bins, new_channels, num_blocks, batch)
    outputs = blocks.transpose(4, 3, 0, 1, 2).reshape(batch, num_blocks * block, out_bins, new_channels)
    return outputs[:, :out_frames]


def _angles(size: int, num_positions: int) -> np.ndarray:
    """Returns the angle of each frequency at each position: [size, num_positions]."""
    return 2 * np.pi / size * np.outer(np.arange(size), np.arange(num_positions))


def _real_dft(size: int, num_positions: int, sign: int) -> np.ndarray:
    """Makes the matrix from real positions to complex frequencies: [(frequencies 0 to size / 2) * re/im, positions]."""
    angles = _angles(size, num_positions)[: size // 2 + 1]
    return np.stack([np.cos(angles), sign * np.sin(angles)], axis=1).reshape(-1, num_positions)


def _complex_dft(size: int, num_positions: int, sign: int) -> np.ndarray:
    """Makes the matrix from complex positions to complex frequencies: [frequencies * re/im, re/im * positions]."""
    angles = _angles(size, num_positions)
    cos, sin = np.cos(angles), sign * np.sin(angles)
    return np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1).reshape(2 * size, -1)


def _complex_inverse(size: int, num_positions: int) -> np.ndarray:
    """Makes the matrix from complex frequencies to complex positions: [re/im * positions, frequencies * re/im]."""
    return _complex_dft(size, num_positions, -1).T / size


def _real_inverse(size: int, num_positions: int) -> np.ndarray:
    """Makes the matrix from complex frequencies to real positions: [positions, (frequencies 0 to size / 2) * re/im]."""
    frequencies = np.arange(size // 2 + 1)
    counted = np.where((frequencies == 0) | (2 * frequencies == size), 1, 2)  # 2: the conjugate counts too
    inverse: np.ndarray = _real_dft(size, num_positions, -1).T * np.repeat(counted, 2) / size
    return inverse

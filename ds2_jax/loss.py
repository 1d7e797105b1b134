"""CTC over optax.ctc_loss, safe on rows that cannot be aligned and on empty rows."""

import jax
import jax.numpy as jnp
import optax

from ds2_jax import lengths


def ctc_losses(
    logits: jax.Array, output_lengths: jax.Array, labels: jax.Array, num_labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood of each row's labels.

    Args:
        logits: [B, T', V] float, unnormalised; blank is label 0; anything past `output_lengths`.
        output_lengths: [B] int32, valid frames.
        labels: [B, N] int32, right-padded.
        num_labels: [B] int32, valid labels.

    Returns:
        losses: [B] float, nats per utterance, never negative; 0, with a gradient of 0, for a row without alignment.
        alignable: [B] bool; False for an empty row and where the frames are fewer than CTC needs (labels plus
            adjacent repeats).

    Differs: optax.ctc_loss gives about 1e5 and ordinary gradients for rows without alignment, may fall slightly below
        0, and picks labels by a product in the accelerator's default precision (bfloat16 on TPU, TF32 on GPU).
    """
    alignable = lengths.alignable(output_lengths, labels, num_labels)
    mask = lengths.mask_from_lengths(output_lengths, logits.shape[1]) & alignable[:, None]
    logits = jnp.where(mask[..., None], logits, 0)  # values first: a NaN must not reach the recursion
    with jax.default_matmul_precision("highest"):
        losses = optax.ctc_loss(
            logits,
            lengths.paddings_from_lengths(output_lengths, logits.shape[1]).astype(logits.dtype),
            labels,
            lengths.paddings_from_lengths(num_labels, labels.shape[1]).astype(logits.dtype),
        )
    return jnp.where(alignable, jnp.maximum(losses, 0), 0), alignable

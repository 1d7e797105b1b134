"""CTC loss: optax.ctc_loss with an analytic gradient. Empty rows and rows that cannot be aligned give 0."""

import jax
import jax.numpy as jnp
import optax

from ds2_jax.model.masks import is_alignable, mask_from_lengths, paddings_from_lengths

LOG_ZERO = -1e30
"""Stands for log 0. It is finite, because subtracting two infinities gives NaN."""

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def ctc_losses(
    logits: jax.Array, output_lengths: jax.Array, labels: jax.Array, num_labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes the negative log-likelihood of each row's labels.

    Args:
        logits: [B, T', V] float, unnormalised. Blank is label 0. Values past `output_lengths` are ignored.
        output_lengths: [B] int32, valid frames.
        labels: [B, N] int32, right-padded.
        num_labels: [B] int32, valid labels.

    Returns:
        losses: [B] float, nats per utterance, never negative. A row that cannot be aligned has loss 0 and gradient 0.
        alignable: [B] bool. False for an empty row, and for a row with fewer frames than CTC needs (labels plus
            adjacent repeats).

    Differs: for rows that cannot be aligned, optax.ctc_loss gives about 1e5 and ordinary gradients. Its losses may fall
        slightly below 0. It selects labels with a matrix product in the accelerator's default precision (bfloat16 on
        TPU, TF32 on GPU).
    """
    alignable = is_alignable(output_lengths, labels, num_labels)
    mask = mask_from_lengths(output_lengths, logits.shape[1]) & alignable[:, None]
    logits = jnp.where(mask[..., None], logits, 0)  # before the recursion, so that no NaN reaches it
    return jnp.where(alignable, _losses(logits, output_lengths, labels, num_labels), 0), alignable


# Autodiff through the recursion of optax.ctc_loss subtracts log-likelihoods of all frames so far, about -700 after 200
# frames. In float32 a frame's gradient is then off by 2.2e-4 of its largest entry (PyTorch: 4.8e-4). The rule below
# rescales both recursions at every frame and is off by 2e-6.
@jax.custom_vjp
def _losses(logits: jax.Array, output_lengths: jax.Array, labels: jax.Array, num_labels: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        losses = optax.ctc_loss(
            logits,
            paddings_from_lengths(output_lengths, logits.shape[1]).astype(logits.dtype),
            labels,
            paddings_from_lengths(num_labels, labels.shape[1]).astype(logits.dtype),
        )
    return jnp.maximum(losses, 0)


def _losses_forward(
    logits: jax.Array, output_lengths: jax.Array, labels: jax.Array, num_labels: jax.Array
) -> tuple[jax.Array, Residuals]:
    return _losses(logits, output_lengths, labels, num_labels), (logits, output_lengths, labels, num_labels)


def _losses_backward(residuals: Residuals, d_losses: jax.Array) -> tuple[jax.Array, None, None, None]:
    logits, output_lengths, labels, num_labels = residuals
    mask = mask_from_lengths(output_lengths, logits.shape[1])[..., None]
    occupancies = _occupancies(logits, output_lengths, labels, num_labels)
    gradients = jnp.where(mask, jax.nn.softmax(logits) - occupancies, 0)
    return gradients * d_losses[:, None, None], None, None, None


_losses.defvjp(_losses_forward, _losses_backward)


def _occupancies(logits: jax.Array, output_lengths: jax.Array, labels: jax.Array, num_labels: jax.Array) -> jax.Array:
    """Computes the posterior probability of each label at each frame, over all alignments of the row's labels.

    The arguments are those of `ctc_losses`.

    Returns:
        [B, T', V] float. Every valid frame of a row that can be aligned sums to 1.

    Source: Graves et al. 2006, section 4.1, in logarithms. Both recursions are rescaled at every frame, as in eq. 9.
    """
    states = _states(labels, num_labels)  # [B, S]
    position = jnp.arange(states.shape[1])[None, :]
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(states, 0)[:, None, :], axis=2)
    log_probs = jnp.where(states[:, None, :] >= 0, log_probs, LOG_ZERO).swapaxes(0, 1)  # [T', B, S]
    # A path may skip the blank between two different labels.
    skips = (position[:, 2:] % 2 == 0) & (states[:, 2:] != states[:, :-2])  # [B, S - 2]: from state s to s + 2
    start, end = (jnp.where(position == at, 0, LOG_ZERO) for at in (0, 2 * num_labels[:, None] + 2))
    mask = mask_from_lengths(output_lengths, logits.shape[1]).T[..., None]  # [T', B, 1]

    # The backward recursion is the forward recursion over the reversed row, so one scan of 2B rows computes both.
    arrivals = _arrivals(
        jnp.concatenate([log_probs, jnp.flip(log_probs, (0, 2))], axis=1),
        jnp.concatenate([skips, jnp.flip(skips, 1)]),
        jnp.concatenate([jnp.broadcast_to(start, states.shape), jnp.flip(end, 1)]).astype(logits.dtype),
        jnp.concatenate([mask, jnp.flip(mask, 0)], axis=1),
    )
    before, after = jnp.split(arrivals, 2, axis=1)
    posteriors = jax.nn.softmax(before + log_probs + jnp.flip(after, (0, 2)))  # [T', B, S]
    one_hot = jax.nn.one_hot(states, logits.shape[2], dtype=logits.dtype)  # [B, S, V]; zeros for label -1
    return jnp.einsum("tbs,bsv->btv", posteriors, one_hot, precision="highest")


def _states(labels: jax.Array, num_labels: jax.Array) -> jax.Array:
    """Lists the label of each state of a row's paths: start, blank, label, blank, ..., label, blank, end.

    Returns:
        [B, 2N + 3] int32. Start, end and the padding after the end have no label: -1.
    """
    valid = mask_from_lengths(num_labels, labels.shape[1])
    pairs = jnp.where(valid[..., None], jnp.stack([labels, jnp.zeros_like(labels)], axis=2), -1)
    start, blank = jnp.full((len(labels), 1), -1, labels.dtype), jnp.zeros((len(labels), 1), labels.dtype)
    return jnp.concatenate([start, blank, pairs.reshape(len(labels), -1), start], axis=1)


def _arrivals(log_probs: jax.Array, skips: jax.Array, start: jax.Array, mask: jax.Array) -> jax.Array:
    """Computes the log-probability that a path enters each state at each frame, up to one factor per row and frame.

    Args:
        log_probs: [T', B, S] float, log-probability of each state's label.
        skips: [B, S - 2] bool, whether state s + 2 can follow state s.
        start: [B, S] float, log-probability of the state before the first valid frame.
        mask: [T', B, 1] bool, True = valid.

    Returns:
        [T', B, S] float; the frame's own `log_probs` are not included.
    """

    def step(reached: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        log_prob, valid = inputs
        moved = jnp.pad(reached[:, :-1], ((0, 0), (1, 0)), constant_values=LOG_ZERO)
        skipped = jnp.pad(jnp.where(skips, reached[:, :-2], LOG_ZERO), ((0, 0), (2, 0)), constant_values=LOG_ZERO)
        likeliest = jnp.maximum(jnp.maximum(reached, moved), skipped)
        entered = likeliest + jnp.log(sum(jnp.exp(x - likeliest) for x in (reached, moved, skipped)))
        new = entered + log_prob
        return jnp.where(valid, new - new.max(1, keepdims=True), reached), entered

    return jax.lax.scan(step, start, (log_probs, mask))[1]

"""Optimiser and learning-rate schedule."""

import jax
import jax.numpy as jnp
import optax

from ds2_jax.config import OptimConfig


def learning_rate_schedule(config: OptimConfig, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Builds the learning rate as a function of the step (0 is the first): linear warm-up times the chosen decay.

    The cosine schedule reaches 0 after `total_steps`.

    Source: deepspeech.pytorch multiplies by 0.99 after each epoch.
    """

    def schedule(step: jax.Array | int) -> jax.Array:
        rate = config.learning_rate * jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
        if config.schedule == "exponential":
            return rate * config.anneal ** (step // steps_per_epoch)
        if config.schedule == "cosine":
            after = jnp.clip((step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1), 0, 1)
            return rate * (0.5 + 0.5 * jnp.cos(jnp.pi * after))
        return rate

    return schedule


def make_optimizer(config: OptimConfig, steps_per_epoch: int, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimiser: global-norm clipping, then AdamW or SGD with Nesterov momentum at the scheduled rate.

    Weight decay applies to every parameter, including biases.

    Source: torch.optim.AdamW and SGD(nesterov=True).
    """
    schedule = learning_rate_schedule(config, steps_per_epoch, total_steps)
    if config.optimizer == "adamw":
        update = optax.adamw(schedule, config.beta1, config.beta2, config.epsilon, weight_decay=config.weight_decay)
    else:
        update = optax.chain(
            optax.add_decayed_weights(config.weight_decay),
            optax.sgd(schedule, config.momentum, nesterov=True),
        )
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm > 0 else optax.identity()
    return optax.chain(clip, update)

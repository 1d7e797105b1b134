"""The exponential moving average of the weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def moving_average(average: Any, new: Any, step: jax.Array, decay: float) -> Any:
    """Updates the exponential moving average. `step` is 0 at the first update.

    Early updates have a larger weight, so that the random initial weights soon vanish from the average: update n,
    counted from 1, keeps the share min(decay, (1 + n) / (10 + n)) of the old average.

    Source: tf.train.ExponentialMovingAverage with `num_updates` has the same decay.
    """
    count = (step + 1).astype(jnp.float32)
    return optax.incremental_update(new, average, jnp.maximum(1 - decay, 9 / (10 + count)))

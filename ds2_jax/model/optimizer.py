"""Optimiser and learning-rate schedule."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ds2_jax.config import Config, OptimConfig


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


def _scale_by_rate(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the given learning rate, or by minus that of a schedule."""

    def update(
        updates: Any,
        state: optax.ScaleByScheduleState,
        params: Any = None,
        *,
        learning_rate: jax.Array | None = None,
        **_: Any,
    ) -> tuple[Any, optax.ScaleByScheduleState]:
        del params
        rate = schedule(state.count) if learning_rate is None else learning_rate
        scaled = jax.tree.map(lambda each: jnp.array(-rate, each.dtype) * each, updates)
        return scaled, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    def init(_: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)


def layer_factors(params: Any, layer_decay: float, freeze: str) -> Any:
    """Gives each parameter the factor of its learning rate: 0 for those that do not learn.

    Args:
        params: parameters of the model, by layer.
        layer_decay: see `OptimConfig`.
        freeze: see `Config`.
    """
    num_recurrent = sum(name.startswith("rnn_") for name in params)

    def factor(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> float:
        name = path[0].key
        if name.startswith("conv"):
            return 0.0 if freeze != "none" else layer_decay ** (num_recurrent + 1)
        if name.startswith(("rnn_", "lookahead")):
            above = num_recurrent - int(name.removeprefix("rnn_")) if name.startswith("rnn_") else 1
            return 0.0 if freeze == "recurrent" else layer_decay**above
        return 1.0

    return jax.tree_util.tree_map_with_path(factor, params)


def _scale_layers(layer_decay: float, freeze: str) -> optax.GradientTransformation:
    """Multiplies updates by the factors of their layers, so that weight decay is multiplied too."""

    def scaled(updates: Any, _: Any) -> Any:
        factors = layer_factors(updates, layer_decay, freeze)
        return jax.tree.map(lambda each, factor: each * jnp.array(factor, each.dtype), updates, factors)

    return optax.stateless(scaled)


def make_optimizer(settings: Config, steps_per_epoch: int, total_steps: int) -> optax.GradientTransformationExtraArgs:
    """Builds the optimiser: global-norm clipping, then AdamW or SGD with Nesterov momentum at the scheduled rate.

    Weight decay applies to every parameter, including biases. If `update` is given a `learning_rate`, [] float32, that
    rate replaces the schedule's. Then a compiled step does not contain the schedule. Layers that `freeze` names do not
    count in the gradient's norm.

    Source: torch.optim.AdamW and SGD(nesterov=True).
    """
    config, freeze = settings.optim, settings.freeze
    scale = _scale_by_rate(learning_rate_schedule(config, steps_per_epoch, total_steps))
    decay = optax.add_decayed_weights(config.weight_decay)
    if config.optimizer == "adamw":
        update = optax.chain(optax.scale_by_adam(config.beta1, config.beta2, config.epsilon), decay, scale)
    else:
        update = optax.chain(decay, optax.chain(optax.trace(config.momentum, nesterov=True), scale))
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm > 0 else optax.identity()
    if freeze == "none" and config.layer_decay == 1:
        return optax.chain(clip, update)
    return optax.chain(_scale_layers(1.0, freeze), clip, update, _scale_layers(config.layer_decay, freeze))

"""The model in JAX and Flax: functions and modules that take and return arrays."""

from ds2_jax.model.features import extract_features
from ds2_jax.model.inference import infer, init_variables, make_model
from ds2_jax.model.network import BatchRNN, DeepSpeech2, Lookahead, MaskedBatchNorm, MaskedConv

__all__ = [
    "BatchRNN",
    "DeepSpeech2",
    "Lookahead",
    "MaskedBatchNorm",
    "MaskedConv",
    "extract_features",
    "infer",
    "init_variables",
    "make_model",
]

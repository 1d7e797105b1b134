"""The settings of a run. Files in `configs/` import them from here."""

from ds2_jax.config.feature_settings import FeatureConfig
from ds2_jax.config.load import from_json, load_config, to_json
from ds2_jax.config.settings import (
    AugmentConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    PerturbConfig,
)

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "FeatureConfig",
    "ModelConfig",
    "OptimConfig",
    "PerturbConfig",
    "from_json",
    "load_config",
    "to_json",
]

"""AN4 with the model of deepspeech.pytorch, for an accelerator."""

from ds2_jax.config import Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    epochs=70,
    data=DataConfig(corpus="an4", batch_size=8, num_buckets=8),
    model=ModelConfig(),
    optim=OptimConfig(clip_norm=50.0),
)

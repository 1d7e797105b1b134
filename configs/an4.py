"""AN4 with the model and settings of deepspeech.pytorch (5 x 1024, batch 8, clip 400 of the summed loss).

    python main.py --config configs/an4.py

For an accelerator; not trained here yet, so it has no figures.
"""

from ds2_jax.config import Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    epochs=70,
    data=DataConfig(corpus="an4", batch_size=8, num_buckets=8),
    model=ModelConfig(),
    optim=OptimConfig(clip_norm=50.0),
)

"""AN4 on two CPU cores."""

from ds2_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    epochs=40,
    data=DataConfig(corpus="an4", batch_size=8, num_buckets=6),
    augment=AugmentConfig(num_frequency_masks=2, frequency_mask_width=20, num_time_masks=2, time_mask_width=20),
    model=ModelConfig(
        hidden_size=256, num_layers=3, channels=(16, 16), frequency_strides=(4, 2), time_reduction=4, dropout=0.2
    ),
    optim=OptimConfig(learning_rate=1.5e-3, schedule="cosine", warmup_steps=300, weight_decay=1e-2),
)

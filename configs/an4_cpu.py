"""AN4 on two CPU cores.

    python main.py --config configs/an4_cpu.py --data.archive an4_sphere.tar.gz

What each setting brought on the dev split, and what did not help: docs/an4.md.
"""

from ds2_jax.config import AugmentConfig, Config, DataConfig, FeatureConfig, ModelConfig, OptimConfig, PerturbConfig

config = Config(
    epochs=30,
    features=FeatureConfig(num_mels=64, normalisation="bins"),
    data=DataConfig(corpus="an4", batch_size=8, num_buckets=5),
    perturb=PerturbConfig(speed_probability=1.0),
    augment=AugmentConfig(num_frequency_masks=2, frequency_mask_width=10, num_time_masks=2, time_mask_width=20),
    model=ModelConfig(
        hidden_size=256,
        num_layers=3,
        channels=(16, 16),
        frequency_kernels=(21, 11),
        time_reduction=4,
        dropout=0.2,
    ),
    optim=OptimConfig(learning_rate=1.5e-3, schedule="cosine", warmup_steps=300, weight_decay=1e-2, ema_decay=0.998),
)

"""AN4 on two CPU cores.

    python main.py --config configs/an4_cpu.py --data.archive an4_sphere.tar.gz

Its settings were chosen on 8 of 65 speakers; it trains on all of them (831 utterances, 0.61 hours) and is tested on nine
held-out training speakers of AN4 (117 utterances, 728 words; not the official test set). What each setting brought on
the dev split, what did not help, and what was measured: docs/an4.md. On recordings of your own add
--data.no-train-on-dev, so that your dev split chooses the best epoch.
"""

from ds2_jax.config import AugmentConfig, Config, DataConfig, FeatureConfig, ModelConfig, OptimConfig, PerturbConfig

config = Config(
    epochs=45,
    features=FeatureConfig(num_mels=64, normalisation="bins"),
    data=DataConfig(corpus="an4", batch_size=8, num_buckets=5, train_on_dev=True),
    perturb=PerturbConfig(speed_probability=1.0),
    augment=AugmentConfig(num_frequency_masks=2, frequency_mask_width=6, num_time_masks=3, time_mask_width=30),
    model=ModelConfig(
        hidden_size=256,
        num_layers=3,
        channels=(16, 16),
        frequency_kernels=(21, 11),
        time_reduction=4,
        dropout=0.2,
    ),
    optim=OptimConfig(learning_rate=1.5e-3, schedule="cosine", warmup_steps=300, weight_decay=0.3, ema_decay=0.998),
)

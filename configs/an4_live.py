"""AN4 for live recognition, on two CPU cores.

    python main.py --config configs/an4_live.py --data.archive an4_sphere.tar.gz
    python main.py live runs/an4_live

The model runs forward only, its text depends on the next 320 ms, and it normalises by what it has heard so far. The
other settings are those of configs/an4_cpu.py, with more units in the one direction.
"""

from ds2_jax.config import AugmentConfig, Config, DataConfig, FeatureConfig, ModelConfig, OptimConfig, PerturbConfig

config = Config(
    epochs=45,
    features=FeatureConfig(num_mels=64, normalisation="running"),
    data=DataConfig(corpus="an4", batch_size=8, num_buckets=5, train_on_dev=True),
    perturb=PerturbConfig(speed_probability=1.0),
    augment=AugmentConfig(num_frequency_masks=2, frequency_mask_width=6, num_time_masks=3, time_mask_width=30),
    model=ModelConfig(
        bidirectional=False,
        lookahead_context=5,
        hidden_size=384,
        num_layers=3,
        channels=(16, 16),
        frequency_kernels=(21, 11),
        time_reduction=4,
        dropout=0.2,
    ),
    optim=OptimConfig(learning_rate=1.5e-3, schedule="cosine", warmup_steps=300, weight_decay=0.3, ema_decay=0.998),
)

"""The model `spelling`, which the package contains: letters, digits, commands and AN4's words, also live.

    python main.py --config configs/spelling.py --data.archive an4_sphere.tar.gz
    python main.py export runs/spelling --float16 --out exported

The corpus is AN4 and synthesised voices, with silence, noise and music around them. The settings are those of
configs/an4_live.py, with fewer units, so that the weights fit into 4 MB.
"""

from ds2_jax.config import AugmentConfig, Config, DataConfig, FeatureConfig, ModelConfig, OptimConfig, PerturbConfig

config = Config(
    epochs=40,
    features=FeatureConfig(num_mels=64, normalisation="running"),
    data=DataConfig(corpus="spelling", batch_size=8, num_buckets=6, train_on_dev=True),
    perturb=PerturbConfig(speed_probability=1.0),
    augment=AugmentConfig(num_frequency_masks=2, frequency_mask_width=6, num_time_masks=3, time_mask_width=30),
    model=ModelConfig(
        bidirectional=False,
        lookahead_context=5,
        hidden_size=288,
        num_layers=3,
        channels=(16, 16),
        frequency_kernels=(21, 11),
        time_reduction=4,
        dropout=0.2,
    ),
    optim=OptimConfig(learning_rate=1.5e-3, schedule="cosine", warmup_steps=300, weight_decay=0.3, ema_decay=0.998),
)

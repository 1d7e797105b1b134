"""AN4 on two CPU cores.

    python main.py --config configs/an4_cpu.py --data.archive an4_sphere.tar.gz

Trained on 57 speakers (728 utterances, 0.54 hours), best epoch chosen on 8 others, tested on nine held-out training
speakers of AN4 (117 utterances, 728 words; not the official test set), one seed. Greedy: WER 12.77 % (93 errors:
75 substituted, 14 deleted, 4 inserted; 95 % interval over the speakers 9.36 to 16.67 %), CER 7.48 % (135 of 1,806
characters; 6.33 % with spaces). With a 3-gram of the training transcripts: WER 9.89 % (72 errors). 21 minutes of wall
time on two slow cores, from the archive to this result. `make reproduce-an4` trains three seeds. What each setting
brought on the dev split, and what did not help: docs/an4.md.
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

"""AN4 on two CPU cores.

    python main.py --config configs/an4_cpu.py --data.archive an4_sphere.tar.gz

The settings were chosen on 8 of the 65 speakers. The final training uses all 65 (831 utterances, 0.62 hours), with a
schedule that was fixed beforehand. The test set is nine held-out training speakers of AN4 (117 utterances, 728 words,
1,806 characters or 2,417 with spaces), not the official test set. `make reproduce-an4` gives these errors with three
seeds (WER with its 95 % interval over the speakers; CER without / with spaces):

    seed 0, greedy: 63 words, 8.65 % (5.44 to 13.48); 112 characters, 6.20 % / 124, 5.13 %
    seed 0, 3-gram: 52 words, 7.14 % (4.61 to 10.55); 102 characters, 5.65 % / 116, 4.80 %
    seed 1, greedy: 63 words, 8.65 % (4.85 to 14.57); 100 characters, 5.54 % / 121, 5.01 %
    seed 1, 3-gram: 52 words, 7.14 % (4.20 to 11.17); 99 characters, 5.48 % / 116, 4.80 %
    seed 2, greedy: 56 words, 7.69 % (4.81 to 11.91); 99 characters, 5.48 % / 109, 4.51 %
    seed 2, 3-gram: 47 words, 6.46 % (3.83 to 10.12); 90 characters, 4.98 % / 102, 4.22 %
    mean, greedy: 8.33 %, largest less smallest 0.96 points
    mean, 3-gram: 6.91 %, largest less smallest 0.69 points

Each seed takes 28 to 29 minutes of wall time on two slow cores, from the archive to the greedy result. docs/an4.md has
the effect of each setting on the dev split, and what did not help. With your own recordings, add
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

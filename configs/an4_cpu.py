"""AN4 on two CPU cores.

    python main.py --config configs/an4_cpu.py --data.archive an4_sphere.tar.gz

Trained on 57 speakers (728 utterances, 0.54 hours), best epoch chosen on 8 others, tested on nine held-out training
speakers of AN4 (117 utterances, 728 words; not the official test set), greedy decoding: WER 11.81 % (86 errors: 74
substituted, 10 deleted, 2 inserted), CER 6.98 % (126 of 1,806 characters; 5.79 % with spaces), one seed, weights of
epoch 31 of 40. 16 minutes of wall time on two cores with other work beside it, from the archive to this result.
"""

from ds2_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    epochs=40,
    data=DataConfig(corpus="an4", batch_size=8, num_buckets=8),
    augment=AugmentConfig(num_frequency_masks=2, frequency_mask_width=20, num_time_masks=2, time_mask_width=20),
    model=ModelConfig(
        hidden_size=256, num_layers=3, channels=(16, 16), frequency_strides=(4, 2), time_reduction=4, dropout=0.2
    ),
    optim=OptimConfig(learning_rate=1.5e-3, schedule="cosine", warmup_steps=300, weight_decay=1e-2),
)

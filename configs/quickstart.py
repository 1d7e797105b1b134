"""Quick start: digits and commands in synthesised voices, tested on voices that are not in the training data.

    python main.py --config configs/quickstart.py

On two CPU cores, greedy decoding gives a WER of 4.96 %, 4.01 % and 4.75 % on the four test voices (seeds 0, 1 and 2).
The first seed took 120 s, including building the corpus and transcribing; the others took 69 and 75 s without these.
docs/results.md has the figures of each voice.
"""

from ds2_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    epochs=10,
    data=DataConfig(corpus="synthetic", batch_size=16, num_buckets=2),
    augment=AugmentConfig(num_frequency_masks=1, frequency_mask_width=15, num_time_masks=1, time_mask_width=15),
    model=ModelConfig(
        hidden_size=128, num_layers=2, channels=(8, 8), frequency_strides=(4, 2), time_reduction=4, dropout=0.1
    ),
    optim=OptimConfig(learning_rate=3e-3, schedule="cosine", warmup_steps=100, weight_decay=1e-2),
)

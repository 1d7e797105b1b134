"""Quick start: digits and commands in synthesised voices, tested on voices never heard in training.

    python main.py --config configs/quickstart.py

Two CPU cores: WER 4.96 %, 4.01 % and 4.75 % on the four unheard voices (seeds 0, 1 and 2), greedy decoding; 120 s with
building the corpus and transcribing, 69 and 75 s without. README.md has the figures voice by voice.
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

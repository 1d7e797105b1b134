"""LibriSpeech, 960 hours, with labels that are pieces of words (byte-pair encoding) and half as many output frames.

    python main.py prepare librispeech
    python main.py lm units datasets/librispeech/train.jsonl --size 500 --kind bpe --config librispeech \
        --out datasets/librispeech/bpe-500.model
    python main.py --config configs/librispeech_bpe.py

This recipe needs an accelerator and the extra sentencepiece (`pip install ".[sentencepiece]"`). It was never trained,
so its error rates are unknown.

Differs from configs/librispeech.py:

* Labels are 500 pieces of words instead of 28 characters.
* An output frame is 40 ms instead of 20 ms, because a second of speech has fewer pieces than characters. The recurrent
  layers, which take most of the time, have half the frames.
"""

from pathlib import Path

from ds2_jax.config import AugmentConfig, Config, DataConfig, ModelConfig

config = Config(
    epochs=16,
    data=DataConfig(
        train=Path("datasets/librispeech/train.jsonl"),
        dev=Path("datasets/librispeech/dev.jsonl"),
        test=Path("datasets/librispeech/test-clean.jsonl"),
        units="datasets/librispeech/bpe-500.model",
        batch_seconds=900.0,
        num_buckets=16,
        max_duration=36.0,
    ),
    model=ModelConfig(time_reduction=4),
    augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1),
)

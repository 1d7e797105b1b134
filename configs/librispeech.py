"""LibriSpeech, 960 hours, with the model and settings of deepspeech.pytorch (5 x 1024, 16 epochs, AdamW).

    python main.py prepare librispeech
    python main.py --config configs/librispeech.py

This recipe needs an accelerator. It was never trained, so its error rates are unknown. With --dry-run, the second
command prints what it would do with your data on your machine.

Differs from deepspeech.pytorch's configs/librispeech.yaml:

* There are 900 s of audio in a batch instead of 64 utterances. With 12.3 s on average and a tenth for padding,
  an epoch has about as many updates as in the original, and short utterances waste no memory.
* The gradient of the mean loss is clipped at 6.25 (optim.clip_norm): the original's 400 is for the sum of 64 losses.
* SpecAugment has one mask over frequency and one over time, as in the original, but no time warping, and it is not
  applied to the dev split.
* Training uses float32 instead of mixed precision with 16 bits; --model.dtype bfloat16 is untried at this size.
* Nothing is left out: a recording of more than 36 s, which LibriSpeech should not have, is an error that names it. The
  original's manifests leave out training utterances of more than 15 s.

COMPUTED for an accelerator of 80 GB with the compiler for CPUs, not run:

    python main.py data batch-seconds --config configs/librispeech.py --memory 80

printed 2060, the largest data.batch_seconds that would fit; 900 s take about 25 GiB by the same figures.

Training evaluates test-clean. Evaluate the other test split afterwards:

    python main.py evaluate runs/librispeech --manifest datasets/librispeech/test-other.jsonl
"""

from pathlib import Path

from ds2_jax.config import AugmentConfig, Config, DataConfig

config = Config(
    epochs=16,
    data=DataConfig(
        train=Path("datasets/librispeech/train.jsonl"),
        dev=Path("datasets/librispeech/dev.jsonl"),
        test=Path("datasets/librispeech/test-clean.jsonl"),
        batch_seconds=900.0,
        num_buckets=16,
        max_duration=36.0,
    ),
    augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1),
)

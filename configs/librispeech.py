"""LibriSpeech, 960 hours, with the model and settings of deepspeech.pytorch (5 x 1024, 16 epochs, AdamW).

    python main.py prepare librispeech
    python main.py --config configs/librispeech.py

For an accelerator; not trained here, so it has no figures. With --dry-run the second command tells what it would do
with the data and the machine at hand.

Differs from deepspeech.pytorch's configs/librispeech.yaml:

* 900 s of audio in a batch instead of 64 utterances. With 12.3 s on average, and a tenth for padding, that makes
  about as many updates an epoch, and short utterances waste no memory.
* The gradient of the mean loss is clipped at 6.25 (optim.clip_norm): its 400 is for the sum of 64 losses.
* SpecAugment is on as there, one mask over frequency and one over time, without its time warping and not on dev.
* float32, where it mixes in 16 bits; --model.dtype bfloat16 is there, and untried at this size.
* Nothing is left out: a recording of more than 36 s, which LibriSpeech should not have, is an error that names it. Its
  own manifests leave out training utterances of more than 15 s.

COMPUTED for an accelerator of 80 GB with the compiler for CPUs, not run:

    python main.py data batch-seconds --config configs/librispeech.py --memory 80

printed 2060, the largest data.batch_seconds that would fit; 900 s take about 25 GiB by the same figures.

Tested on test-clean. The other test split, afterwards:

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

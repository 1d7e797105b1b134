"""VoxForge, with the model and settings of deepspeech.pytorch (5 x 1024, 16 epochs, AdamW).

    python main.py prepare voxforge
    python main.py --config configs/voxforge.py

For an accelerator; not trained here, so it has no figures. With --dry-run the second command tells what it would do
with the data and the machine at hand.

Differs from deepspeech.pytorch's settings for other corpora (for VoxForge it has none, nor a dev or test split):

* 350 s of audio in a batch instead of 64 utterances. With 5 s on average (assumed), and a tenth for padding, that makes
  about as many updates an epoch, and short utterances waste no memory.
* The gradient of the mean loss is clipped at 6.25 (optim.clip_norm): its 400 is for the sum of 64 losses.
* SpecAugment is on as there, one mask over frequency and one over time, without its time warping and not on dev.
* float32, where it mixes in 16 bits; --model.dtype bfloat16 is there, and untried at this size.
* What cannot be used (another character than the alphabet's, longer than 30 s, too short for its transcript) is left
  out and listed in the run's folder; there, silently, more than 15 s.

COMPUTED for an accelerator of 80 GB with the compiler for CPUs, not run:

    python main.py data batch-seconds --config configs/voxforge.py --memory 80

printed 2070, the largest data.batch_seconds that would fit; 350 s take about 11 GiB by the same figures.
"""

from pathlib import Path

from ds2_jax.config import AugmentConfig, Config, DataConfig

config = Config(
    epochs=16,
    data=DataConfig(
        train=Path("datasets/voxforge/train.jsonl"),
        dev=Path("datasets/voxforge/dev.jsonl"),
        test=Path("datasets/voxforge/test.jsonl"),
        batch_seconds=350.0,
        num_buckets=16,
        max_duration=30.0,
        on_bad_utterance="skip",
    ),
    augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1),
)

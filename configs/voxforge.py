"""VoxForge, with the model and settings of deepspeech.pytorch (5 x 1024, 16 epochs, AdamW).

    python main.py prepare voxforge
    python main.py --config configs/voxforge.py

This recipe needs an accelerator. It was never trained, so its error rates are unknown. With --dry-run, the second
command prints what it would do with your data on your machine.

Differs from deepspeech.pytorch's settings for other corpora (it has neither settings nor dev and test splits for
VoxForge):

* There are 350 s of audio in a batch instead of 64 utterances. With 5 s on average (assumed) and a tenth for padding,
  an epoch has about as many updates as in the original, and short utterances waste no memory.
* The gradient of the mean loss is clipped at 6.25 (optim.clip_norm): the original's 400 is for the sum of 64 losses.
* SpecAugment has one mask over frequency and one over time, as in the original, but no time warping, and it is not
  applied to the dev split.
* Training uses float32 instead of mixed precision with 16 bits; --model.dtype bfloat16 is untried at this size.
* An utterance that cannot be used (a character outside the alphabet, longer than 30 s, too short for its transcript) is
  left out and listed in the run's folder. The original silently leaves out utterances of more than 15 s.

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

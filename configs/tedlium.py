"""TED-LIUM release 2, with the model and settings of deepspeech.pytorch (5 x 1024, 16 epochs, AdamW).

    python main.py prepare tedlium --release 2
    python main.py --config configs/tedlium.py

This recipe needs an accelerator. It was never trained, so its error rates are unknown. With --dry-run, the second
command prints what it would do with your data on your machine.

Differs from deepspeech.pytorch's configs/tedlium.yaml:

* There are 550 s of audio in a batch instead of 64 utterances. With 8 s on average (assumed) and a tenth for padding,
  an epoch has about as many updates as in the original, and short utterances waste no memory.
* The gradient of the mean loss is clipped at 6.25 (optim.clip_norm): the original's 400 is for the sum of 64 losses.
* SpecAugment has one mask over frequency and one over time, as in the original, but no time warping, and it is not
  applied to the dev split.
* Training uses float32 instead of mixed precision with 16 bits; --model.dtype bfloat16 is untried at this size.
* An utterance that cannot be used (a character outside the alphabet, longer than 40 s, too short for its transcript) is
  left out and listed in the run's folder. The original silently leaves out utterances of more than 15 s.

COMPUTED for an accelerator of 80 GB with the compiler for CPUs, not run:

    python main.py data batch-seconds --config configs/tedlium.py --memory 80

printed 2060, the largest data.batch_seconds that would fit; 550 s take about 16 GiB by the same figures.
"""

from pathlib import Path

from ds2_jax.config import AugmentConfig, Config, DataConfig

config = Config(
    epochs=16,
    data=DataConfig(
        train=Path("datasets/tedlium/train.jsonl"),
        dev=Path("datasets/tedlium/dev.jsonl"),
        test=Path("datasets/tedlium/test.jsonl"),
        batch_seconds=550.0,
        num_buckets=16,
        max_duration=40.0,
        on_bad_utterance="skip",
    ),
    augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1),
)

"""Common Voice, English, with the model and settings of deepspeech.pytorch (5 x 1024, 16 epochs, AdamW).

    python main.py prepare common-voice --archive cv-corpus-22.0-2025-06-20-en.tar.gz
    python main.py --config configs/commonvoice.py

This recipe needs an accelerator. It was never trained, so its error rates are unknown. With --dry-run, the second
command prints what it would do with your data on your machine.

Differs from deepspeech.pytorch's configs/commonvoice.yaml:

* There are 350 s of audio in a batch instead of 64 utterances. With 5 s on average (assumed) and a tenth for padding,
  an epoch has about as many updates as in the original, and short utterances waste no memory.
* The gradient of the mean loss is clipped at 6.25 (optim.clip_norm): the original's 400 is for the sum of 64 losses.
* SpecAugment has one mask over frequency and one over time, as in the original, but no time warping, and it is not
  applied to the dev split.
* Training uses float32 instead of mixed precision with 16 bits; --model.dtype bfloat16 is untried at this size.
* Nothing is left out silently. The original's manifests leave out recordings of more than 15 s or less than 1 s, in the
  test split too, and its labels leave out every unknown character. Here data.remove turns punctuation into spaces
  (apostrophes stay inside words), and a training or dev sentence with any other character is left out and listed.

COMPUTED for an accelerator of 80 GB with the compiler for CPUs, not run:

    python main.py data batch-seconds --config configs/commonvoice.py --memory 80

printed 2070, the largest data.batch_seconds that would fit; 350 s take about 11 GiB by the same figures.

For another language, prepare it with another --root, and name its manifests and its characters (--data.alphabet).
"""

from pathlib import Path

from ds2_jax.config import AugmentConfig, Config, DataConfig

config = Config(
    epochs=16,
    data=DataConfig(
        train=Path("datasets/common-voice/train.jsonl"),
        dev=Path("datasets/common-voice/dev.jsonl"),
        test=Path("datasets/common-voice/test.jsonl"),
        batch_seconds=350.0,
        num_buckets=16,
        max_duration=30.0,
        remove='.,!?;:"“”„…()-–—’‘',
        on_bad_utterance="skip",
    ),
    augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1),
)

"""The command `bench`. It checks the options before it imports anything slow."""

from typing import Annotated

import tyro

from ds2_jax.bench.options import Options

DEFAULTS = Options()


def bench(options: Annotated[Options, tyro.conf.arg(name="")] = DEFAULTS) -> int:
    """Measure this project, side by side with the same model in PyTorch if that is installed.

    train, forward: a training step and a forward pass, against PyTorch. pipeline: planning, decoding and padding of
    FLAC files. transcribe: transcribing in a new process and in a warm one. live: one stream,
    and how many in real time at once. decode: greedy decoding and beam search,
    against fast-ctc-decode. scaling: growth of time and memory. librispeech: predicted time of an epoch of 960 hours.

    Args:
        options: What to measure, and how.
    """
    from ds2_jax.bench.report import bench as print_measurements

    print_measurements(options)
    return 0

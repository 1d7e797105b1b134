"""The command `bench`: its options, and nothing that is slow to import before they are right."""

from typing import Annotated

import tyro

from ds2_jax.bench.options import Options

DEFAULTS = Options()


def bench(options: Annotated[Options, tyro.conf.arg(name="")] = DEFAULTS) -> int:
    """Measure this project, side by side with the same model in PyTorch if that is installed.

    train, forward: a step of training and of inference, against PyTorch. pipeline: decoding, planning and padding of
    FLAC files. transcribe: a process that has just started, and one that is warm. decode: greedy decoding and beam
    search, against fast-ctc-decode. scaling: how time and memory grow. librispeech: what an epoch of 960 hours would
    take, predicted.

    Args:
        options: What is measured, and how.
    """
    from ds2_jax.bench.report import bench as print_measurements

    print_measurements(options)
    return 0

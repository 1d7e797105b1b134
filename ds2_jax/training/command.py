"""The commands of training: their options. Slow imports wait until the options are valid."""

import functools
from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.config import Config, DataConfig
from ds2_jax.config.places import is_tfds
from ds2_jax.corpora import split_manifests
from ds2_jax.parallel.cluster import ALONE, ClusterOptions
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import check_is_readable

DEFAULTS = Config()


def train(
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(required)")] = None,
    workdir: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    profile: Annotated[str | None, tyro.conf.arg(metavar="FIRST:LAST")] = None,
    *,
    settings: Annotated[Config, tyro.conf.arg(name="")] = DEFAULTS,
    cluster: Annotated[ClusterOptions, tyro.conf.arg(name="")] = ALONE,
) -> int:
    """Train a recogniser, or continue the run in its folder; then evaluate the test split with the best checkpoint.

    Args:
        config: Python file that defines `config`, or the name of a recipe; the settings below change single fields.
        workdir: Folder of the run; by default runs/<name of the config file>.
        overwrite: Delete the run in that folder and start again.
        dry_run: Print the plan of the batches and the memory of a step, try the largest batch once on a tiny
            model, and write nothing into the run's folder.
        profile: Record these steps of training, counted from 1, into RUN/profile for TensorBoard and Perfetto.
        settings: All settings; their defaults come from `config`.
        cluster: How this process finds the other processes of the training.
    """
    if config is None:
        raise InputError("--config must name a configuration file, got none. Try --config quickstart.")
    if dry_run and cluster.distributed:
        raise InputError("--dry-run must run in one process, got --distributed. Leave one of them out.")
    _check_files(settings.data)
    from ds2_jax.parallel.processes import joined
    from ds2_jax.runs import run_folder
    from ds2_jax.system.compilation import enable_cache
    from ds2_jax.training import dry_run as dry
    from ds2_jax.training.profile import steps_of
    from ds2_jax.training.train import train as train_run

    enable_cache()
    folder = workdir or Path("runs") / config.stem
    if dry_run:
        dry.dry_run(settings, folder, overwrite)
        return 0
    steps = steps_of(profile) if profile else None
    with joined(cluster, functools.partial(run_folder.prospects, folder, overwrite)):
        train_run(settings, folder, overwrite, steps)
    return 0


def _check_files(data: DataConfig) -> None:
    """Checks that the manifests or the archive exist, before anything slow is imported.

    Raises:
        InputError: one does not exist.
    """
    manifests = split_manifests(data, build=False)._asdict()
    needed = {"archive": data.archive} if data.corpus and not manifests["train"].is_file() else {}
    for name, path in (needed if data.corpus else manifests).items():
        if path is not None and not is_tfds(path):
            check_is_readable(path, f"data.{name}")


def replay(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    run: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None,
) -> int:
    """Repeat a training step whose loss or gradient was not finite, and print the cause.

    Exits with 1 if the loss or the gradient is not finite here either, and with 0 if both are finite.

    Args:
        file: RUN/replay/step-K.npz, which training saved before it stopped.
        run: folder of the run, which holds the checkpoint of the step before; by default the RUN of the file's path.
    """
    check_is_readable(file, "FILE")
    from ds2_jax.training.replay.command import replay as replay_step

    return replay_step(file, run)


def batch_seconds(config: Path, memory: float, devices: int = 1) -> int:
    """Print the largest data.batch_seconds whose training step fits the memory of your devices.

    The step is compiled for two batch sizes and not run. A straight line through both gives the size that fills three
    quarters of the memory, JAX's default share of a GPU. Each row is assumed to last data.max_duration, with 20 labels
    a second. The figure leaves out the framework's own memory, fragmentation, and the work space of an accelerator's
    libraries. Compiled for another device, the step may need more or less: check with `train --dry-run` on the device
    itself. The figure is least certain with `rematerialise`: it assumes that the device's compiler computes the layers
    twice.

    Args:
        config: Python file that defines `config`, or the name of a recipe.
        memory: memory of each device in GB (10^9 bytes).
        devices: number of devices that share a batch.
    """
    from ds2_jax.training.memory import batch_seconds as print_batch_seconds

    return print_batch_seconds(config, memory, devices)

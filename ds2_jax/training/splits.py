"""Reads and checks the splits of a run before anything is written, and makes their batches."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ds2_jax.config import Config
from ds2_jax.corpora import split_manifests
from ds2_jax.data.manifest import Problem, count_reasons, write_problems
from ds2_jax.data.pipeline import Perturb, batches
from ds2_jax.data.plan import PlannedBatch
from ds2_jax.data.splits import Split, read_split
from ds2_jax.parallel.rows import RowLayout
from ds2_jax.runs import run_folder
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import CHARACTERS, names_file, read_units

logger = logging.getLogger(__package__)


def with_units(config: Config, workdir: Path) -> Config:
    """Replaces the file that `data.units` names by its pieces. A run that has them goes on without the file.

    Raises:
        InputError: see `read_units`; or the run in `workdir` is damaged.
    """
    units = config.data.units
    if names_file(units) and not Path(units).exists() and (workdir / run_folder.CONFIG).is_file():
        units = run_folder.load_config(workdir).data.units
        logger.info(f"{config.data.units} is not there; data.units are those of the run in {workdir}")
    units = str(read_units(units) or CHARACTERS)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, units=units))


def read_splits(config: Config) -> dict[str, Split]:
    """Reads and checks the splits train, dev and test, and logs their sizes. Dev or test without a manifest is empty.

    Raises:
        InputError: there is no training manifest; or see `split_manifests`, `read_split` and `train_on_dev`.
    """
    manifests = split_manifests(config.data, build=True)
    if manifests.train is None:
        raise InputError("data.train must be set, got None. Give a manifest, or a data.corpus.")
    alphabet = Alphabet.of(config.data)
    splits = {}
    for name, path in manifests._asdict().items():
        splits[name] = split = read_split(path, config, alphabet, prune=name != "test")
        hours = sum(utterance.duration for utterance in split.utterances) / 3600
        logger.info(
            f"{name}: {path}, {len(split.utterances)} utterances, {hours:.2f} hours" if path else f"{name}: none"
        )
    return train_on_dev(splits) if config.data.train_on_dev else splits


def train_on_dev(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Moves the utterances of the dev split into the training split.

    Raises:
        InputError: the dev split is empty, or an id is in both splits.
    """
    train, dev = splits["train"], splits["dev"]
    if not dev.utterances:
        raise InputError(
            "data.train_on_dev must have a dev split, got none. Give --data.dev, or add --data.no-train-on-dev."
        )
    if common := {utterance.id for utterance in train.utterances} & {utterance.id for utterance in dev.utterances}:
        raise InputError(
            f"data.train_on_dev must have train and dev splits without common ids, got {len(common)}, such as "
            f"{min(common)}. Correct the manifests, or add --data.no-train-on-dev."
        )
    logger.info("data.train_on_dev: the training split includes the dev split, so no epoch is chosen by dev WER")
    both = Split([*train.utterances, *dev.utterances], train.alphabet, [*train.problems, *dev.problems])
    return {**splits, "train": both, "dev": Split((), train.alphabet)}


def list_problems(splits: Mapping[str, Split], workdir: Path) -> None:
    """Logs how many utterances are left out and lists them in the run's folder."""
    for name, split in splits.items():
        listed = workdir / f"skipped_{name}.jsonl"
        listed.unlink(missing_ok=True)  # an earlier start may have written it
        if split.problems:
            write_problems(listed, split.problems)
            total = len(split.utterances) + len(split.problems)
            reasons = count_reasons(split.problems)
            logger.info(f"{name}: {len(split.problems)} of {total} utterances left out ({reasons}), listed in {listed}")


def make_stream(
    plan: Sequence[PlannedBatch],
    split: Split,
    config: Config,
    layout: RowLayout,
    skipped: Callable[[Problem], None] | None,
    perturb: Perturb | None = None,
) -> Iterable[dict[str, np.ndarray]]:
    """Makes the arrays of a batch plan.

    Args:
        plan: the batches to make.
        split: utterances that the plan indexes.
        config: settings of the run.
        layout: order of the rows over the devices.
        skipped: called for each recording that cannot be used, whose row is then left empty; if None, such a
            recording raises InputError.
        perturb: changes the waveforms.
    """
    return batches(
        plan,
        split,
        sample_rate=config.features.sample_rate,
        hop_length=config.features.hop_length,
        layout=layout,
        num_workers=config.data.num_workers,
        time_reduction=config.model.time_reduction,
        perturb=perturb,
        on_problem=skipped,
    )

"""The epochs of training: the batches of each, and the changes to each waveform."""

import functools
import math

import numpy as np

from ds2_jax.config import Config
from ds2_jax.config.frames import ctc_min_frames, ctc_min_samples
from ds2_jax.data.perturb import Perturber
from ds2_jax.data.pipeline import Perturb
from ds2_jax.data.plan import PlannedBatch, envelope_of, plan_epoch, summarise
from ds2_jax.data.splits import Split


class Epochs:
    """The epochs of a run, counted from 0. All have the same number of batches of each shape.

    Args:
        config: the run's configuration.
        split: the training utterances.

    Raises:
        InputError: perturb.noise or perturb.responses cannot be used.
    """

    def __init__(self, config: Config, split: Split) -> None:
        self._config = config
        self._recorded = split.num_samples(config.features.sample_rate)
        self._perturber = perturber_of(config, split)
        same = not self._perturber.changes_lengths
        self._envelope = None if same else envelope_of(map(self.num_samples, range(config.epochs)))
        self.num_steps = len(self.plan(0))
        """The number of steps in every epoch."""

    def num_samples(self, epoch: int) -> np.ndarray:
        """Computes the number of samples of every utterance in an epoch, [U] int. See `num_samples` of `plan_epoch`."""
        if not self._perturber.changes_lengths:
            return self._recorded
        spare = self._config.features.hop_length - 1
        return self._perturber.num_samples(self._recorded + spare, epoch) - spare

    def plan(self, epoch: int) -> list[PlannedBatch]:
        """Plans the batches of an epoch, in order."""
        data, features = self._config.data, self._config.features
        return plan_epoch(
            self.num_samples(epoch),
            batch_size=data.batch_size,
            batch_samples=math.ceil(data.batch_seconds * features.sample_rate),
            num_buckets=data.num_buckets,
            hop_length=features.hop_length,
            seed=self._config.seed,
            epoch=epoch,
            sortagrad=data.sortagrad,
            envelope=self._envelope,
        )

    def perturb(self, epoch: int) -> Perturb | None:
        """Returns the function that changes the waveforms of an epoch; None if nothing changes them."""
        return functools.partial(self._perturber.apply, epoch) if self._perturber.active else None

    def __str__(self) -> str:
        """Describes the batches, lengths, padding and empty rows of the first epoch."""
        features = self._config.features
        summary = summarise(self.plan(0), self.num_samples(0), hop_length=features.hop_length)
        shapes = ", ".join(f"{b.num_rows} x {b.num_frames * features.window_stride:.1f} s" for b in summary.buckets)
        return (
            f"{self.num_steps} batches of utterances padded to {shapes}; "
            f"{summary.padding:.1%} is padding, {summary.num_empty_rows} rows stay empty ({summary.empty_frames:.1%})"
        )


def perturber_of(config: Config, split: Split) -> Perturber:
    """Makes the `Perturber` of a run; arguments and errors are those of `Epochs`."""
    features = config.features
    num_samples = split.num_samples(features.sample_rate)
    least_samples = np.zeros_like(num_samples)
    if config.perturb.changes_lengths:
        min_frames = np.array([ctc_min_frames(labels.tolist()) for labels in split.labels])
        least_samples = ctc_min_samples(min_frames, features.hop_length, config.model.time_reduction)
    return Perturber(config.perturb, features.sample_rate, config.seed, num_samples, least_samples)

"""Reads and checks the splits of a run, before anything is trained or written."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from ds2_jax.config import Config, DataConfig
from ds2_jax.config.places import is_tfds
from ds2_jax.data.manifest import Problem, Utterance, read_manifest
from ds2_jax.data.usable import check_utterances, usable_utterances
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

AUDIO_REASONS = ("missing audio", "unreadable audio", "outside the recording")


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of many transcripts in one array. For the 960 hours of LibriSpeech the array needs 50 MB.

    Attributes:
        flat: [sum of N] unsigned integers, the labels of all transcripts, one transcript after the other.
        ends: [U] int64, where each transcript ends.
    """

    flat: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, transcripts: Sequence[str], alphabet: Alphabet) -> Self:
        """Encodes transcripts. A transcript with characters outside the alphabet gets no labels."""
        dtype = np.min_scalar_type(alphabet.size)
        encoded = [np.array(_encode(transcript, alphabet), dtype) for transcript in transcripts]
        flat = np.concatenate([np.zeros(0, dtype), *encoded])
        return cls(flat, np.cumsum([len(labels) for labels in encoded], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> np.ndarray:
        end = self.ends[index]
        labels: np.ndarray = self.flat[self.ends[index - 1] if index else 0 : end]
        return labels

    @property
    def width(self) -> int:
        """The number of labels of the longest transcript (N)."""
        return int(np.diff(self.ends, prepend=0).max(initial=0))


def _encode(transcript: str, alphabet: Alphabet) -> list[int]:
    try:
        return alphabet.encode(transcript)
    except InputError:
        return []


@dataclasses.dataclass(frozen=True)
class Split:
    """The utterances of a manifest.

    Attributes:
        utterances: the utterances to use, in the order of the manifest.
        alphabet: encodes the transcripts.
        problems: the reasons why the other utterances are not used.
    """

    utterances: Sequence[Utterance]
    alphabet: Alphabet
    problems: Sequence[Problem] = ()

    @functools.cached_property
    def labels(self) -> Labels:
        """The labels of every utterance, encoded once. A transcript outside the alphabet has none."""
        return Labels.of([utterance.transcript for utterance in self.utterances], self.alphabet)

    def num_samples(self, sample_rate: int) -> np.ndarray:
        """Computes the number of samples of every utterance at `sample_rate` (Hz), [U] int."""
        return np.array([utterance.num_samples(sample_rate) for utterance in self.utterances], np.int64)


def manifests_of(data: DataConfig) -> dict[str, Path]:
    """Lists the manifests that a configuration names, by split, without preparing a corpus."""
    names = ("train", "dev", "test")
    if data.corpus is not None:
        return {name: data.root / data.corpus / f"{name}.jsonl" for name in names}
    return {name: path for name in names if (path := getattr(data, name)) is not None}


def found_manifests(data: DataConfig) -> dict[str, Path]:
    """Lists the manifests of `manifests_of` that are still there. TensorFlow data sets are not looked for."""
    return {name: path for name, path in manifests_of(data).items() if is_tfds(path) or path.is_file()}


def read_utterances(path: Path, *, transcribed: bool = True) -> list[Utterance]:
    """Reads a manifest, or the length table of a TensorFlow data set: tfds:NAME#SPLIT.

    Args:
        path: the manifest, or the name of the set.
        transcribed: see `read_manifest`.

    Raises:
        InputError: the manifest or a set cannot be read.
    """
    utterances = [] if is_tfds(path) else read_manifest(path, transcribed=transcribed)
    if utterances and not any(is_tfds(utterance.audio) for utterance in utterances):
        return utterances
    from ds2_jax.data import length_table  # this import needs a second and many megabytes

    return length_table.open_records(path, utterances) if utterances else length_table.read_tfds(path)


def read_split(path: Path | None, config: Config, alphabet: Alphabet, *, prune: bool) -> Split:
    """Reads and checks a manifest or a TensorFlow data set.

    Args:
        path: manifest or tfds:NAME#SPLIT; None gives an empty split.
        config: the run's configuration.
        alphabet: the alphabet of the transcripts.
        prune: True leaves out utterances that cannot be trained on. False keeps every utterance with readable audio, so
            that a test split does not become easier.

    Raises:
        InputError: the manifest cannot be read, an utterance cannot be used and data.on_bad_utterance is "error", or
            no utterance is left.
    """
    if path is None:
        return Split((), alphabet)
    utterances = read_utterances(path)
    problems = find_problems(utterances, config, alphabet, prune=prune)
    on_bad = config.data.on_bad_utterance
    usable = usable_utterances(utterances, problems, alphabet, on_bad_utterance=on_bad, manifest=path)
    return Split(usable, alphabet, problems)


def find_problems(utterances: Sequence[Utterance], config: Config, alphabet: Alphabet, *, prune: bool) -> list[Problem]:
    """Finds the utterances that are not used, and why, without decoding audio. For `prune`, see `read_split`."""
    problems = check_utterances(
        utterances,
        alphabet,
        sample_rate=config.features.sample_rate,
        hop_length=config.features.hop_length,
        time_reduction=config.model.time_reduction,
        min_duration=config.data.min_duration,
        max_duration=config.data.max_duration,
    )
    return problems if prune else [problem for problem in problems if problem.reason in AUDIO_REASONS]


def digest(*splits: Split) -> str:
    """Computes the hexadecimal SHA-256 of the utterances of splits: order, ids, segments, transcripts, not paths.

    A segment at the start of its file counts as a whole file, since runs that began before segments could be read.
    """
    rows = [
        [(u.id, u.duration, u.transcript, *([u.offset] if u.offset else [])) for u in split.utterances]
        for split in splits
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

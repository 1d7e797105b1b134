"""Reads TensorFlow Datasets: finds the features that contain the speech, and reads single records.

This is the only file that imports tensorflow_datasets. It does not download or prepare data sets.
"""

import bisect
import functools
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ds2_jax.audio.parts import AudioBytes
from ds2_jax.audio.reading import audio_duration, read_samples
from ds2_jax.audio.waveform import mono_waveform
from ds2_jax.config.places import DATASET_INFO, TFDS
from ds2_jax.data.tensorflow import load_tensorflow
from ds2_jax.system.errors import InputError
from ds2_jax.system.program import command

AUDIO_NAMES = ("audio", "speech")
"""Names of byte tensors that contain complete audio files, as in the data sets of `data pack`."""
TEXT_NAMES = ("text", "transcript", "transcription", "sentence")
ID_NAMES = ("id", "audio_id")
SPEAKER_NAMES = ("speaker", "speaker_id", "client_id")
SPELLING = "tfds:NAME[/CONFIG][:VERSION]#SPLIT or tfds:FOLDER#SPLIT"


@functools.cache
def library() -> Any:
    """Imports tensorflow_datasets on first use; some of its features load TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow_datasets

    return tensorflow_datasets


def serialize(features: Any, example: Mapping[str, Any]) -> bytes:
    """Serialises an example, always to the same bytes; TFDS alone would order the features at random."""
    record = features.serialize_example(features.encode_example(example))
    serialized: bytes = _example(record).SerializeToString(deterministic=True)
    return serialized


def _example(record: bytes) -> Any:
    library()
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record)


class Features(NamedTuple):
    """The names of the features to read; "" if a set has no id or no speaker.

    Attributes:
        sample_rate: sample rate in Hz; None if the audio is a complete file, whose header states the rate.
    """

    audio: str
    text: str
    id: str
    speaker: str
    sample_rate: int | None


class SplitRow(NamedTuple):
    """Everything in a record except its audio; `duration` is in seconds, 0 if the audio cannot be read."""

    id: str
    duration: float
    transcript: str
    speaker: str


class TfdsSplit:
    """A split of a prepared data set, with its records in the order of the shards.

    Args:
        path: tfds:NAME[/CONFIG][:VERSION]#SPLIT for a set in TFDS_DATA_DIR, by default ~/tensorflow_datasets; or
            tfds:FOLDER#SPLIT for the folder that contains dataset_info.json. SPLIT may be a slice such as train[:10%].

    Raises:
        InputError: the name is wrong, the set is not prepared or has no such split, or its features are not clear.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        where, mark, self.split = self.name.removeprefix(TFDS).rpartition("#")
        if not (where and mark and self.split):
            raise InputError(
                f"A TensorFlow data set must be named {SPELLING}, got {self.name}. Add the split: ...#train."
            )
        builder = _find(where, self.name)
        self.folder = builder.data_path
        self._info = builder.info
        instructions = self._file_instructions()
        self._files = [(str(each.filename), each.skip, each.take) for each in instructions]
        self._ends = np.cumsum([take for _, _, take in self._files]).tolist()
        self.features = find_features(self._info.features, self._info.supervised_keys, self.name)

    def __reduce__(self) -> tuple[type["TfdsSplit"], tuple[Path]]:  # Apache Beam sends records to its workers
        return TfdsSplit, (Path(self.name),)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _file_instructions(self) -> Any:
        splits = self._info.splits
        try:
            instructions = splits[self.split].file_instructions
        except (KeyError, ValueError, AssertionError) as error:
            raise InputError(
                f"{self.name} must name a split of the set, which has {', '.join(splits) or 'none'}, got "
                f"{self.split!r}. Correct it."
            ) from error
        if not instructions:
            raise InputError(f"{self.name} must hold at least one utterance, got none. Choose another split.")
        return instructions

    @property
    def file_format(self) -> str:
        """The format of the shards: "array_record", "tfrecord", ..."""
        return str(self._info.file_format.value)

    @property
    def num_bytes(self) -> int:
        """An estimate of the size of the records: their number times the mean size in the whole set."""
        splits = self._info.splits.values()
        num_records = sum(split.num_examples for split in splits)
        return sum(int(split.num_bytes) for split in splits) * len(self) // int(num_records)

    def require_random_access(self) -> None:
        """Raises InputError unless single records can be read, which needs ArrayRecord."""
        if self.file_format != "array_record":
            raise InputError(
                f"{self.name} must be stored as ArrayRecord to be read in any order, got {self.file_format}. Rewrite "
                f"it: {command('data', 'pack', self.name, '--out', 'FOLDER')}; then name tfds:FOLDER#SPLIT."
            )

    @functools.cached_property
    def _source(self) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource(self._file_instructions())  # threads may share it

    def record(self, index: int) -> bytes:
        """Reads a record as it is stored.

        Raises:
            InputError: the shard is missing or damaged.
        """
        try:
            record: bytes = self._source[index]
        except (RuntimeError, ValueError, OSError, IndexError) as error:  # what array_record raises
            raise self._damaged(index, error) from error
        return record

    def records(self, start: int, stop: int) -> Iterator[bytes]:
        """Reads the records from `start` up to but not including `stop`, in order, from ArrayRecord or TFRecord.

        Raises:
            InputError: a shard is missing, damaged or of another format.
        """
        if self.file_format == "array_record":
            yield from map(self.record, range(start, stop))
            return
        if self.file_format != "tfrecord":
            raise InputError(
                f"{self.name} must be stored as ArrayRecord or TFRecord, got {self.file_format}. Prepare it again with "
                "file_format='array_record'."
            )
        tf = load_tensorflow()
        while start < stop:
            file = bisect.bisect_right(self._ends, start)
            filename, skip, take = self._files[file]
            first = self._ends[file] - take
            dataset = (
                tf.data.TFRecordDataset(filename).skip(skip + start - first).take(min(stop, self._ends[file]) - start)
            )
            try:
                for record in dataset.as_numpy_iterator():
                    yield record
                    start += 1
            except (tf.errors.OpError, OSError) as error:
                raise self._damaged(start, error) from error
            if start < min(stop, self._ends[file]):
                raise self._damaged(start, EOFError("the end of the shard"))

    def _damaged(self, index: int, error: Exception) -> InputError:
        lines = str(error).splitlines() or [type(error).__name__]
        return InputError(f"{self.name}[{index}] must be readable, got: {lines[0]}. Prepare or pack the set again.")

    def row(self, record: bytes, index: int) -> SplitRow:
        """Reads everything in record `index` except its audio.

        Raises:
            InputError: a text is not UTF-8.
        """
        values = _example(record).features.feature  # not decoded: decoding the audio would take most of the time
        name = self._text(values, self.features.id, index) if self.features.id else str(index)
        transcript = self._text(values, self.features.text, index)
        speaker = self._text(values, self.features.speaker, index) if self.features.speaker else ""
        return SplitRow(name, self._duration(record, values, index), transcript, speaker)

    def audio(self, record: bytes, index: int) -> AudioBytes | np.ndarray:
        """Returns the audio of record `index`: a complete audio file, or samples [S, C] in the stored type."""
        name, features = self.features.audio, self._info.features
        skip = {name: library().decode.SkipDecoding()} if self.features.sample_rate is None else None
        value = features.deserialize_example_np(record, decoders=skip)[name]
        if self.features.sample_rate is None:
            return AudioBytes(f"{self.name}[{index}]", value)
        samples = np.asarray(value)
        return samples[:, None] if samples.ndim == 1 else samples

    def read(self, index: int, sample_rate: int) -> np.ndarray:
        """Reads the waveform of record `index` as `audio.reading.read_audio` does."""
        return mono_waveform(*self.samples(index), sample_rate, f"{self.name}[{index}]")

    def samples(self, index: int) -> tuple[np.ndarray, int]:
        """Reads the samples of record `index` as `audio.reading.read_samples` does."""
        audio = self.audio(self.record(index), index)
        if isinstance(audio, AudioBytes):
            return read_samples(audio)
        assert self.features.sample_rate is not None
        if audio.dtype.kind != "f":
            audio = int16_samples(audio, f"{self.name}[{index}]") / np.float32(2**15)  # [S, C]
        return audio.astype(np.float32), self.features.sample_rate

    def _text(self, values: Mapping[str, Any], name: str, index: int) -> str:
        value = values[name]
        if value.int64_list.value:
            number = value.int64_list.value[0]
            feature = self._info.features[name]
            return str(feature.int2str(number) if hasattr(feature, "int2str") and number >= 0 else number)
        content = value.bytes_list.value[0] if value.bytes_list.value else b""
        try:
            return str(content, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.name}[{index}]: {name} must be UTF-8 text, got {error.reason} at byte {error.start}. Prepare "
                "the set again."
            ) from error

    def _duration(self, record: bytes, values: Mapping[str, Any], index: int) -> float:
        value, rate = values[self.features.audio], self.features.sample_rate
        if rate is None:
            try:
                return audio_duration(AudioBytes(f"{self.name}[{index}]", value.bytes_list.value[0]))
            except InputError:
                return 0.0  # `check_utterances` finds the reason
        shape = self._info.features[self.features.audio].shape
        if value.bytes_list.value or len(shape) > 1:
            samples = self.audio(record, index)
            assert isinstance(samples, np.ndarray)
            return len(samples) / rate
        return max(len(value.int64_list.value), len(value.float_list.value)) / rate


def int16_samples(samples: np.ndarray, name: str) -> np.ndarray:
    """Converts integer samples to int16.

    Raises:
        InputError: the samples are not integers, or exceed 16 bits, so that their full scale is unknown.
    """
    limits = np.iinfo(np.int16)
    if samples.dtype.kind not in "iu" or (
        samples.size and not limits.min <= samples.min() <= samples.max() <= limits.max
    ):
        largest = np.abs(samples).max() if samples.size else 0
        raise InputError(
            f"{name} must hold samples of 16 bits, got {samples.dtype} of up to {largest:g}. Prepare the set again."
        )
    return samples.astype(np.int16)


def find_features(features: Mapping[str, Any], supervised: tuple[Any, ...] | None, name: str) -> Features:
    """Finds the features that contain the audio and the transcript.

    The audio is an Audio feature or, if the set has none, a byte tensor with a name in `AUDIO_NAMES`. If there are
    several, it is the one among the supervised keys. The transcript is the text that the supervised keys pair with the
    audio, else the only text with a name in `TEXT_NAMES`, else the only Text.

    Args:
        features: the features of the set by name.
        supervised: the set's supervised keys.
        name: name of the set for errors.

    Raises:
        InputError: none or several features match, or the audio's sample rate is not stated.
    """
    kinds = library().features
    pair = [key for key in supervised or () if isinstance(key, str)]
    scalars = [key for key, each in features.items() if isinstance(each, kinds.Tensor) and each.np_dtype == np.object_]
    audios = [key for key, each in features.items() if isinstance(each, kinds.Audio)]
    audios = audios or [key for key in AUDIO_NAMES if key in scalars and not isinstance(features[key], kinds.Text)]
    others = {*ID_NAMES, *SPEAKER_NAMES, *audios}
    texts = [key for key, each in features.items() if isinstance(each, kinds.Text) and key not in others]
    named = [key for key in TEXT_NAMES if key in scalars and key not in others]
    audios = [key for key in audios if key in pair] or audios
    texts = [key for key in texts if key in pair] or (named if len(named) == 1 else texts)
    for role, found in (("audio", audios), ("transcript", texts)):
        if len(found) != 1:
            listed = ", ".join(f"{key} ({type(each).__name__})" for key, each in features.items())
            raise InputError(
                f"{name} must have one feature that is the {role}, got {' and '.join(found) or 'none'} among {listed}. "
                f"Choose another set, or prepare it with one Audio and one Text, called 'text'."
            )
    [audio], [text] = audios, texts
    feature = features[audio]
    rate = None
    if isinstance(feature, kinds.Audio) and feature.get_serialized_info().np_dtype != np.object_:
        rate = feature.sample_rate
        if not rate:
            raise InputError(
                f"{name}: the feature {audio} must state its sample rate, got none. Prepare the set again with "
                "features.Audio(sample_rate=...)."
            )
    identity, speaker = (next((key for key in names if key in features), "") for names in (ID_NAMES, SPEAKER_NAMES))
    return Features(audio, text, identity, speaker, rate)


def is_data_set(folder: Any) -> bool:
    """Whether a folder, on a disk or in a bucket, contains a complete data set.

    Raises:
        InputError: the folder cannot be read, for example without access or network.
    """
    try:
        return bool((folder / DATASET_INFO).exists())
    except (OSError, load_tensorflow().errors.OpError) as error:  # buckets raise OpError
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{folder} must be readable, got: {reason}. Correct the name, or check the network and the permissions."
        ) from error


def _find(where: str, name: str) -> Any:
    """Makes the builder of a prepared data set from its files, without running the set's own code."""
    tfds = library()
    from etils import epath

    folder = epath.Path(re.sub(r"^(\w+):/(?!/)", r"\1://", where))  # pathlib makes gs:/BUCKET of gs://BUCKET
    data_dir = os.environ.get("TFDS_DATA_DIR")  # TFDS itself reads it only at import
    try:
        if is_data_set(folder):
            return tfds.builder_from_directory(folder)
        if folder.is_dir() or where.startswith((".", "/", "~")) or "://" in os.fspath(folder):
            raise InputError(
                f"{name} must name a folder with a data set, got no {DATASET_INFO} in {folder}. If data pack was "
                "stopped while it wrote there, run that data pack command again."
            )
        return tfds.core.read_only_builder.builder_from_files(where, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        place = data_dir or "~/tensorflow_datasets"
        raise InputError(
            f"{name} must be prepared in {place} (set TFDS_DATA_DIR to use another folder), got no such set there. "
            f"Prepare it, which may download it: tfds build {shlex.quote(where)} --file_format=array_record; or name "
            f"its folder: {SPELLING}."
        ) from error
    except ValueError as error:  # an invalid name, a set in two folders, or a set made by TFDS before 3.2
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{name} must name a data set that can be opened, got: {reason}. Correct the name.") from error

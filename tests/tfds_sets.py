"""Helpers for tests of TensorFlow data sets: makes sets with the features of published ones, offline."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Examples = Mapping[str, list[dict[str, Any]]]


def librispeech() -> dict[str, Any]:
    """Returns the features of TFDS's librispeech."""
    return {
        "speech": tfds.features.Audio(sample_rate=16_000, dtype=np.int16),
        "text": tfds.features.Text(),
        "speaker_id": np.int64,
        "chapter_id": np.int64,
        "id": np.str_,
    }


def prepare(
    data_dir: Path,
    examples: Examples,
    features: Mapping[str, Any] | None = None,
    file_format: str = "array_record",
    supervised_keys: tuple[str, str] | None = None,
    version: str = "1.0.0",
) -> Path:
    """Prepares DATA_DIR/spoken/VERSION as TFDS does, with shuffling, and returns that folder."""
    with tfds.core.registered.skip_registration():  # TFDS refuses a second class of that name

        class Spoken(tfds.core.GeneratorBasedBuilder):
            __module__ = (
                "spoken"  # for a module in a package, TFDS 4.9.10 would look up the path with importlib_resources
            )
            VERSION = tfds.core.Version(version)

            def _info(self) -> Any:
                spec = tfds.features.FeaturesDict(dict(features or librispeech()))
                return tfds.core.DatasetInfo(builder=self, features=spec, supervised_keys=supervised_keys)

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                return {split: self._generate_examples(rows) for split, rows in examples.items()}

            def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
                yield from enumerate(rows)

    builder = Spoken(data_dir=str(data_dir), file_format=file_format)
    builder.download_and_prepare()
    return Path(builder.data_dir)

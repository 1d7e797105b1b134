"""Locations of a run's data: paths, or names of TensorFlow data sets."""

from pathlib import Path

TFDS = "tfds:"
"""Prefix of the name of a TensorFlow data set, which you can use instead of a manifest. See data/tfds.py."""
DATASET_INFO = "dataset_info.json"
"""A folder with this file is a TensorFlow data set. The file is written last."""


def is_tfds(path: Path) -> bool:
    """Whether a manifest's path is the name of a TensorFlow data set."""
    return str(path).startswith(TFDS)


def absolute(path: Path) -> Path:
    """Makes a path absolute, so that it is valid in any folder. A folder in a tfds: name becomes absolute too."""
    if not is_tfds(path):
        return path.absolute()
    where, mark, split = str(path).removeprefix(TFDS).rpartition("#")
    folder = Path(where).absolute()
    return Path(f"{TFDS}{folder}{mark}{split}") if (folder / DATASET_INFO).is_file() else path

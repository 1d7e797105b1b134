"""Where the data of a run lie: a path, or the name of a TensorFlow data set."""

from pathlib import Path

TFDS = "tfds:"
"""Begins the name of a TensorFlow data set where a manifest could be named, see data/tfds.py."""
DATASET_INFO = "dataset_info.json"
"""The file that makes a folder a TensorFlow data set; it is written last."""


def is_tfds(path: Path) -> bool:
    """Whether a manifest's place names a TensorFlow data set."""
    return str(path).startswith(TFDS)


def absolute(path: Path) -> Path:
    """The same place for a process in any folder; in a tfds: name the folder, where it names one, is made absolute."""
    if not is_tfds(path):
        return path.absolute()
    where, mark, split = str(path).removeprefix(TFDS).rpartition("#")
    folder = Path(where).absolute()
    return Path(f"{TFDS}{folder}{mark}{split}") if (folder / DATASET_INFO).is_file() else path

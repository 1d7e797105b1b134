"""Locations of a run's data: paths, or names of TensorFlow data sets."""

from pathlib import Path

TFDS = "tfds:"
"""Prefix of the name of a TensorFlow data set, which you can use instead of a manifest. See data/tfds.py."""
DATASET_INFO = "dataset_info.json"
"""A folder with this file is a TensorFlow data set. The file is written last."""


def is_tfds(path: Path) -> bool:
    """Whether a manifest's path is the name of a TensorFlow data set."""
    return str(path).startswith(TFDS)


def absolute(path: Path, start: Path = Path()) -> Path:
    """Makes a path absolute, so that it is valid in any folder. A folder in a tfds: name becomes absolute too.

    Args:
        path: the path, or the name of a data set or of a record of it.
        start: the folder that a relative path starts from.
    """
    if not is_tfds(path):
        return (start / path).absolute()
    where, mark, split = str(path).removeprefix(TFDS).rpartition("#")
    folder = (start / where).absolute()
    return Path(f"{TFDS}{folder}{mark}{split}") if (folder / DATASET_INFO).is_file() else path


def relative(path: Path, folder: Path) -> Path:
    """Makes an absolute path relative to `folder` if it is inside. The folder in a tfds: name becomes relative too."""
    inside = Path(str(path).removeprefix(TFDS))
    if not inside.is_relative_to(folder):
        return path
    return Path((TFDS if is_tfds(path) else "") + inside.relative_to(folder).as_posix())

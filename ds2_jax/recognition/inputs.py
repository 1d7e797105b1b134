"""Finds the recordings that a command line names: files, folders, patterns and standard input."""

import collections
import glob
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from ds2_jax.audio.ffmpeg import FFMPEG_SUFFIXES
from ds2_jax.audio.reading import AUDIO_SUFFIXES, read_blocks
from ds2_jax.audio.timeline import Timeline
from ds2_jax.config.places import is_tfds
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.splits import read_utterances
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import search, writing

logger = logging.getLogger(__package__)

STANDARD_INPUT = Path("-")
SUFFIXES = AUDIO_SUFFIXES | FFMPEG_SUFFIXES


MANIFEST_SUFFIXES = frozenset({".jsonl", ".json"})


class AudioFile(NamedTuple):
    """A recording to transcribe.

    Attributes:
        path: the file, or STANDARD_INPUT; for a record of a TensorFlow data set, its name.
        name: the name of its results. For a file, it is the file's name; in a folder, the path below the folder; with a
            pattern, the path from the first part with a wildcard; for standard input, "stdin". Folders are separated by
            "/". The suffix is left out, unless two names would be equal, such as those of a.wav and a.mp3. For an
            utterance of a manifest, it is its id.
        utterance: what a manifest says of it; None without a manifest.
    """

    path: Path
    name: str
    utterance: Utterance | None = None


def find_audio(paths: Sequence[Path]) -> list[AudioFile]:
    """Lists the given files, and all audio and video files below the given folders, each file once.

    The files of a folder are sorted. Links to folders are followed. Hidden files and folders inside a folder are
    skipped, and a pattern matches them only if it contains their dot. Hidden and other files in the folders are counted
    in the log. Broken links are listed, so that reading them reports the error.

    A path that does not exist is a pattern if it contains one of `*?[`; `**` stands for any number of folders. A file
    that ends in .jsonl or .json is a manifest, whose lines need no transcripts. tfds:NAME#SPLIT is a data set.

    Raises:
        InputError: no path is given, one does not exist, a pattern matches nothing, a folder holds no audio, or a
            manifest or data set cannot be read.
    """
    if not paths:
        raise InputError("AUDIO must name at least one file or folder, got none. Add it after RUN.")
    manifests = [path for path in paths if is_manifest(path)]
    return _find_files([path for path in paths if path not in manifests]) + [
        AudioFile(utterance.audio, utterance.id, utterance)
        for path in dict.fromkeys(manifests)
        for utterance in read_utterances(path, transcribed=False)
    ]


def is_manifest(path: Path) -> bool:
    """Whether an argument names a manifest or a TensorFlow data set."""
    is_folder = os.path.isdir(path)  # noqa: PTH112 - Path's method raises if the name is too long
    return is_tfds(path) or (path.suffix.lower() in MANIFEST_SUFFIXES and not is_folder)


def _find_files(paths: Sequence[Path]) -> list[AudioFile]:
    found: dict[str, tuple[Path, PurePath]] = {}
    for path in paths:
        for file, name in _find(path):
            # Links can lead to one folder under several names.
            found.setdefault(os.path.join(os.path.realpath(file.parent), file.name), (file, name))  # noqa: PTH118
    names = dict(found.values())
    count = collections.Counter(name.with_suffix("") for name in names.values())
    return [
        AudioFile(file, (name if count[name.with_suffix("")] > 1 else name.with_suffix("")).as_posix())
        for file, name in names.items()
    ]


def _find(path: Path) -> Iterator[tuple[Path, PurePath]]:
    """Yields the files of one argument, and their names with suffix."""
    if path == STANDARD_INPUT:
        yield path, PurePath("stdin")
    elif os.path.exists(path):  # noqa: PTH110 - Path's methods raise if the name is too long
        yield from _search(path, path if path.is_dir() else path.parent)
    elif "*" in str(path) or "?" in str(path) or "[" in str(path):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob has no absolute patterns
        if not matches:
            raise InputError(f"AUDIO must name files, got the pattern {path}, which matches none. Correct it.")
        varying = next(i for i, part in enumerate(path.parts) if re.search(r"[*?[]", part))
        for match in map(Path, matches):
            yield from _search(match, Path(*path.parts[:varying]))
    else:
        raise InputError(f"AUDIO must be a file or folder, got {path}, which does not exist. Correct the path.")


def _search(path: Path, root: Path) -> Iterator[tuple[Path, PurePath]]:
    """Yields the file, or the audio and video files below the folder, with their paths relative to `root`."""
    if not path.is_dir():
        yield path, path.relative_to(root)
        return
    below = sorted(search(path))
    found = [each for each in below if each.suffix.lower() in SUFFIXES]
    if others := len(below) - len(found):
        unread = sorted({each.suffix.lower() or "no suffix" for each in below} - SUFFIXES)
        logger.info(f"{path}: {others} other {'file' if others == 1 else 'files'} ignored: {', '.join(unread)}")
    if not found:
        suffixes = " ".join(sorted(AUDIO_SUFFIXES))
        raise InputError(f"{path} must hold audio files ({suffixes} ...), got none. Give another folder.")
    for each in found:
        yield each, each.relative_to(root)


def save_standard_input(folder: Path) -> Path:
    """Writes standard input to a file in `folder`, because audio must be read more than once.

    Raises:
        InputError: nothing is piped in, or the disk is full.
    """
    if sys.stdin is None or sys.stdin.isatty():
        got = "a closed standard input" if sys.stdin is None else "a terminal"
        raise InputError(
            f"AUDIO - must be a recording on standard input, got {got}. Pipe one into the command, or add < FILE."
        )
    start = sys.stdin.buffer.read(3)
    # libsndfile recognises some MP3 files that begin with an ID3 tag only by the end of their name.
    path = folder / ("stdin.mp3" if start == b"ID3" else "stdin")
    with writing(path), path.open("wb") as file:
        file.write(start)
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def read_input_blocks(
    file: AudioFile, sample_rate: int, standard_input: Path | None, timeline: Timeline
) -> Iterator[np.ndarray]:
    """Reads a recording as `read_blocks` does; for STANDARD_INPUT, the file that `save_standard_input` wrote.

    A segment, or a record of a data set, is one block.
    """
    if file.utterance is not None and (file.utterance.offset is not None or file.utterance.record is not None):
        yield file.utterance.read(sample_rate)
        return
    if file.utterance is not None or file.path != STANDARD_INPUT:
        yield from read_blocks(file.path, sample_rate, timeline)
        return
    assert standard_input is not None
    try:
        yield from read_blocks(standard_input, sample_rate, timeline)
    except InputError as error:
        raise InputError(str(error).replace(str(standard_input), "Standard input")) from error

"""Small corpora of speech: a few sentences by espeak-ng, in the audio formats and archives of the published corpora."""

import functools
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from ds2_jax.corpora.synthetic import SAMPLE_RATE, Prompt, speak

SENTENCES = ("GO LEFT", "OPEN THE DOOR", "TURN ON THE RADIO AND STOP THE MUSIC", "SEVEN TWO")
Files = Mapping[str, bytes]


@functools.cache
def waveform(sentence: str) -> np.ndarray:
    """Returns the waveform of a sentence, [S] float32 in [-1, 1] at 16 kHz."""
    return _spoken()[sentence]


@functools.cache
def _spoken() -> dict[str, np.ndarray]:
    prompts = [Prompt(sentence, rate=150, pitch=50, level=0.5) for sentence in SENTENCES]
    return dict(zip(SENTENCES, speak("en-us", prompts), strict=True))


@functools.cache
def recording(sentence: str, audio_format: str = "FLAC") -> bytes:
    """Encodes a sentence as an audio file with 16 bits at 16 kHz."""
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(audio_format, "PCM_16")
    file = io.BytesIO()
    soundfile.write(file, waveform(sentence), SAMPLE_RATE, format=audio_format, subtype=subtype)
    return file.getvalue()


def seconds(sentence: str) -> float:
    """Returns the duration of the recording in seconds."""
    return len(waveform(sentence)) / SAMPLE_RATE


def write_files(folder: Path, files: Files) -> Path:
    """Writes `files`, a map of paths below `folder` to contents."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_archive(path: Path, files: Files) -> Path:
    """Packs `files` into a .tar.gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Maps the path of every file below `folder` to its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""Reads audio with the ffmpeg program if libsndfile cannot read it: m4a, mp4, webm, mkv and other formats."""

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ds2_jax.audio import reading
from ds2_jax.audio.reading import MAX_RATE, MIN_RATE
from ds2_jax.system.errors import InputError, shorten

FFMPEG_SUFFIXES = frozenset(
    ".3gp .aac .ac3 .amr .asf .avi .flv .m4a .m4b .m4v .mka .mkv .mov .mp4 .mpeg .mpg .ogv .spx .webm .wma .wmv".split()
)
"""Suffixes to look for in folders. A file that you name may have any suffix."""
MAX_BLOCK = 2**28
"""The largest allocation in bytes that a file's header may cause in ffmpeg. ffmpeg's own limit is 2 GiB."""
AU_HEADER = struct.Struct(">4s5I")  # ".snd", bytes before the samples, bytes of samples, coding, Hz, channels


def read_blocks(path: Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Reads a recording of any length in blocks of a few seconds, with libsndfile or else with ffmpeg.

    Args:
        path: the file. Only the first audio track of a video is read.
        sample_rate: sample rate of the result in Hz.

    Yields:
        [S] float32, consecutive blocks of the waveform. Channels and rate are converted as in `reading.read_audio`.

    Raises:
        InputError: see `read_sndfile_blocks`. Or libsndfile does not know the format, and ffmpeg is not installed,
            finds no sound or finds a fault.
    """
    try:
        yield from reading.read_sndfile_blocks(path, sample_rate)
    except reading.UnknownFormatError as error:  # raised before the first block
        suffix, program = path.suffix.lower(), shutil.which("ffmpeg")
        if program is None and suffix in FFMPEG_SUFFIXES:
            rule = "be WAV, FLAC, Ogg, MP3 or another format that libsndfile reads"
            advice = "Install ffmpeg, which reads it, or convert the file."
            raise InputError(f"{path} must {rule}, got {suffix.removeprefix('.')}. {advice}") from None
        if program is None:
            raise InputError(f"{error} Or install ffmpeg, which reads more.") from None
        yield from _decode(program, path, sample_rate)


def _decode(program: str, path: Path, sample_rate: int) -> Iterator[np.ndarray]:
    with tempfile.TemporaryFile() as messages, _start(program, path, messages) as process:
        assert process.stdout is not None
        try:
            yield from _read(process.stdout, process, messages, path, sample_rate)
        finally:
            process.kill()  # it still runs if the reader stopped early


def _start(program: str, path: Path, messages: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Starts ffmpeg. It writes the AU format (a short header, then float samples) to a pipe."""
    # The prefix "file:" keeps ffmpeg from taking the start of the file's name for a protocol. The whitelist forbids
    # other protocols in the file's content: a playlist could contain network addresses.
    arguments = [program, "-nostdin", "-hide_banner", "-loglevel", "error", "-xerror", "-protocol_whitelist", "file"]
    arguments += [
        "-max_alloc",
        str(MAX_BLOCK),
        "-i",
        f"file:{path}",
        "-map",
        "0:a:0",
        "-c:a",
        "pcm_f32be",
        "-f",
        "au",
        "pipe:1",
    ]
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages)


def _read(
    pipe: IO[bytes], process: "subprocess.Popen[bytes]", messages: IO[bytes], path: Path, sample_rate: int
) -> Iterator[np.ndarray]:
    header = pipe.read(AU_HEADER.size)
    if len(header) < AU_HEADER.size:
        _check(process, messages, path)
        raise InputError(f"{path} must hold sound, got none. Replace the file.")
    _, start, _, _, file_rate, num_channels = AU_HEADER.unpack(header)
    if not MIN_RATE <= file_rate <= MAX_RATE:
        raise InputError(
            f"{path} must have a rate of {MIN_RATE} to {MAX_RATE} Hz, got {file_rate} Hz. Replace the file."
        )
    pipe.read(start - AU_HEADER.size)

    def sample_blocks() -> Iterator[np.ndarray]:
        while data := pipe.read(reading.block_samples(num_channels) * num_channels * 4):
            samples = np.frombuffer(data[: len(data) // (num_channels * 4) * num_channels * 4], ">f4")
            yield samples.reshape(-1, num_channels).astype(np.float32)
        _check(process, messages, path)

    yield from reading.waveform_blocks(sample_blocks(), file_rate, sample_rate, str(path))


def _check(process: "subprocess.Popen[bytes]", messages: IO[bytes], path: Path) -> None:
    """Waits until ffmpeg ends.

    Raises:
        InputError: ffmpeg failed or printed an error. It prints one after decoding a file that is cut short.
    """
    code = process.wait()
    messages.seek(0)
    said = messages.read().decode(errors="replace").replace(f"file:{path}: ", "")
    if "matches no streams" in said:
        raise InputError(f"{path} must hold sound, got none. Replace the file.")
    if code or said.strip():
        first = re.sub(r"^\[[^\]]* @ 0x[0-9a-f]+\] ", "", said.strip().partition("\n")[0]).rstrip(".")
        raise InputError(
            f"{path} must be undamaged audio or video, got an ffmpeg error: "
            f"{shorten(first) or f'exit code {code}'}. Replace the file, or repair it: ffmpeg -i OLD NEW.flac."
        )

"""Reads audio files with libsndfile.

If a WAV, Sphere or Ogg file is cut short, or an Ogg file is damaged in the middle, libsndfile 1.2 reads a shorter
recording without an error. If a header states too small a size, libsndfile stops there. So this module compares the
length in the header with the contents of the file. For most other formats libsndfile's log shows the damage.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from ds2_jax.audio import flac, headers, mp3, ogg
from ds2_jax.audio.cut import check_not_cut
from ds2_jax.audio.joined import another_recording, check_single
from ds2_jax.audio.parts import AudioBytes, Parts, Source, num_bytes
from ds2_jax.audio.waveform import MAX_RATE, MAX_VALUES, MIN_RATE, block_samples, unusable
from ds2_jax.system.errors import InputError

# This module checks the contents of these formats (libsndfile's names). For other formats it checks libsndfile's log.
CHECKED_FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "NIST"})
# libsndfile's errors for damage. Files that cause its other errors may be whole.
DAMAGE_ERRORS = frozenset({2, 3})
UNKNOWN_FORMAT = 1
MP3_RESERVOIR = 1
"""Seconds to decode before a place in an MP3. A frame may need up to 511 bytes of those before it, which last half a
second at 8 kbit/s. After a seek, libsndfile 1.2.2 gives silence until it has them."""
# A program that writes WAV into a pipe does not know the size. ffmpeg writes 0xFFFFFFFF, sox 0x7FFFF000.
WAV_SIZE_UNKNOWN = 0x7FFFF000


class UnknownFormatError(InputError):
    """libsndfile cannot read the file, or not all of it, but the file may be whole.

    Attributes:
        ranges: start and end of the parts that hold the sound, in bytes; empty if they are not known.
        links: the recordings of a chain, one after the other; empty if the file is no chain.
    """

    def __init__(self, message: str, ranges: Sequence[tuple[int, int]] = (), links: Sequence[AudioBytes] = ()) -> None:
        super().__init__(message)
        self.ranges, self.links = ranges, links


class Opened(NamedTuple):
    """A file that libsndfile reads.

    Attributes:
        source: the file.
        file: libsndfile's reader. Its number of frames may be an estimate that is too large.
        num_samples: the number of samples per channel that the file must hold.
    """

    source: Source
    file: soundfile.SoundFile
    num_samples: int


@contextlib.contextmanager
def open_audio(source: Source) -> Iterator[Opened]:
    """Opens a file and checks its format, rate and length.

    Raises:
        UnknownFormatError: libsndfile does not know the format, the length is not stated, or libsndfile would read only
            a part.
        InputError: the file is missing, empty, cut short or damaged, or its rate is out of range.
    """
    if isinstance(source, Path):
        _check_file(source)
    elif not source.data:
        raise unusable(source, "hold audio", "an empty file")
    with contextlib.ExitStack() as stack:
        file = _open(source, source, stack)
        if not MIN_RATE <= file.samplerate <= MAX_RATE:
            raise unusable(source, f"have a rate of {MIN_RATE} to {MAX_RATE} Hz", f"{file.samplerate} Hz")
        num_samples = file.frames
        if file.format == "MP3" and (frames := mp3.find_frames(source)):
            if frames.stated is None and frames.start:  # libsndfile's estimate of the length would count the tag
                file = _open(source, Parts(source, b"", [(frames.start, num_bytes(source))]), stack)
            if (parts := _mp3_parts(source, frames, file.frames)) is not None:
                file = _open(source, parts, stack)
                num_samples = file.frames
            elif frames.stated is None:
                num_samples = frames.num_samples
        elif (parts := _with_sound_behind(source, file.format)) is not None:
            file = _open(source, parts, stack)
            num_samples = file.frames
        _check_length(source, file)
        yield Opened(source, file, num_samples)


def _with_sound_behind(source: Source, file_format: str) -> Parts | None:
    if file_format == "FLAC":
        return flac.with_samples_behind(source)
    return headers.with_sound_behind(source, file_format)


def _mp3_parts(source: Source, frames: mp3.Frames, num_samples: int) -> Parts | None:
    """Returns an MP3 with a right header in front, if libsndfile would read only a part of it."""
    if frames.ranges and (offset := another_recording(source, frames.end)):
        raise InputError(f"{source} must hold one recording, got another at byte {offset}. Divide it there.")
    if frames.changes and not frames.damage:
        rule = "keep its sample rate and channels to the end"
        message = f"{source} must {rule}, got an MP3 in which they change. Install ffmpeg to read it."
        raise UnknownFormatError(message, frames.ranges)
    if frames.stated is not None and max(frames.num_frames + 1, num_samples / frames.samples_per_frame) < frames.stated:
        raise unusable(source, f"hold the {frames.stated} frames that its header states", f"{frames.num_frames}")
    # The header's own frame may be counted.
    whole = num_samples >= frames.num_samples if frames.stated is None else frames.num_frames <= frames.stated + 1
    if whole and not frames.changes:
        return None
    if frames.damage:
        raise unusable(source, "be an undamaged MP3", frames.damage)
    return Parts(source, mp3.length_header(frames), frames.ranges)


def _open(source: Source, opened: Source | Parts, stack: contextlib.ExitStack) -> soundfile.SoundFile:
    """Opens a source, or parts of it, until the stack closes."""
    if isinstance(opened, Parts):
        stack.enter_context(opened)
    try:
        return stack.enter_context(_sound_file(opened))
    except soundfile.LibsndfileError as error:
        if opened is source and (parts := _recognisable(source, error.code)):
            return _open(source, parts, stack)
        links = ogg.links(source)
        if error.code in DAMAGE_ERRORS and not links:  # the first link of a chain may hold no sound
            rule = "be undamaged WAV, FLAC, Ogg, MP3, Sphere, AIFF or similar audio"
            raise unusable(source, rule, f"a file libsndfile cannot open ({error.error_string})") from error
        rule = "be WAV, FLAC, Ogg, MP3, Sphere, AIFF or similar audio that libsndfile reads"
        message = f"{source} must {rule}, got: {error.error_string}"
        raise UnknownFormatError(message, links=links) from error


def _recognisable(source: Source, code: int) -> Parts | None:
    """Returns the part of a file that libsndfile may recognise, after its error `code` for the whole."""
    if parts := headers.with_plain_chunks(source):
        return parts
    size = num_bytes(source)
    frames = mp3.find_frames(source) if code == UNKNOWN_FORMAT else None
    if frames and 2 * sum(end - start for start, end in frames.ranges) > size:  # not by chance
        return Parts(source, b"", [(frames.start, size)])
    return None


def _sound_file(opened: Source | Parts) -> soundfile.SoundFile:
    if isinstance(opened, AudioBytes):
        return _open_bytes(opened.data)
    if isinstance(opened, Parts):
        return soundfile.SoundFile(opened)
    if opened.suffix.lower() == ".raw":  # soundfile asks for the rate of a file of this name
        return soundfile.SoundFile(os.open(opened, os.O_RDONLY), closefd=True)
    # Pass bytes, because soundfile cannot encode a name that is not UTF-8. On Windows it accepts no bytes.
    return soundfile.SoundFile(opened if os.name == "nt" else os.fsencode(opened))


def _open_bytes(data: bytes) -> soundfile.SoundFile:
    # libsndfile recognises some MP3 files behind a tag only by the file's suffix, which bytes do not have. Of a WAV
    # file behind a tag, it reads too little from memory.
    return soundfile.SoundFile(io.BytesIO(data[mp3.id3_bytes(data[:10]) :]))


def _check_file(path: Path) -> None:
    """Raises InputError unless the path is a readable file that is not empty."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb"):
                pass
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        finding = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} must be a readable file, got: {finding}. Correct the path.") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} must be a file, got a folder. Correct the path.")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe could block, and audio is read twice
        raise InputError(f"{path} must be a file on disk, got a pipe or a device. Write the audio into a file first.")
    if status.st_size == 0:
        raise unusable(path, "hold audio", "an empty file")


def _check_length(source: Source, file: soundfile.SoundFile) -> None:
    """Raises InputError if the file does not state its length, is empty, or is cut short or damaged."""
    if file.format in ("WAV", "WAVEX") and file.subtype.startswith("MPEG"):
        raise UnknownFormatError(f"{source} must be audio that libsndfile reads, got MP3 in WAV")
    if file.format in ("WAV", "WAVEX"):
        promised, held = headers.wav_data_bytes(source)
        if held < promised < WAV_SIZE_UNKNOWN:
            raise unusable(source, f"hold the {promised} bytes of audio that its header states", f"{held}")
    if (
        file.format == "VOC" and "multi-segment" in file.extra_info
    ):  # libsndfile takes the headers of blocks for samples
        raise UnknownFormatError(f"{source} must be audio that libsndfile reads, got VOC with several blocks of sound")
    if file.format == "NIST" and (sample_count := headers.sphere_sample_count(source)) not in (None, file.frames):
        raise unusable(source, f"hold the {sample_count} samples that its header states", f"{file.frames}")
    if file.format == "OGG" and (fault := ogg.fault(source)):
        if fault.startswith(ogg.SECOND):
            message = f"{source} must hold one Ogg stream, got {fault}. Install ffmpeg to read it."
            raise UnknownFormatError(message, links=ogg.links(source))
        raise unusable(source, "hold one undamaged Ogg stream", fault)
    if file.format == "FLAC" and (offset := flac.second_flac(source)):
        # ffmpeg 5.1 leaves out the last block of the first stream.
        raise InputError(f"{source} must hold one FLAC stream, got another at byte {offset}. Divide it there.")
    check_single(source)
    if file.format not in CHECKED_FORMATS and (fault := headers.logged_fault(file.extra_info)):
        raise unusable(source, "be undamaged audio", fault)
    check_not_cut(source)
    if file.frames <= 0:
        raise unusable(source, "hold audio", f"{file.frames} samples")
    if file.frames >= 2**62:  # libsndfile's value for a FLAC stream of unknown length, from a pipe
        advice = "Rewrite it: ffmpeg -i OLD NEW.flac."
        raise UnknownFormatError(f"{source} must state its length, got a stream without it. {advice}")


def read_whole(opened: Opened, dtype: str = "float32") -> np.ndarray:
    """Reads all samples of a file: [S, C] of type `dtype`.

    Raises:
        InputError: the file is damaged, or has more than MAX_VALUES samples over all channels.
    """
    if (num_values := opened.num_samples * opened.file.channels) > MAX_VALUES:
        rule = f"have at most {MAX_VALUES:,} samples over all channels"
        raise InputError(f"{opened.source} must {rule}, got {num_values:,} in its header. Replace it or cut it.")
    samples = decode(opened, 0, opened.num_samples, dtype)
    _check_whole(opened, len(samples))
    return samples


def sample_blocks(opened: Opened) -> Iterator[np.ndarray]:
    """Reads all samples of a file in blocks of [S, C] float32. Raises InputError if the file is damaged."""
    num_read, size = 0, block_samples(opened.file.channels)
    # soundfile seeks after each read, and a seek makes libmpg123 forget the bits that the next frame needs: samples
    # behind the border of two blocks were wrong by up to 0.6.
    if opened.file.format == "MP3":
        opened.file.seekable = lambda: False
    while num_read < opened.num_samples:
        wanted = min(size, opened.num_samples - num_read)
        samples = decode(opened, 0, wanted, "float32")
        num_read += len(samples)
        yield samples
        if len(samples) < wanted:  # the data after this point are damaged
            break
    _check_whole(opened, num_read)


def _check_whole(opened: Opened, num_samples: int) -> None:
    if num_samples < opened.num_samples:
        rule = f"hold the {opened.num_samples} samples that its header states"
        raise unusable(opened.source, rule, f"{num_samples}")


def decode(opened: Opened, start: int, num_samples: int, dtype: str) -> np.ndarray:
    """Decodes samples from `start`, or from the current position if 0: [S, C] `dtype`, fewer at the end.

    Raises:
        InputError: the file is damaged.
    """
    source, file = opened.source, opened.file
    before = min(start, file.samplerate * MP3_RESERVOIR) if file.format == "MP3" else 0
    try:
        if start:
            _skip(file, start - before)
            if file.seekable() and (position := file.tell()) > file.frames:  # happens in damaged MP3s
                raise unusable(
                    source, f"end after the {file.frames} samples that its header states", f"sample {position}"
                )
        samples: np.ndarray = file.read(
            before + num_samples, dtype=dtype, always_2d=True
        )  # GSM needs a number of samples
    except soundfile.LibsndfileError as error:
        raise unusable(source, "decode to its end", str(error)) from error
    except MemoryError as error:  # a damaged header can state any number
        raise unusable(source, "fit into memory", f"{num_samples} samples") from error
    return samples[before:]


def _skip(file: soundfile.SoundFile, num_samples: int) -> None:
    """Goes to a sample of a newly opened file. In Ogg Vorbis and GSM, this decodes all earlier samples."""
    if file.subtype != "VORBIS" and file.seekable():
        file.seek(num_samples)
        return
    # libsndfile 1.2.2 crashes when it seeks in a Vorbis stream with damaged codebooks. Decoding does not crash.
    while num_samples > 0:
        wanted = min(num_samples, block_samples(file.channels))
        num_samples -= len(file.read(wanted, "float32", always_2d=True)) or num_samples

"""Audio files -> mono waveforms at the model's sample rate.

libsndfile decodes, soxr resamples. libsndfile 1.2 reads a WAV, Sphere or Ogg file that was cut short, and an Ogg file
damaged in the middle, as a shorter recording and says nothing; here what the headers promise is compared with what the
file holds. What lies behind the end that a FLAC or MP3 file states (another recording, appended) is not looked at.
"""

import dataclasses
import io
import os
import re
import stat
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from ds2_jax.errors import InputError

# libsndfile's names. It knows more formats, but only of these is it known how a damaged file shows.
FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "NIST"})
# A program that writes WAV into a pipe cannot know the size and writes a large one: ffmpeg 0xFFFFFFFF, sox 0x7FFFF000.
WAV_SIZE_UNKNOWN = 0x7FFFF000
SPHERE_MAX_HEADER_BYTES = 1 << 16
OGG_PAGE = struct.Struct("<4sxB8xII4sB")  # "OggS", flags, stream, page number, checksum, number of segments
OGG_FIRST, OGG_LAST = 2, 4  # flags of a stream's first and last page
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MIN_RATE, MAX_RATE = 4_000, 192_000  # Hz; another in a header is damage, and could ask for any amount of memory
MAX_AMPLITUDE = 1e6  # float files of 16-bit numbers are within; far louder, the features would overflow
# Without a Xing or Info header libsndfile estimates an MP3's length from the file's size and first frame. Tags counted
# apart, the estimate was measured at most 0.5 % too long for constant bit rates (3 s of noise, 8 to 48 kHz).
MP3_ESTIMATE_ERROR = 0.01
FLAC_MAX_CHANNELS = 8


@dataclasses.dataclass(frozen=True)
class AudioBytes:
    """An audio file in memory.

    Attributes:
        name: stands in messages where the path of a file does.
        data: what the file would hold.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


Source = Path | AudioBytes


def read_audio(path: Path | str | AudioBytes, sample_rate: int) -> np.ndarray:
    """Reads a recording: WAV, FLAC, Ogg (Vorbis, Opus), MP3 or NIST Sphere, 4 to 192 kHz, any number of channels.

    Args:
        path: the audio file, or what is in it.
        sample_rate: Hz, of the result.

    Returns:
        [S] float32, the mean of the channels, resampled (soxr HQ) where the file has another rate. Full scale is
        [-1, 1]; samples of float files, and overshoot of lossy coding and resampling, may lie outside.

    Raises:
        InputError: the file is missing, of another format or rate, empty, cut short or damaged, or holds NaN, infinity
            or samples beyond a million times full scale.

    Differs: deepspeech.pytorch does not resample and takes the file's rate for its own.
    """
    source = path if isinstance(path, AudioBytes) else Path(path)
    with _open(source) as file:
        return mono_waveform(_read(source, file, "float32"), file.samplerate, sample_rate, str(source))


def mono_waveform(samples: np.ndarray, file_rate: int, sample_rate: int, name: str) -> np.ndarray:
    """Mixes down and resamples.

    Args:
        samples: [S, C] float32, of any number of channels.
        file_rate: Hz, of the samples.
        sample_rate: Hz, of the result.
        name: of the recording, for messages.

    Returns:
        [S] float32.

    Raises:
        InputError: samples are not numbers or beyond a million times full scale, or there are none.
    """
    in_range = np.abs(samples) <= MAX_AMPLITUDE  # False for NaN
    if not in_range.all():
        index, channel = np.argwhere(~in_range)[0]
        rule = f"hold samples of at most {MAX_AMPLITUDE:g} (full scale is 1)"
        raise _unusable(name, rule, f"{samples[index, channel]:g} at sample {index}")
    waveform: np.ndarray = samples.mean(axis=1)  # [S]
    if file_rate != sample_rate:
        waveform = soxr.resample(waveform, file_rate, sample_rate, quality="HQ")
    if not waveform.size:
        raise _unusable(name, f"last at least one sample of {sample_rate} Hz", f"{len(samples)} of {file_rate} Hz")
    return waveform


def audio_duration(path: Path | str | AudioBytes) -> float:
    """Seconds of a recording, from its header; nothing is decoded.

    An MP3 without a Xing or Info header gives an estimate: good to 1 % for a constant bit rate and no large tag.

    Raises:
        InputError: as `read_audio`, as far as it shows without decoding: not for a cut FLAC or MP3, nor for NaN.
    """
    with _open(path if isinstance(path, AudioBytes) else Path(path)) as file:
        return float(file.frames / file.samplerate)


def lossless_flac(path: Source) -> bytes | None:
    """A WAV or Sphere recording of 16-bit samples as FLAC of the same samples, rate and channels.

    Returns:
        The FLAC file; None where the recording is of another kind, or FLAC does not hold so many channels.

    Raises:
        InputError: as `read_audio`.
    """
    with _open(path) as file:
        pcm = file.format in ("WAV", "WAVEX", "NIST") and file.subtype == "PCM_16"
        if not pcm or file.channels > FLAC_MAX_CHANNELS:
            return None
        return encode_flac(_read(path, file, "int16"), file.samplerate)


def encode_flac(samples: np.ndarray, sample_rate: int) -> bytes:
    """A FLAC file of [S, C] int16 samples at `sample_rate` (Hz); the same bytes each time."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _read(source: Source, file: soundfile.SoundFile, dtype: str) -> np.ndarray:
    """All samples, [S, C] `dtype`, as many as the header promises."""
    num_samples = file.frames
    try:
        samples: np.ndarray = file.read(num_samples, dtype=dtype, always_2d=True)  # GSM needs the number
    except soundfile.LibsndfileError as error:
        raise _unusable(source, "decode to its end", str(error)) from error
    except MemoryError as error:  # a damaged header can promise any number
        raise _unusable(source, "fit into memory", f"{num_samples} samples") from error
    excess = _mp3_length_excess(source) if file.format == "MP3" else 0.0
    if len(samples) < num_samples * (1 - excess):
        raise _unusable(source, f"hold the {num_samples} samples its header promises", f"{len(samples)}")
    return samples


def _open_binary(source: Source) -> BinaryIO:
    return io.BytesIO(source.data) if isinstance(source, AudioBytes) else source.open("rb")


def _num_bytes(source: Source) -> int:
    return len(source.data) if isinstance(source, AudioBytes) else source.stat().st_size


def _open(path: Source) -> soundfile.SoundFile:
    """The file opened, its format, rate and length checked."""
    if isinstance(path, Path):
        _check_file(path)
    elif not path.data:
        raise _unusable(path, "hold audio", "an empty file")
    formats = "WAV, FLAC, Ogg, MP3 or Sphere audio"
    try:
        if isinstance(path, AudioBytes):
            file = soundfile.SoundFile(io.BytesIO(path.data))
        else:
            # As bytes: soundfile would encode the name itself, and fails where it is not UTF-8. Windows takes no bytes.
            file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    except soundfile.LibsndfileError as error:
        raise _unusable(path, f"be whole {formats}", f"a file libsndfile cannot open ({error.error_string})") from error
    try:
        if file.format not in FORMATS:
            raise InputError(f"{path} must be {formats}, got {file.format}. Convert it.")
        if not MIN_RATE <= file.samplerate <= MAX_RATE:
            raise _unusable(path, f"have a rate of {MIN_RATE} to {MAX_RATE} Hz", f"{file.samplerate} Hz")
        _check_length(path, file)
    except InputError:
        file.close()
        raise
    return file


def _check_file(path: Path) -> None:
    """Raises InputError unless it is a file, not empty, that may be read."""
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
    if not stat.S_ISREG(status.st_mode):  # opening a pipe could wait for ever, and audio is read more than once
        raise InputError(f"{path} must be a file on disk, got a pipe or a device. Write the audio into a file first.")
    if status.st_size == 0:
        raise _unusable(path, "hold audio", "an empty file")


def _check_length(path: Source, file: soundfile.SoundFile) -> None:
    """Raises InputError unless the file states its length, is not empty and is not cut short."""
    if file.format in ("WAV", "WAVEX"):
        promised, held = _wav_data_bytes(path)
        if held < promised < WAV_SIZE_UNKNOWN:
            raise _unusable(path, f"hold the {promised} bytes of audio its header promises", f"{held}")
    if file.format == "NIST" and (sample_count := _sphere_sample_count(path)) not in (None, file.frames):
        raise _unusable(path, f"hold the {sample_count} samples its header promises", f"{file.frames}")
    if file.format == "OGG" and (fault := _ogg_fault(path)):
        raise _unusable(path, "hold one whole Ogg stream", fault)
    if file.frames == 0:
        raise _unusable(path, "hold audio", "0 samples")
    if file.frames >= 2**62:  # libsndfile's mark for a FLAC stream of unknown length, as written into a pipe
        raise InputError(f"{path} must state its length, got a stream without it. Rewrite it: ffmpeg -i OLD NEW.flac.")


def _unusable(path: Source | str, rule: str, value: str) -> InputError:
    return InputError(f"{path} must {rule}, got {value}. Replace the file.")


def _wav_data_bytes(path: Source) -> tuple[int, int]:
    """Bytes of samples: as the header promises, and from the start of the samples to the end of the file."""
    with _open_binary(path) as file:
        order = ">" if file.read(12).startswith(b"RIFX") else "<"
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack(order + "4sI", header)
            if name == b"data":
                return size, _num_bytes(path) - file.tell()
            file.seek(size + size % 2, 1)
    return 0, 0


def _sphere_sample_count(path: Source) -> int | None:
    """Samples of each channel that the header promises; None where it does not say."""
    with _open_binary(path) as file:
        header, _, _ = file.read(SPHERE_MAX_HEADER_BYTES).partition(b"end_head")
    found = re.search(rb"^sample_count -i (\d+)", header, re.MULTILINE)
    return int(found[1]) if found else None


def _ogg_fault(path: Source) -> str:
    """What is wrong with the pages of an Ogg file, read to its end; "" where nothing is (RFC 3533, section 6)."""
    with _open_binary(path) as file:
        data = file.read()
    offset, flags, stream, expected = 0, 0, None, None
    while header := data[offset : offset + OGG_PAGE.size]:
        if len(header) < OGG_PAGE.size:
            return "a file cut short"
        capture, flags, serial, number, checksum, num_segments = OGG_PAGE.unpack(header)
        end = offset + OGG_PAGE.size + num_segments
        end += sum(data[offset + OGG_PAGE.size : end])
        if capture != b"OggS":
            return f"something else than a page at byte {offset}"
        if end > len(data):
            return "a file cut short"
        if _ogg_checksum(data[offset:end]) != checksum:
            return f"a damaged page at byte {offset}"
        if stream not in (None, serial) or (flags & OGG_FIRST and offset):
            return f"a second stream at byte {offset}"
        if expected not in (None, number):
            return f"a page missing before byte {offset}"
        offset, stream, expected = end, serial, number + 1
    return "" if flags & OGG_LAST else "a file cut short"


def _ogg_checksum(page: bytes) -> bytes:
    """Ogg's CRC-32 with its own four bytes taken as zero: zlib's of the bits in reverse, without its inversions."""
    blank = page[:22] + bytes(4) + page[26:]
    reverse = zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reverse.to_bytes(4, "big").translate(REVERSED_BITS)


def _mp3_length_excess(path: Source) -> float:
    """Share by which libsndfile's length of an undamaged MP3 may be too long; 0 where the first frame states it."""
    with _open_binary(path) as file:
        tag = file.read(10)
        tag_bytes = 0
        if tag.startswith(b"ID3"):  # size in four bytes of 7 bits, without these ten
            tag_bytes = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        file.seek(tag_bytes)
        first_frame = file.read(64)
    if b"Xing" in first_frame or b"Info" in first_frame:
        return 0.0
    return MP3_ESTIMATE_ERROR + tag_bytes / _num_bytes(path)

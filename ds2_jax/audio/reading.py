"""Reads audio files as mono waveforms at the model's sample rate.

libsndfile decodes and soxr resamples. If a WAV, Sphere or Ogg file is cut short, or an Ogg file is damaged in the
middle, libsndfile 1.2 reads a shorter recording without an error. So this module compares the length in the header with
the contents of the file. For most other formats libsndfile's log shows the damage. Data after the stated end of a
FLAC or MP3 file, such as a second recording, are ignored.
"""

import io
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ds2_jax.audio import headers
from ds2_jax.audio.headers import AudioBytes, Source
from ds2_jax.system.errors import InputError

# This module checks the contents of these formats (libsndfile's names). For other formats it checks libsndfile's log.
CHECKED_FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "NIST"})
# Suffixes to look for in folders. A file that you name may have any suffix.
AUDIO_SUFFIXES = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .sph .nist .aif .aiff .aifc .au .snd .caf .w64 .rf64 .voc".split()
)
# libsndfile's errors for an unknown format, coding, Ogg stream or WAV coding. Its other errors mean damage.
UNKNOWN_ERRORS = frozenset({1, 4, 29, 64})
# A program that writes WAV into a pipe does not know the size. ffmpeg writes 0xFFFFFFFF, sox 0x7FFFF000.
WAV_SIZE_UNKNOWN = 0x7FFFF000
# In Hz. A rate outside this range means a damaged header. Resampling from it could need any amount of memory.
MIN_RATE = 4_000
MAX_RATE = 768_000
# Float files may contain samples on the 16-bit scale (up to 32,768). Much larger samples make the features overflow.
MAX_AMPLITUDE = 1e6
FLAC_MAX_CHANNELS = 8
# In Hz. FLAC stores rates of 65,536 Hz or more only in multiples of 10.
FLAC_MAX_RATE = 655_350
# A block has this many samples per channel for up to eight channels, and fewer for more channels.
BLOCK_SAMPLES = 1 << 17
# The maximum number of samples, over all channels, of a recording that is read in one piece: 4 GiB, 18 hours at 16 kHz.
MAX_VALUES = 1 << 30


class UnknownFormatError(InputError):
    """libsndfile cannot read the file, but it may be intact: its format is unknown or its length is not stated."""


def read_audio(path: Path | str | AudioBytes, sample_rate: int) -> np.ndarray:
    """Reads a recording in any format that libsndfile knows, with a rate of 4 to 768 kHz and any number of channels.

    Args:
        path: the audio file, or its contents.
        sample_rate: sample rate of the result in Hz.

    Returns:
        [S] float32, the mean of the channels, resampled (soxr HQ) if the file has another rate. Full scale is [-1, 1].
        Float files, lossy coding and resampling may give samples outside.

    Raises:
        UnknownFormatError: libsndfile does not know the format, or the file does not state its length.
        InputError: the file is missing, empty, cut short or damaged, its rate is out of range, it has more than
            MAX_VALUES samples, or it contains NaN, infinity or samples beyond a million times full scale. In the
            formats AVR, IRCAM, MAT5, MPC2K, PAF, PVF, SDS and XI a file that is cut short is not detected: it gives a
            shorter recording.

    Differs: deepspeech.pytorch does not resample; it treats the samples as if they had the model's rate.
    """
    samples, file_rate = read_samples(path)
    return to_waveform(samples, file_rate, sample_rate, path)


def read_sndfile_blocks(path: Path | str, sample_rate: int) -> Iterator[np.ndarray]:
    """Reads a recording of any length in blocks of a few seconds.

    Arguments and errors are those of `read_audio`. An error may come after some blocks have been read.

    Yields:
        [S] float32, consecutive blocks of the waveform of `read_audio`.
    """
    source = Path(path)
    with _open(source) as file:
        yield from waveform_blocks(_sample_blocks(source, file), file.samplerate, sample_rate, str(path))


def waveform_blocks(blocks: Iterable[np.ndarray], file_rate: int, sample_rate: int, name: str) -> Iterator[np.ndarray]:
    """Checks, mixes down and resamples a recording block by block.

    Args:
        blocks: blocks of any size, each [S, C] float32 with full scale 1.
        file_rate: sample rate of the blocks in Hz.
        sample_rate: sample rate of the result in Hz.
        name: the recording's name in messages.

    Yields:
        [S] float32, consecutive blocks of the waveform that `mono_waveform` gives for all blocks together.

    Raises:
        InputError: see `mono_waveform`.
    """
    resampler = None
    if file_rate != sample_rate:
        resampler = soxr.ResampleStream(file_rate, sample_rate, 1, dtype="float32", quality="HQ")
    num_read = num_given = 0
    for samples in itertools.chain(blocks, [None]):
        waveform = np.zeros(0, np.float32)
        if samples is not None:
            _check_amplitudes(samples, name, num_read)
            num_read += len(samples)
            waveform = samples.mean(axis=1)  # [S]
        if resampler is not None:
            waveform = resampler.resample_chunk(waveform, last=samples is None)
        num_given += len(waveform)
        if waveform.size:
            yield waveform
    if not num_given:
        raise _too_short(name, num_read, file_rate, sample_rate)


def read_samples(path: Path | str | AudioBytes) -> tuple[np.ndarray, int]:
    """Reads the samples of a file unchanged: [S, C] float32, and their rate in Hz. Errors are those of `read_audio`."""
    source = path if isinstance(path, AudioBytes) else Path(path)
    with _open(source) as file:
        samples = _read(source, file, "float32")
    _check_amplitudes(samples, str(source))
    return samples, file.samplerate


def to_waveform(samples: np.ndarray, file_rate: int, sample_rate: int, path: Path | str | AudioBytes) -> np.ndarray:
    """Mixes down and resamples the result of `read_samples`. Errors name `path`."""
    waveform: np.ndarray = samples.mean(axis=1)  # [S]
    if file_rate != sample_rate:
        waveform = soxr.resample(waveform, file_rate, sample_rate, quality="HQ")
    if not waveform.size:
        raise _too_short(str(path), len(samples), file_rate, sample_rate)
    return waveform


def mono_waveform(samples: np.ndarray, file_rate: int, sample_rate: int, name: str) -> np.ndarray:
    """Converts samples in memory to a waveform like that of `read_audio`.

    Args:
        samples: [S, C] float32, with any number of channels.
        file_rate: sample rate of the samples in Hz.
        sample_rate: sample rate of the result in Hz.
        name: the recording's name in messages.

    Returns:
        [S] float32.

    Raises:
        InputError: there are no samples, or a sample is NaN or beyond a million times full scale.
    """
    _check_amplitudes(samples, name)
    return to_waveform(samples, file_rate, sample_rate, name)


def read_excerpt(path: Path | str, sample_rate: int, num_samples: int, position: float) -> np.ndarray:
    """Reads an excerpt of a recording, if possible without decoding all of it. A recording too short is repeated.

    Args:
        path: the audio file.
        sample_rate: sample rate of the result in Hz.
        num_samples: number of samples of the result (S), at least 1.
        position: where the excerpt starts. 0 is the earliest possible start, 1 (excluded) the latest. If the recording
            is too short, the repeated recording starts at this fraction of its length.

    Returns:
        [S] float32.

    Raises:
        InputError: see `read_audio`. Faults outside the excerpt may go unnoticed.
    """
    path = Path(path)
    with _open(path) as file:
        file_rate, wanted = file.samplerate, -(-num_samples * file.samplerate // sample_rate)
        if wanted <= file.frames:
            samples = _decode(path, file, int(position * (file.frames - wanted + 1)), wanted, "float32")
            _check_amplitudes(samples, str(path))
            if len(samples) == wanted:
                part = to_waveform(samples, file_rate, sample_rate, path)
                return np.pad(part, (0, max(0, num_samples - len(part))))[:num_samples]
    whole = read_audio(path, sample_rate)
    return np.resize(np.roll(whole, -int(position * len(whole))), num_samples)


def audio_duration(path: Path | str | AudioBytes) -> float:
    """Reads a recording's duration in seconds from its header, without decoding.

    The duration of an MP3 without a Xing or Info header is an estimate. Its error is within 1 % for a constant bit rate
    and no large tag.

    Raises:
        InputError: see `read_audio`. Faults that show only in decoding, such as NaN or a cut FLAC or MP3 file, are
            not found.
    """
    with _open(path if isinstance(path, AudioBytes) else Path(path)) as file:
        return float(file.frames / file.samplerate)


def decoded_duration(path: Path | str) -> float:
    """Decodes a recording and returns its duration in seconds. It is exact even if the header of an MP3 is not.

    Raises:
        InputError: see `read_audio`.
    """
    samples, file_rate = read_samples(path)
    return len(samples) / file_rate


def lossless_flac(path: Source) -> bytes | None:
    """Encodes a WAV or Sphere recording of 16-bit samples as FLAC with the same samples, rate and channels.

    Returns:
        The bytes of the FLAC file; None for another kind of recording, or if FLAC cannot store its channels or rate.

    Raises:
        InputError: see `read_audio`.
    """
    with _open(path) as file:
        pcm = file.format in ("WAV", "WAVEX", "NIST") and file.subtype == "PCM_16"
        if not pcm or not fits_flac(file.channels, file.samplerate):
            return None
        return encode_flac(_read(path, file, "int16"), file.samplerate)


def fits_flac(num_channels: int, sample_rate: int) -> bool:
    """Whether FLAC can store this number of channels at this rate (Hz)."""
    holds_rate = sample_rate < 2**16 or (sample_rate <= FLAC_MAX_RATE and sample_rate % 10 == 0)
    return num_channels <= FLAC_MAX_CHANNELS and holds_rate


def encode_flac(samples: np.ndarray, sample_rate: int) -> bytes:
    """Encodes [S, C] int16 samples at `sample_rate` (Hz) as a FLAC file. Equal samples always give equal bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def block_samples(num_channels: int) -> int:
    """Returns the number of samples per channel in a block: BLOCK_SAMPLES, or fewer for more than eight channels."""
    return max(1, BLOCK_SAMPLES * 8 // max(8, num_channels))


def _check_amplitudes(samples: np.ndarray, name: str, num_before: int = 0) -> None:
    if samples.size and not (samples.min() >= -MAX_AMPLITUDE and samples.max() <= MAX_AMPLITUDE):  # NaN fails too
        index, channel = np.argwhere(~(np.abs(samples) <= MAX_AMPLITUDE))[0]
        rule = f"hold samples of at most {MAX_AMPLITUDE:g} (full scale is 1)"
        raise _unusable(name, rule, f"{samples[index, channel]:g} at sample {num_before + index}")


def _read(source: Source, file: soundfile.SoundFile, dtype: str) -> np.ndarray:
    """Reads as many samples as the header states, [S, C] of type `dtype`."""
    if (num_values := file.frames * file.channels) > MAX_VALUES:
        rule = f"have at most {MAX_VALUES:,} samples over all channels"
        raise InputError(f"{source} must {rule}, got {num_values:,} in its header. Replace it or cut it.")
    samples = _decode(source, file, 0, file.frames, dtype)
    _check_whole(source, file, len(samples))
    return samples


def _sample_blocks(source: Source, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Reads as many samples as the header states, in blocks of [S, C] float32."""
    num_read = 0
    while num_read < file.frames:
        wanted = min(block_samples(file.channels), file.frames - num_read)
        samples = _decode(source, file, 0, wanted, "float32")
        num_read += len(samples)
        yield samples
        if len(samples) < wanted:  # the data after this point are damaged
            break
    _check_whole(source, file, num_read)


def _check_whole(source: Source, file: soundfile.SoundFile, num_samples: int) -> None:
    excess = headers.mp3_length_excess(source) if file.format == "MP3" else 0.0
    if num_samples < file.frames * (1 - excess):
        raise _unusable(source, f"hold the {file.frames} samples that its header states", f"{num_samples}")


def _decode(source: Source, file: soundfile.SoundFile, start: int, num_samples: int, dtype: str) -> np.ndarray:
    """Decodes samples from `start`, or from the current position if 0: [S, C] `dtype`, fewer at the end."""
    try:
        if start:
            _skip(file, start)
            if (position := file.tell()) > file.frames:  # happens in damaged MP3s
                raise _unusable(
                    source, f"end after the {file.frames} samples that its header states", f"sample {position}"
                )
        samples: np.ndarray = file.read(num_samples, dtype=dtype, always_2d=True)  # GSM needs a number of samples
    except soundfile.LibsndfileError as error:
        raise _unusable(source, "decode to its end", str(error)) from error
    except MemoryError as error:  # a damaged header can state any number
        raise _unusable(source, "fit into memory", f"{num_samples} samples") from error
    return samples


def _skip(file: soundfile.SoundFile, num_samples: int) -> None:
    """Goes to a sample of a newly opened file. In Ogg Vorbis, this decodes all earlier samples."""
    if file.subtype != "VORBIS":
        file.seek(num_samples)
        return
    # libsndfile 1.2.2 crashes when it seeks in a Vorbis stream with damaged codebooks. Decoding does not crash.
    while num_samples > 0:
        wanted = min(num_samples, block_samples(file.channels))
        num_samples -= len(file.read(wanted, "float32", always_2d=True)) or num_samples


def _open(path: Source) -> soundfile.SoundFile:
    """Opens a file and checks its format, rate and length."""
    if isinstance(path, Path):
        _check_file(path)
    elif not path.data:
        raise _unusable(path, "hold audio", "an empty file")
    try:
        if isinstance(path, AudioBytes):
            file = _open_bytes(path.data)
        else:
            # Pass bytes, because soundfile cannot encode a name that is not UTF-8. On Windows it accepts no bytes.
            file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    except soundfile.LibsndfileError as error:
        rule = "be undamaged WAV, FLAC, Ogg, MP3, Sphere, AIFF or similar audio"
        unusable = _unusable(path, rule, f"a file libsndfile cannot open ({error.error_string})")
        raise (UnknownFormatError(*unusable.args) if error.code in UNKNOWN_ERRORS else unusable) from error
    try:
        if not MIN_RATE <= file.samplerate <= MAX_RATE:
            raise _unusable(path, f"have a rate of {MIN_RATE} to {MAX_RATE} Hz", f"{file.samplerate} Hz")
        _check_length(path, file)
    except InputError:
        file.close()
        raise
    return file


def _open_bytes(data: bytes) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError:
        # libsndfile recognises some MP3 files only by the file's suffix. Bytes have no suffix. libsndfile recognises
        # them once the leading tag is removed.
        if not (tag_bytes := headers.mp3_start(data[:10])):
            raise
        return soundfile.SoundFile(io.BytesIO(data[tag_bytes:]))


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
        raise _unusable(path, "hold audio", "an empty file")


def _check_length(path: Source, file: soundfile.SoundFile) -> None:
    """Raises InputError if the file does not state its length, is empty, or is cut short or damaged."""
    if file.format in ("WAV", "WAVEX"):
        promised, held = headers.wav_data_bytes(path)
        if held < promised < WAV_SIZE_UNKNOWN:
            raise _unusable(path, f"hold the {promised} bytes of audio that its header states", f"{held}")
    if file.format == "NIST" and (sample_count := headers.sphere_sample_count(path)) not in (None, file.frames):
        raise _unusable(path, f"hold the {sample_count} samples that its header states", f"{file.frames}")
    if file.format == "OGG" and (fault := headers.ogg_fault(path)):
        raise _unusable(path, "hold one undamaged Ogg stream", fault)
    if file.format not in CHECKED_FORMATS and (fault := headers.logged_fault(file.extra_info)):
        raise _unusable(path, "be undamaged audio", fault)
    # For these MP3 files libsndfile estimates the length. If the estimate is too short, libsndfile stops reading there.
    if file.format == "MP3" and headers.mp3_varies(path):
        rule = "state its length in a Xing or Info header if its bit rate varies"
        raise UnknownFormatError(f"{path} must {rule}, got none. Rewrite it: ffmpeg -i OLD NEW.flac.")
    if file.frames <= 0:
        raise _unusable(path, "hold audio", f"{file.frames} samples")
    if file.frames >= 2**62:  # libsndfile's value for a FLAC stream of unknown length, from a pipe
        advice = "Rewrite it: ffmpeg -i OLD NEW.flac."
        raise UnknownFormatError(f"{path} must state its length, got a stream without it. {advice}")


def _too_short(name: str, num_samples: int, file_rate: int, sample_rate: int) -> InputError:
    got = f"none ({num_samples} at {file_rate} Hz)"
    return _unusable(name, f"have at least one sample at {sample_rate} Hz", got)


def _unusable(path: Source | str, rule: str, value: str) -> InputError:
    return InputError(f"{path} must {rule}, got {value}. Replace the recording.")

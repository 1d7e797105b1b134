"""Audio files -> mono waveforms at the model's sample rate.

libsndfile decodes, soxr resamples. libsndfile 1.2 reads a WAV, Sphere or Ogg file that was cut short, and an Ogg file
damaged in the middle, as a shorter recording and says nothing; here what the headers promise is compared with what the
file holds. Of most other formats libsndfile's log tells. What lies behind the end that a FLAC or MP3 file states
(another recording, appended) is not looked at.
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

# libsndfile's names of the formats whose damage is looked for in what the file holds; in others, in what it logs.
CHECKED_FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "NIST"})
# Looked for in folders; a named file may have any.
AUDIO_SUFFIXES = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .sph .nist .aif .aiff .aifc .au .snd .caf .w64 .rf64 .voc".split()
)
# Of libsndfile: the format is unknown, its coding is, an Ogg stream's is, a WAV file's is. Other errors are damage.
UNKNOWN_ERRORS = frozenset({1, 4, 29, 64})
# A program that writes WAV into a pipe cannot know the size and writes a large one: ffmpeg 0xFFFFFFFF, sox 0x7FFFF000.
WAV_SIZE_UNKNOWN = 0x7FFFF000
MIN_RATE, MAX_RATE = 4_000, 768_000  # Hz; another in a header is damage, and could ask for any amount of memory
MAX_AMPLITUDE = 1e6  # float files of 16-bit numbers are within; far louder, the features would overflow
FLAC_MAX_CHANNELS, FLAC_MAX_RATE = 8, 655_350  # Hz; from 2**16 on in tens
BLOCK_SAMPLES = 1 << 17  # of each of eight channels, decoded at once where a recording is read block by block
MAX_VALUES = 1 << 30  # samples over all channels of a recording that is read whole: 4 GiB, 18 hours of 16 kHz


class UnknownFormatError(InputError):
    """libsndfile cannot read a file that may be whole: of another format, or one that does not state its length."""


def read_audio(path: Path | str | AudioBytes, sample_rate: int) -> np.ndarray:
    """Reads a recording: any format that libsndfile knows, 4 to 768 kHz, any number of channels.

    Args:
        path: the audio file, or what is in it.
        sample_rate: Hz, of the result.

    Returns:
        [S] float32, the mean of the channels, resampled (soxr HQ) where the file has another rate. Full scale is
        [-1, 1]; samples of float files, and overshoot of lossy coding and resampling, may lie outside.

    Raises:
        UnknownFormatError: libsndfile does not know the format.
        InputError: the file is missing, of another rate, empty, cut short or damaged, too long to be read whole
            (MAX_VALUES), or holds NaN, infinity or samples beyond a million times full scale.
            Whether a file is cut short does not show in the formats AVR, IRCAM,
            MAT5, MPC2K, PAF, PVF, SDS and XI: it is a shorter recording.

    Differs: deepspeech.pytorch does not resample and takes the file's rate for its own.
    """
    samples, file_rate = read_samples(path)
    return to_waveform(samples, file_rate, sample_rate, path)


def read_blocks(path: Path | str, sample_rate: int) -> Iterator[np.ndarray]:
    """Reads a recording of any length a few seconds at a time.

    Args and Raises as `read_audio`; what is wrong with the file may show only when some blocks have been read.

    Yields:
        [S] float32: one after another, the waveform that `read_audio` gives.
    """
    source = Path(path)
    with _open(source) as file:
        yield from waveform_blocks(_sample_blocks(source, file), file.samplerate, sample_rate, str(path))


def waveform_blocks(blocks: Iterable[np.ndarray], file_rate: int, sample_rate: int, name: str) -> Iterator[np.ndarray]:
    """Checks, mixes down and resamples a recording that comes block by block, of whatever sizes.

    Args:
        blocks: each [S, C] float32, full scale 1.
        file_rate: Hz, of the blocks.
        sample_rate: Hz, of the result.
        name: of the recording, for messages.

    Yields:
        [S] float32: one after another, the waveform that `mono_waveform` gives of all blocks together.

    Raises:
        InputError: as `mono_waveform`.
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
    """The samples of a recording as they are in the file: [S, C] float32, and their rate in Hz; as `read_audio`."""
    source = path if isinstance(path, AudioBytes) else Path(path)
    with _open(source) as file:
        samples = _read(source, file, "float32")
    _check_amplitudes(samples, str(source))
    return samples, file.samplerate


def to_waveform(samples: np.ndarray, file_rate: int, sample_rate: int, path: Path | str | AudioBytes) -> np.ndarray:
    """Mixes down and resamples what `read_samples` gave; `path` names it in an error."""
    waveform: np.ndarray = samples.mean(axis=1)  # [S]
    if file_rate != sample_rate:
        waveform = soxr.resample(waveform, file_rate, sample_rate, quality="HQ")
    if not waveform.size:
        raise _too_short(str(path), len(samples), file_rate, sample_rate)
    return waveform


def mono_waveform(samples: np.ndarray, file_rate: int, sample_rate: int, name: str) -> np.ndarray:
    """As `read_audio`, of samples that are in memory.

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
    _check_amplitudes(samples, name)
    return to_waveform(samples, file_rate, sample_rate, name)


def read_excerpt(path: Path | str, sample_rate: int, num_samples: int, position: float) -> np.ndarray:
    """Reads a part of a recording, and only that part of the file; one that is too short is heard again and again.

    Args:
        path: the audio file, as for `read_audio`.
        sample_rate: Hz, of the result.
        num_samples: of the result (S), at least 1.
        position: in [0, 1): which of the possible parts, from the first to the last; in a recording that is too short,
            where it begins.

    Returns:
        [S] float32.

    Raises:
        InputError: as `read_audio`, as far as the part shows it.
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
    """Seconds of a recording, from its header; nothing is decoded.

    An MP3 without a Xing or Info header gives an estimate: good to 1 % for a constant bit rate and no large tag.

    Raises:
        InputError: as `read_audio`, as far as it shows without decoding: not for a cut FLAC or MP3, nor for NaN.
    """
    with _open(path if isinstance(path, AudioBytes) else Path(path)) as file:
        return float(file.frames / file.samplerate)


def decoded_duration(path: Path | str) -> float:
    """Seconds of a recording, decoded to its end: exact where the header of an MP3 is not.

    Raises:
        InputError: as `read_audio`.
    """
    samples, file_rate = read_samples(path)
    return len(samples) / file_rate


def lossless_flac(path: Source) -> bytes | None:
    """A WAV or Sphere recording of 16-bit samples as FLAC of the same samples, rate and channels.

    Returns:
        The FLAC file; None where the recording is of another kind, or FLAC does not hold its channels or its rate.

    Raises:
        InputError: as `read_audio`.
    """
    with _open(path) as file:
        pcm = file.format in ("WAV", "WAVEX", "NIST") and file.subtype == "PCM_16"
        rate = file.samplerate
        holds_rate = rate < 2**16 or (rate <= FLAC_MAX_RATE and rate % 10 == 0)
        if not pcm or file.channels > FLAC_MAX_CHANNELS or not holds_rate:
            return None
        return encode_flac(_read(path, file, "int16"), file.samplerate)


def encode_flac(samples: np.ndarray, sample_rate: int) -> bytes:
    """A FLAC file of [S, C] int16 samples at `sample_rate` (Hz); the same bytes each time."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def block_samples(num_channels: int) -> int:
    """Samples of each channel to decode at once: BLOCK_SAMPLES, fewer where a header promises many channels."""
    return max(1, BLOCK_SAMPLES * 8 // max(8, num_channels))


def _check_amplitudes(samples: np.ndarray, name: str, num_before: int = 0) -> None:
    if samples.size and not (samples.min() >= -MAX_AMPLITUDE and samples.max() <= MAX_AMPLITUDE):  # NaN is not
        index, channel = np.argwhere(~(np.abs(samples) <= MAX_AMPLITUDE))[0]
        rule = f"hold samples of at most {MAX_AMPLITUDE:g} (full scale is 1)"
        raise _unusable(name, rule, f"{samples[index, channel]:g} at sample {num_before + index}")


def _read(source: Source, file: soundfile.SoundFile, dtype: str) -> np.ndarray:
    """All samples, [S, C] `dtype`, as many as the header promises."""
    if (num_values := file.frames * file.channels) > MAX_VALUES:
        rule = f"hold at most {MAX_VALUES:,} samples over all channels to be read whole"
        raise InputError(f"{source} must {rule}, got a header that promises {num_values:,}. Replace it or cut it.")
    samples = _decode(source, file, 0, file.frames, dtype)
    _check_whole(source, file, len(samples))
    return samples


def _sample_blocks(source: Source, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """All samples, as many as the header promises, in blocks of [S, C] float32."""
    num_read = 0
    while num_read < file.frames:
        wanted = min(block_samples(file.channels), file.frames - num_read)
        samples = _decode(source, file, 0, wanted, "float32")
        num_read += len(samples)
        yield samples
        if len(samples) < wanted:  # what may follow lies behind damage
            break
    _check_whole(source, file, num_read)


def _check_whole(source: Source, file: soundfile.SoundFile, num_samples: int) -> None:
    excess = headers.mp3_length_excess(source) if file.format == "MP3" else 0.0
    if num_samples < file.frames * (1 - excess):
        raise _unusable(source, f"hold the {file.frames} samples its header promises", f"{num_samples}")


def _decode(source: Source, file: soundfile.SoundFile, start: int, num_samples: int, dtype: str) -> np.ndarray:
    """Samples of an open file from `start`, or from where it is (0), [S, C] `dtype`; fewer where it ends."""
    try:
        if start:
            _skip(file, start)
            if (position := file.tell()) > file.frames:  # where libsndfile finds itself in a damaged MP3
                raise _unusable(source, f"end with the {file.frames} samples its header promises", f"sample {position}")
        samples: np.ndarray = file.read(num_samples, dtype=dtype, always_2d=True)  # GSM needs the number
    except soundfile.LibsndfileError as error:
        raise _unusable(source, "decode to its end", str(error)) from error
    except MemoryError as error:  # a damaged header can promise any number
        raise _unusable(source, "fit into memory", f"{num_samples} samples") from error
    return samples


def _skip(file: soundfile.SoundFile, num_samples: int) -> None:
    """Goes to a sample of a file just opened; in Ogg Vorbis by decoding what lies before it."""
    if file.subtype != "VORBIS":
        file.seek(num_samples)
        return
    # libsndfile 1.2.2 crashes where it seeks in a Vorbis stream with damaged codebooks, and only there.
    while num_samples > 0:
        wanted = min(num_samples, block_samples(file.channels))
        num_samples -= len(file.read(wanted, "float32", always_2d=True)) or num_samples


def _open(path: Source) -> soundfile.SoundFile:
    """The file opened, its format, rate and length checked."""
    if isinstance(path, Path):
        _check_file(path)
    elif not path.data:
        raise _unusable(path, "hold audio", "an empty file")
    try:
        if isinstance(path, AudioBytes):
            file = _open_bytes(path.data)
        else:
            # As bytes: soundfile would encode the name itself, and fails where it is not UTF-8. Windows takes no bytes.
            file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    except soundfile.LibsndfileError as error:
        rule = "be whole WAV, FLAC, Ogg, MP3, Sphere, AIFF or similar audio"
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
        # Of some MP3 files libsndfile knows nothing but the end of the name; without their tag it knows them.
        if not (tag_bytes := headers.mp3_start(data[:10])):
            raise
        return soundfile.SoundFile(io.BytesIO(data[tag_bytes:]))


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
        promised, held = headers.wav_data_bytes(path)
        if held < promised < WAV_SIZE_UNKNOWN:
            raise _unusable(path, f"hold the {promised} bytes of audio its header promises", f"{held}")
    if file.format == "NIST" and (sample_count := headers.sphere_sample_count(path)) not in (None, file.frames):
        raise _unusable(path, f"hold the {sample_count} samples its header promises", f"{file.frames}")
    if file.format == "OGG" and (fault := headers.ogg_fault(path)):
        raise _unusable(path, "hold one whole Ogg stream", fault)
    if file.format not in CHECKED_FORMATS and (fault := headers.logged_fault(file.extra_info)):
        raise _unusable(path, "be whole audio", fault)
    # libsndfile may take it for shorter, and reads no more than that.
    if file.format == "MP3" and headers.mp3_varies(path):
        rule = "state its length in a Xing or Info header where its bit rate varies"
        raise UnknownFormatError(f"{path} must {rule}, got none. Rewrite it: ffmpeg -i OLD NEW.flac.")
    if file.frames <= 0:
        raise _unusable(path, "hold audio", f"{file.frames} samples")
    if file.frames >= 2**62:  # libsndfile's mark for a FLAC stream of unknown length, as written into a pipe
        advice = "Rewrite it: ffmpeg -i OLD NEW.flac."
        raise UnknownFormatError(f"{path} must state its length, got a stream without it. {advice}")


def _too_short(name: str, num_samples: int, file_rate: int, sample_rate: int) -> InputError:
    got = f"{num_samples} of {file_rate} Hz"
    return _unusable(name, f"last at least one sample of {sample_rate} Hz", got)


def _unusable(path: Source | str, rule: str, value: str) -> InputError:
    return InputError(f"{path} must {rule}, got {value}. Replace the file.")

"""Audio files -> mono waveforms at the model's sample rate.

libsndfile decodes, soxr resamples. libsndfile 1.2 reads a WAV, Sphere or Ogg file that was cut short as a shorter
recording and says nothing; here what the header promises is compared with what the file holds.
"""

import re
import struct
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ds2_jax.errors import InputError

# libsndfile's names. It knows more formats, but only of these is it known how a damaged file shows.
FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "NIST"})
# A program that writes WAV into a pipe cannot know the size and writes a large one: ffmpeg 0xFFFFFFFF, sox 0x7FFFF000.
WAV_SIZE_UNKNOWN = 0x7FFFF000
SPHERE_MAX_HEADER_BYTES = 1 << 16
OGG_MAX_PAGE_BYTES = 27 + 255 + 255 * 255
# Without a Xing or Info header libsndfile estimates an MP3's length from the file's size and first frame. Tags counted
# apart, the estimate was measured at most 0.5 % too long for constant bit rates (3 s of noise, 8 to 48 kHz).
MP3_ESTIMATE_ERROR = 0.01


def read_audio(path: Path | str, sample_rate: int) -> np.ndarray:
    """Reads a recording: WAV, FLAC, Ogg (Vorbis, Opus), MP3 or NIST Sphere, of any rate and number of channels.

    Args:
        path: the audio file.
        sample_rate: Hz, of the result.

    Returns:
        [S] float32, the mean of the channels, resampled (soxr HQ) where the file has another rate. Full scale is
        [-1, 1]; samples of float files, and overshoot of lossy coding and resampling, may lie outside.

    Raises:
        InputError: the file is missing, of another format, empty, cut short or damaged, or holds NaN or infinity.

    Differs: deepspeech.pytorch does not resample and takes the file's rate for its own.
    """
    path = Path(path)
    with _open(path) as file:
        file_rate, num_samples = file.samplerate, file.frames
        try:
            samples = file.read(dtype="float32", always_2d=True)  # [S, C]
        except soundfile.LibsndfileError as error:
            raise _unusable(path, "decode to its end", str(error)) from error
        except MemoryError as error:  # a damaged header can promise any number
            raise _unusable(path, "fit into memory", f"{num_samples} samples") from error
        excess = _mp3_length_excess(path) if file.format == "MP3" else 0.0
    if len(samples) < num_samples * (1 - excess):
        raise _unusable(path, f"hold the {num_samples} samples its header promises", f"{len(samples)}")
    finite = np.isfinite(samples).all(axis=1)
    if not finite.all():
        raise _unusable(path, "hold finite samples", f"NaN or infinity at sample {int(finite.argmin())}")
    waveform: np.ndarray = samples.mean(axis=1)  # [S]
    if file_rate != sample_rate:
        waveform = soxr.resample(waveform, file_rate, sample_rate, quality="HQ")
    if not waveform.size:
        raise _unusable(path, f"last at least one sample of {sample_rate} Hz", f"{num_samples} of {file_rate} Hz")
    return waveform


def audio_duration(path: Path | str) -> float:
    """Seconds of a recording, from its header; nothing is decoded.

    An MP3 without a Xing or Info header gives an estimate: good to 1 % for a constant bit rate and no large tag.

    Raises:
        InputError: as `read_audio`, as far as it shows without decoding: not for a cut FLAC or MP3, nor for NaN.
    """
    with _open(Path(path)) as file:
        return float(file.frames / file.samplerate)


def _open(path: Path) -> soundfile.SoundFile:
    """The file opened, its format and length checked."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path} must be a readable file, got: {error.strerror}. Correct the path.") from error
    if path.stat().st_size == 0:
        raise _unusable(path, "hold audio", "an empty file")
    formats = "WAV, FLAC, Ogg, MP3 or Sphere audio"
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise _unusable(path, f"be whole {formats}", f"a file libsndfile cannot open ({error.error_string})") from error
    try:
        if file.format not in FORMATS:
            raise InputError(f"{path} must be {formats}, got {file.format}. Convert it.")
        _check_length(path, file)
    except InputError:
        file.close()
        raise
    return file


def _check_length(path: Path, file: soundfile.SoundFile) -> None:
    """Raises InputError unless the file states its length, is not empty and is not cut short."""
    if file.format in ("WAV", "WAVEX"):
        promised, held = _wav_data_bytes(path)
        if held < promised < WAV_SIZE_UNKNOWN:
            raise _unusable(path, f"hold the {promised} bytes of audio its header promises", f"{held}")
    if file.format == "NIST" and (sample_count := _sphere_sample_count(path)) not in (None, file.frames):
        raise _unusable(path, f"hold the {sample_count} samples its header promises", f"{file.frames}")
    if file.format == "OGG" and not _ogg_ends(path):
        raise _unusable(path, "end with the last page of its Ogg stream", "a file cut short")
    if file.frames == 0:
        raise _unusable(path, "hold audio", "0 samples")
    if file.frames >= 2**62:  # libsndfile's mark for a FLAC stream of unknown length, as written into a pipe
        raise InputError(f"{path} must state its length, got a stream without it. Rewrite it: ffmpeg -i OLD NEW.flac.")


def _unusable(path: Path, rule: str, value: str) -> InputError:
    return InputError(f"{path} must {rule}, got {value}. Replace the file, or leave the utterance out.")


def _wav_data_bytes(path: Path) -> tuple[int, int]:
    """Bytes of samples: as the header promises, and from the start of the samples to the end of the file."""
    with path.open("rb") as file:
        order = ">" if file.read(12).startswith(b"RIFX") else "<"
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack(order + "4sI", header)
            if name == b"data":
                return size, path.stat().st_size - file.tell()
            file.seek(size + size % 2, 1)
    return 0, 0


def _sphere_sample_count(path: Path) -> int | None:
    """Samples of each channel that the header promises; None where it does not say."""
    with path.open("rb") as file:
        header, _, _ = file.read(SPHERE_MAX_HEADER_BYTES).partition(b"end_head")
    found = re.search(rb"^sample_count -i (\d+)", header, re.MULTILINE)
    return int(found[1]) if found else None


def _ogg_ends(path: Path) -> bool:
    """Whether the last page is whole and flagged as the end of its stream (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OGG_MAX_PAGE_BYTES))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    page_bytes = 27 + page[26] + sum(page[27 : 27 + page[26]])
    end_of_stream = bool(page[5] & 4)
    return end_of_stream and len(page) >= page_bytes


def _mp3_length_excess(path: Path) -> float:
    """Share by which libsndfile's length of an undamaged MP3 may be too long; 0 where the first frame states it."""
    with path.open("rb") as file:
        tag = file.read(10)
        tag_bytes = 0
        if tag.startswith(b"ID3"):  # size in four bytes of 7 bits, without these ten
            tag_bytes = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        file.seek(tag_bytes)
        first_frame = file.read(64)
    if b"Xing" in first_frame or b"Info" in first_frame:
        return 0.0
    return MP3_ESTIMATE_ERROR + tag_bytes / path.stat().st_size

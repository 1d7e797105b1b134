"""Reads audio files as mono waveforms at the model's sample rate.

libsndfile decodes what it can, ffmpeg the rest if it is installed; soxr resamples.
"""

import contextlib
import io
import logging
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import soundfile

from ds2_jax.audio import ffmpeg, sndfile
from ds2_jax.audio.parts import AudioBytes, Source
from ds2_jax.audio.sndfile import UnknownFormatError
from ds2_jax.audio.timeline import Timeline
from ds2_jax.audio.waveform import MAX_VALUES, check_amplitudes, to_waveform, waveform_blocks
from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

# Suffixes to look for in folders. A file that you name may have any suffix.
AUDIO_SUFFIXES = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .sph .nist .aif .aiff .aifc .au .snd .caf .w64 .rf64 .voc".split()
)
FLAC_MAX_CHANNELS = 8
# In Hz. FLAC stores rates of 65,536 Hz or more only in multiples of 10.
FLAC_MAX_RATE = 655_350


def read_audio(path: Path | str | AudioBytes, sample_rate: int) -> np.ndarray:
    """Reads a recording in any format that libsndfile or ffmpeg knows.

    Args:
        path: the audio file, or its contents; its rate must be 4 to 768 kHz, with any number of channels. Of a video,
            the first audio track is read.
        sample_rate: sample rate of the result in Hz.

    Returns:
        [S] float32, the mean of the channels, resampled (soxr HQ) if the file has another rate. Full scale is [-1, 1].
        Float files, lossy coding and resampling may give samples outside.

    Raises:
        InputError: the file is missing, empty, cut short or damaged, its rate is out of range, it has more than
            MAX_VALUES samples, it contains NaN, infinity or samples beyond a million times full scale, or it needs
            ffmpeg, which is not installed. In the formats AVR, IRCAM, MAT5, MPC2K, PAF, PVF, SDS and XI a file that is
            cut short is not detected: it gives a shorter recording.

    Differs: deepspeech.pytorch does not resample; it treats the samples as if they had the model's rate.
    """
    samples, file_rate = read_samples(path)
    return to_waveform(samples, file_rate, sample_rate, str(path))


def read_blocks(
    path: Path | str, sample_rate: int, timeline: Timeline | None = None
) -> Generator[np.ndarray, None, None]:
    """Reads a recording of any length in blocks of a few seconds.

    Arguments and errors are those of `read_audio`. An error may come after some blocks have been read.

    Args:
        path: the audio file.
        sample_rate: sample rate of the result in Hz.
        timeline: where the times of the file are stated that its sound has; they are known when a block is.

    Yields:
        [S] float32, consecutive blocks of the waveform of `read_audio`.
    """
    with _open_blocks(_source(path), timeline) as (file_rate, blocks):
        yield from waveform_blocks(blocks, file_rate, sample_rate, str(path))
    if timeline is not None and timeline.num_tracks > 1:
        logger.warning(
            f"{path}: only the first of {timeline.num_tracks} audio tracks is read. "
            "Take out another: ffmpeg -i OLD -map 0:a:1 NEW.flac."
        )


def read_samples(path: Path | str | AudioBytes) -> tuple[np.ndarray, int]:
    """Reads the samples of a file unchanged: [S, C] float32, and their rate in Hz. Errors are those of `read_audio`."""
    source = _source(path)
    try:
        with sndfile.open_audio(source) as opened:
            samples, file_rate = sndfile.read_whole(opened), opened.file.samplerate
    except UnknownFormatError as error:
        with _open_otherwise(source, error, Timeline()) as (file_rate, blocks):
            samples = _joined(blocks, source)
    check_amplitudes(samples, str(source))
    return samples, file_rate


def _joined(blocks: Iterator[np.ndarray], source: Source) -> np.ndarray:
    parts, num_values = [], 0
    for block in blocks:
        parts.append(block)
        if (num_values := num_values + block.size) > MAX_VALUES:
            rule = f"have at most {MAX_VALUES:,} samples over all channels"
            raise InputError(f"{source} must {rule}, got more. Cut it.")
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


@contextlib.contextmanager
def _open_blocks(source: Source, timeline: Timeline | None = None) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Opens a recording: its rate in Hz, and blocks of samples [S, C] float32."""
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(sndfile.open_audio(source))
        except UnknownFormatError as error:
            yield stack.enter_context(_open_otherwise(source, error, timeline or Timeline()))
        else:
            yield opened.file.samplerate, sndfile.sample_blocks(opened)


@contextlib.contextmanager
def _open_otherwise(
    source: Source, error: UnknownFormatError, timeline: Timeline
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Opens a recording that libsndfile does not read: with ffmpeg, or each link of a chain by itself."""
    if not error.links:
        with ffmpeg.open_audio(source, error, timeline) as opened:
            yield opened
        return
    with _open_blocks(error.links[0]) as (file_rate, first):

        def blocks() -> Iterator[np.ndarray]:
            num_channels = 0
            for block in first:
                num_channels = block.shape[1]
                yield block
            for link in error.links[1:]:
                with _open_blocks(link) as (rate, others):
                    for block in others:
                        if (rate, block.shape[1]) != (file_rate, num_channels or block.shape[1]):
                            rule = "keep its sample rate and channels to the end"
                            raise InputError(f"{source} must {rule}, got streams that differ. Divide it.")
                        yield block

        yield file_rate, blocks()


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
    with contextlib.suppress(UnknownFormatError), sndfile.open_audio(path) as opened:
        file_rate = opened.file.samplerate
        wanted = -(-num_samples * file_rate // sample_rate)
        if wanted <= opened.num_samples:
            samples = sndfile.decode(opened, int(position * (opened.num_samples - wanted + 1)), wanted, "float32")
            check_amplitudes(samples, str(path))
            if len(samples) == wanted:
                part = to_waveform(samples, file_rate, sample_rate, str(path))
                return np.pad(part, (0, max(0, num_samples - len(part))))[:num_samples]
    whole = read_audio(path, sample_rate)
    return np.resize(np.roll(whole, -int(position * len(whole))), num_samples)


def audio_duration(path: Path | str | AudioBytes) -> float:
    """Reads a recording's duration in seconds, from its header if libsndfile knows the format, else by decoding.

    Raises:
        InputError: see `read_audio`. Faults that show only in decoding, such as NaN or a cut FLAC or MP3 file, are
            not found.
    """
    source = _source(path)
    try:
        with sndfile.open_audio(source) as opened:
            return float(opened.num_samples / opened.file.samplerate)
    except UnknownFormatError:
        return decoded_duration(source)


def decoded_duration(path: Path | str | AudioBytes) -> float:
    """Decodes a recording and returns its duration in seconds.

    Raises:
        InputError: see `read_audio`.
    """
    samples, file_rate = read_samples(path)
    if not len(samples):
        raise InputError(f"{path} must hold sound, got none. Replace the recording.")
    return len(samples) / file_rate


def lossless_flac(path: Source) -> bytes | None:
    """Encodes a WAV or Sphere recording of 16-bit samples as FLAC with the same samples, rate and channels.

    Returns:
        The bytes of the FLAC file; None for another kind of recording, or if FLAC cannot store its channels or rate.

    Raises:
        InputError: see `read_audio`.
    """
    with contextlib.suppress(UnknownFormatError), sndfile.open_audio(path) as opened:
        file = opened.file
        pcm = file.format in ("WAV", "WAVEX", "NIST") and file.subtype == "PCM_16"
        if pcm and fits_flac(file.channels, file.samplerate):
            return encode_flac(sndfile.read_whole(opened, "int16"), file.samplerate)
    return None


def fits_flac(num_channels: int, sample_rate: int) -> bool:
    """Whether FLAC can store this number of channels at this rate (Hz)."""
    holds_rate = sample_rate < 2**16 or (sample_rate <= FLAC_MAX_RATE and sample_rate % 10 == 0)
    return num_channels <= FLAC_MAX_CHANNELS and holds_rate


def encode_flac(samples: np.ndarray, sample_rate: int) -> bytes:
    """Encodes [S, C] int16 samples at `sample_rate` (Hz) as a FLAC file. Equal samples always give equal bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _source(path: Path | str | AudioBytes) -> Source:
    return path if isinstance(path, AudioBytes) else Path(path)

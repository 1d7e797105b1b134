"""A recording and what is said in it -> when each word and each character is said."""

from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.audio.ffmpeg import read_blocks
from ds2_jax.data.manifest import read_text
from ds2_jax.decoding import alignment
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.recognition.formats import Format, render
from ds2_jax.recognition.outputs import open_stdout
from ds2_jax.recognition.recogniser import Recording, Segment, Transcriber, Transcript
from ds2_jax.runs.fitted import run_decoder
from ds2_jax.system.compilation import enable_cache
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.alphabet import Alphabet

TEXT_SUFFIX = ".txt"


def align(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    audio: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO")],
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")],
    format: Format = "json",  # noqa: A002 - the option's name
) -> int:
    """Print when each word and character of a known text is said in a recording.

    Args:
        run: folder of a training run.
        audio: the recording, of any length and of every format that transcribe reads.
        text: what is said in it: the words themselves (in quotes), or a file of them, whose name ends in .txt. Case and
            punctuation are brought to the model's alphabet as in training.
        format: as of transcribe. Confidence is that of the model in these words at these places.
    """
    enable_cache()
    words = read_text(Path(text)) if text.endswith(TEXT_SUFFIX) else text
    transcriber = Transcriber(run)
    transcript = align_text(transcriber, run_decoder(transcriber.config, run), audio, words)
    open_stdout()
    print(render(transcript, format, audio.stem), end="")
    return 0


def align_text(transcriber: Transcriber, decoder: Decoder, audio: Path, text: str) -> Transcript:
    """Finds when each word of a known text is said.

    Args:
        transcriber: gives the log-probabilities.
        decoder: of the same run, whose calibration holds for times and confidences.
        audio: the file, of any length.
        text: what is said in it.

    Raises:
        InputError: the audio cannot be read; the text is empty, has characters outside the alphabet, or cannot be
            aligned with the recording.
    """
    alphabet = Alphabet.of(transcriber.config.data)
    if not alphabet.normalise(text):
        raise InputError(f"TEXT must hold at least one word, got {shorten(repr(text))}. Give what is said.")
    if unknown := alphabet.unknown(text):
        raise InputError(
            f"TEXT must use the model's alphabet {alphabet.characters!r}, got {unknown} in {shorten(repr(text))}. "
            "Write out or leave out what has no letter of it."
        )
    blocks = read_blocks(audio, transcriber.config.features.sample_rate)
    log_probs, duration = transcriber.log_probs(Recording(audio, blocks))
    try:
        spans = alignment.align(log_probs, alphabet.encode(text))
    except InputError as error:
        raise InputError(f"{audio}: {error}") from error
    return Transcript(audio, duration, [Segment(0.0, duration, [decoder.hypothesis(spans, log_probs, duration)])])

"""Runs the command `align`: finds when each word and character of a known text is said in a recording."""

import logging
import os
from pathlib import Path

from ds2_jax.data.manifest import read_text
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.formats import Format, render
from ds2_jax.recognition.outputs import open_stdout
from ds2_jax.recognition.recogniser import Recogniser

logger = logging.getLogger(__package__)

TEXT_SUFFIX = ".txt"
UNLIKELY = 0.1
"""Texts with a lower mean confidence are reported. With a model of AN4 after 12 epochs (WER 16 %), all of 117 texts of
other utterances had less or could not be aligned, and 2 of 117 right ones. With the quick start's, 178 and 5 of 180
had."""


def print_alignment(
    run: Path,
    audio: Path,
    text: str,
    output_format: Format,
    *,
    ignore_punctuation: bool,
    engine: EngineName | None = None,
) -> int:
    """Prints when each word and character of `text`, or of the file that it names, is said. Returns 0."""
    is_file = os.path.isfile(text) or text.lower().endswith(TEXT_SUFFIX)  # noqa: PTH113 - a text may be too long
    words = read_text(Path(text)) if is_file else text
    transcript = Recogniser(run, engine=engine).align(audio, words, ignore_punctuation=ignore_punctuation)
    if transcript.confidence < UNLIKELY:
        logger.warning(
            f"warning: {audio}: the text may not be what is said, or the model does not know such speech: its mean "
            f"confidence is {transcript.confidence:.4f} a character, and below {UNLIKELY} few texts are right"
        )
    open_stdout()
    print(render(transcript, output_format, audio.stem), end="")
    return 0

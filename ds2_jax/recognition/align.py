"""Runs the command `align`: finds when each word and character of a known text is said in a recording."""

from pathlib import Path

from ds2_jax.data.manifest import read_text
from ds2_jax.recognition.formats import Format, render
from ds2_jax.recognition.outputs import open_stdout
from ds2_jax.recognition.recogniser import Recogniser

TEXT_SUFFIX = ".txt"


def print_alignment(run: Path, audio: Path, text: str, output_format: Format) -> int:
    """Prints when each word and character of `text`, or of the .txt file that it names, is said. Returns 0."""
    words = read_text(Path(text)) if text.endswith(TEXT_SUFFIX) else text
    transcript = Recogniser(run).align(audio, words)
    open_stdout()
    print(render(transcript, output_format, audio.stem), end="")
    return 0

"""A recording and what is said in it -> when each word and each character is said."""

import io
import sys
from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.compilation import enable_cache
from ds2_jax.data.manifest import read_text
from ds2_jax.formats import WRITERS, Format
from ds2_jax.transcriber import Transcriber

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
        audio: the recording.
        text: what is said in it: the words themselves (in quotes), or a file of them, whose name ends in .txt. Case and
            punctuation are brought to the model's alphabet as in training.
        format: as of transcribe. Confidence is that of the model in these words at these places.
    """
    enable_cache()
    words = read_text(Path(text)) if text.endswith(TEXT_SUFFIX) else text
    transcript = Transcriber(run).align(audio, words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be UTF-8: its bytes as they are
    print(WRITERS[format](transcript), end="")
    return 0

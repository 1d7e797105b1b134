"""The command `align`: a recording and what is said in it -> when each word and each character is said."""

from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.data.manifest import read_text
from ds2_jax.recognition.formats import Format, render
from ds2_jax.recognition.outputs import open_stdout
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.system.compilation import enable_cache

TEXT_SUFFIX = ".txt"


def align(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    audio: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO")],
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")],
    format: Format = "json",  # noqa: A002 - the option's name
) -> int:
    """Print when each word and character of a known text is said in a recording.

    Args:
        run: the folder of a training run.
        audio: the recording, of any length and of every format that transcribe reads.
        text: what is said in it: the words themselves (in quotes), or a file of them whose name ends in .txt. Case and
            punctuation are brought to the model's alphabet as in training.
        format: as for transcribe. A confidence is the model's, for these words at these places.
    """
    enable_cache()
    words = read_text(Path(text)) if text.endswith(TEXT_SUFFIX) else text
    transcript = Recogniser(run).align(audio, words)
    open_stdout()
    print(render(transcript, format, audio.stem), end="")
    return 0

"""The commands of recognition: their options, and nothing that is slow to import before they are right."""

from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.recognition.formats import Format

AUDIO = tyro.conf.arg(metavar="AUDIO [AUDIO ...]", help_behavior_hint="(required)")  # `find_audio` checks it
FORMATS = tyro.conf.arg(help_behavior_hint="(default: txt; repeat it for several, with --output-dir)")

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def transcribe(
    run: Run,
    audio: Annotated[tuple[Path, ...], tyro.conf.Positional, AUDIO],
    format: Annotated[tuple[Format, ...], tyro.conf.UseAppendAction, FORMATS] = (),  # noqa: A002 - the option's name
    output_dir: Path | None = None,
    resume: bool = False,
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY,
) -> int:
    """Write what is said in recordings: lines of text, subtitles or tables, with times and confidences.

    Args:
        run: Folder of a training run.
        audio: Recordings, folders of them, quoted patterns, or - for standard input. WAV, FLAC, Ogg, MP3, AIFF, Sphere
            and more; m4a and video if ffmpeg is installed. Hidden files in folders are passed over.
        format: txt: one line for each recording, after its path if there are several. json: one object a line, with the
            times and confidences of words and characters. srt, vtt: subtitles. tsv: the subtitles as a table. ctm: one
            line for each word, as NIST scores it.
        output_dir: Folder for a file NAME.FORMAT of each recording, in the same subfolders as the recordings.
        resume: Leave out recordings whose files are in --output-dir already, whatever run or settings made them.
        decoding: How to decode.
    """
    from ds2_jax.recognition.transcribe import transcribe as transcribe_files
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    return transcribe_files(run, audio, format or ("txt",), output_dir, resume, decoding)


def align(
    run: Run,
    audio: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO")],
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")],
    format: Format = "json",  # noqa: A002 - the option's name
) -> int:
    """Print when each word and character of a known text is said in a recording.

    Args:
        run: folder of a training run.
        audio: the recording, of any length and in every format that transcribe reads.
        text: what is said in it: the words themselves (in quotes), or a file of them, whose name ends in .txt. Case and
            punctuation become those of the model's alphabet, as in training.
        format: as for transcribe. Confidence is that of the model in these words at these places.
    """
    from ds2_jax.recognition.align import print_alignment
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    return print_alignment(run, audio, text, format)

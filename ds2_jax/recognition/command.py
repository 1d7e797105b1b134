"""Declares the commands of recognition. Slow modules are imported only after the options have been checked."""

import shlex
from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.audio.pcm import SampleFormat
from ds2_jax.decoding.options import GREEDY, Combination, DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.endpoints import ENDPOINTS, Endpoints
from ds2_jax.recognition.formats import Format, LiveFormat
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError

AUDIO = tyro.conf.arg(metavar="AUDIO [AUDIO ...]", help_behavior_hint="(required)")  # `find_audio` checks this
FORMATS = tyro.conf.arg(help_behavior_hint="(default: txt; repeat it for several, with --output-dir)")

LIVE_AUDIO = tyro.conf.arg(metavar="[AUDIO]", help_behavior_hint="(default: the microphone)")

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
ENGINE = tyro.conf.arg(help_behavior_hint="(default: jax if JAX can use an accelerator, otherwise onnx)")
Engine = Annotated[EngineName | None, ENGINE]
With = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="with", metavar="RUN")]


def transcribe(
    run: Run,
    audio: Annotated[tuple[Path, ...], tyro.conf.Positional, AUDIO],
    format: Annotated[tuple[Format, ...], tyro.conf.UseAppendAction, FORMATS] = (),  # noqa: A002 - the option's name
    output_dir: Path | None = None,
    resume: bool = False,
    beam_runner: str | None = None,
    beam_options: str = "",
    engine: Engine = None,
    with_: With = (),
    combine: Combination = "rover",
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY,
) -> int:
    """Write what is said in recordings, as text, subtitles or tables with times and confidences.

    Args:
        run: Folder of a training run, a folder or file that export wrote, or spelling, the model in this package.
        audio: Recordings, folders of them, quoted patterns, or - for standard input. The formats are WAV, FLAC, Ogg,
            MP3, AIFF, Sphere and more; with ffmpeg also m4a and video. In folders, links are followed and hidden files
            are skipped. A manifest (.jsonl) or tfds:NAME#SPLIT stands for its recordings, which need no transcripts.
        format: txt: one line for each recording, with its path in front if there are several. json: one object a line,
            with the times and confidences of words and characters. srt, vtt: subtitles. tsv: the subtitles as a table.
            ctm: one line for each word, for NIST's scoring tools.
        output_dir: Folder for the results, one file NAME.FORMAT for each recording and format, in the subfolders of the
            recordings.
        resume: Skip recordings whose results are in --output-dir already, even if another run or other settings made
            them.
        beam_runner: Transcribe a large archive with Apache Beam: DirectRunner, FlinkRunner, SparkRunner,
            DataflowRunner. The results are JSON Lines in parts in --output-dir; a recording that cannot be read has a
            line with its error. The same command continues after an interruption. Workers must see all files and
            folders under the same names.
        beam_options: Options of the Beam runner, as one string. You can write them after -- instead.
        engine: What runs the model. onnx: ONNX Runtime, the fastest on a CPU. jax: JAX.
        with_: Another model of the same alphabet, which recognises together with RUN. You can repeat this option.
        combine: rover: each model decodes alone, and they vote for words with their confidences. average: decode the
            mean of the models' log-probabilities.
        decoding: How to decode.
    """
    require(bool(with_) or combine == "rover", "--combine", "be used with --with", combine, "Name other models.")
    require(not with_ or beam_runner is None, "--with", "be used without --beam-runner", beam_runner, "Leave one out.")
    if beam_runner is not None:
        return _transcribe_archive(run, audio, format, output_dir, beam_runner, beam_options, engine, decoding)
    require(not beam_options, "--beam-options", "be used with --beam-runner", beam_options)
    from ds2_jax.recognition.transcribe import transcribe as transcribe_files

    _prepare(engine)
    return transcribe_files(run, audio, format or ("txt",), output_dir, resume, decoding, engine, with_, combine)


def _transcribe_archive(
    run: Path,
    audio: tuple[Path, ...],
    formats: tuple[Format, ...],
    output_dir: Path | None,
    runner: str,
    options: str,
    engine: EngineName | None,
    decoding: DecodingOptions,
) -> int:
    if output_dir is None:
        raise InputError("--output-dir must name a folder with --beam-runner, got none. Add --output-dir FOLDER.")
    require(set(formats) <= {"json"}, "--format", "be json with --beam-runner", ", ".join(formats), "Leave it out.")
    try:
        words = shlex.split(options)
    except ValueError as error:  # a quotation without an end
        raise InputError(f"--beam-options must be words of a command line, got: {error}. Correct them.") from error
    from ds2_jax.recognition.archive import transcribe_archive

    _prepare(engine)
    return transcribe_archive(run, audio, output_dir, decoding, engine, runner, words)


def live(
    run: Run,
    audio: Annotated[Path | None, tyro.conf.Positional, LIVE_AUDIO] = None,
    format: LiveFormat = "txt",  # noqa: A002 - the option's name
    device: str | None = None,
    sample_rate: int | None = None,
    sample_format: SampleFormat = "s16le",
    realtime: bool = False,
    engine: Engine = None,
    endpoints: Annotated[Endpoints, tyro.conf.arg(name="")] = ENDPOINTS,
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY,
) -> int:
    """Show what is said while it is said, from a microphone, a pipe or a file. Ctrl-C finishes the last words.

    On a terminal, words appear as they are said; those that may still change are dimmed.

    Args:
        run: Folder of a training run, a folder or file that export wrote, or spelling, the model in this package.
        audio: Leave it out to hear the microphone. - for standard input: WAV, or samples without a header. Or a file.
        format: What is written when a segment has ended. txt: a line. json: an object a line, with words, times and
            confidences. srt, vtt: subtitles.
        device: The microphone: a number or a part of its name.
        sample_rate: Sample rate in Hz of samples on standard input that have no header.
        sample_format: Their coding, by ffmpeg's names. They have one channel.
        realtime: Read a file at the speed of speech, not as fast as possible.
        engine: What runs the model. onnx: ONNX Runtime, the fastest on a CPU. jax: JAX.
        endpoints: When a segment ends.
        decoding: How to decode.
    """
    from ds2_jax.recognition.live import live as hear

    _prepare(engine)
    return hear(run, audio, format, device, sample_rate, sample_format, realtime, endpoints, decoding, engine)


def align(
    run: Run,
    audio: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO")],
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")],
    format: Format = "json",  # noqa: A002 - the option's name
    ignore_punctuation: bool = False,
    engine: Engine = None,
) -> int:
    """Print when each word and character of a known text is said in a recording. A text that hardly fits is reported.

    Args:
        run: Folder of a training run, a folder or file that export wrote, or spelling, the model in this package.
        audio: A recording of any length, in any format that transcribe reads.
        text: What is said in it: the words (in quotes), or the name of a file that holds them. Case and punctuation are
            changed to fit the model's alphabet, as in training (data.case, data.remove).
        format: As for transcribe. A confidence is the geometric mean of the model's probabilities for the characters of
            the word, or of the text, at these places.
        ignore_punctuation: Leave out punctuation that the alphabet lacks. Digits and other characters that are read
            aloud are still refused.
        engine: What runs the model. onnx: ONNX Runtime, the fastest on a CPU. jax: JAX.
    """
    from ds2_jax.recognition.align import print_alignment

    _prepare(engine)
    return print_alignment(run, audio, text, format, ignore_punctuation=ignore_punctuation, engine=engine)


def _prepare(engine: EngineName | None) -> None:
    from ds2_jax.runs.model import default_engine

    if (engine or default_engine()) == "jax":
        from ds2_jax.system.compilation import enable_cache  # this import loads JAX

        enable_cache()

"""The commands: python main.py [train|evaluate|summary|transcribe|align|calibrate|replay|prepare|data|lm|bench] ..."""

import dataclasses
import errno
import functools
import importlib
import inspect
import itertools
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from ds2_jax.config import Config, load_config
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.parallel.cluster import ALONE, ClusterOptions
from ds2_jax.system import logs
from ds2_jax.system.errors import InputError
from ds2_jax.system.interrupts import Stopped

Result = TypeVar("Result")

USAGE = """\
usage: python main.py [COMMAND] ...

Deep Speech 2: trains speech recognisers and transcribes with them.

commands (train where none is named):
  train --config FILE [--section.field value ...]   train, or go on, with --distributed in many processes; then
                                                    evaluate the test split
  evaluate RUN [--manifest FILE] [--report DIR]     word and character error rates of a trained run
  summary RUN [RUN ...]                             a table of the error rates of runs, such as seeds, and their mean
  transcribe RUN AUDIO [AUDIO ...] [--format srt]   transcripts of audio and video: text, subtitles, tables
  align RUN AUDIO TEXT                              when each word and character of a known text is said
  calibrate RUN [--manifest FILE]                   fit confidences and word times; training does so in its end
  replay FILE [--run RUN]                           make a step again whose loss was not finite; say what is behind it
  prepare CORPUS [--root FOLDER] ...                fetch or build a corpus; prepare --help lists them
  data TOOL ...                                     look at manifests and change them; data --help lists the tools
  lm TOOL ...                                       make a language model of text, tune one; lm --help lists the tools
  bench [WORK ...]                                  speed and memory, beside PyTorch where it is installed

Every command has its own --help, for example:
  python main.py --config configs/quickstart.py --help
"""

FAILURE, INTERRUPTED, BROKEN_PIPE = 1, 130, 141
"""Exit codes: wrong input; Ctrl-C; whoever read the output has gone (both as shells count signals). SIGTERM: 143."""

PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ETIMEDOUT),
}
"""Errors of the place that a file lies in: the user's to mend, wherever they occur."""


DATA_TOOLS = {
    "check": ("curation.check.check", "decode every recording; say what stops training and what looks wrong"),
    "stats": ("curation.stats.stats", "hours, speakers, words and durations, without decoding"),
    "merge": ("curation.edit.merge", "one manifest of several"),
    "split": ("curation.edit.split", "train, dev and test of one manifest, by speaker"),
    "alphabet": ("curation.propose.alphabet", "propose data.alphabet and data.remove for transcripts of any language"),
    "preview": (
        "curation.preview.command.preview",
        "hear and see utterances before and after what training changes; add noise to a file",
    ),
    "batch-seconds": (
        "training.memory.batch_seconds",
        "the largest data.batch_seconds that fits the memory of a device",
    ),
    "pack": ("curation.pack.pack", "recordings and transcripts into a few large files, for fast reading"),
}
"""Of `data`: the function below `ds2_jax` whose parameters are the options and which returns the exit code; about."""

LM_TOOLS = {
    "build": ("lm.build.build", "an n-gram model of text files or manifests, as an ARPA file"),
    "tune": ("evaluation.tune.tune", "the weights of a language model for a run, by its dev split"),
}
"""Of `lm`, likewise."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a recogniser, or continue the run in its folder; then evaluate the test split with the best checkpoint."""

    config: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Python file that defines `config`; the settings below change single fields."""
    settings: Annotated[Config, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Folder of the run; by default runs/<name of the config file>."""
    overwrite: bool = False
    """Delete the run in that folder and start anew."""
    dry_run: bool = False
    """Print the plan of the batches and an estimate of the memory, try the largest batch once on a tiny model, and
    write nothing into the run's folder."""
    profile: Annotated[str | None, tyro.conf.arg(metavar="FIRST:LAST")] = None
    """Record these steps of training, counted from 1, into RUN/profile for TensorBoard and Perfetto."""
    cluster: Annotated[ClusterOptions, tyro.conf.arg(name="")] = ALONE


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Word and character error rates of a run's best checkpoint, and a file with every utterance, worst first."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a training run."""
    manifest: Path | None = None
    """Manifest or tfds:NAME#SPLIT to evaluate; by default the run's test split. RUN/evaluations takes the results."""
    report: Path | None = None
    """Folder for a report: index.html, a page to see and hear the worst utterances, and report.json."""
    against: Path | None = None
    """Compare with another run (its folder; it is decoded likewise) or with an earlier evaluation (a .jsonl of
    RUN/evaluations): difference of the error rates with its interval."""
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY


AUDIO = tyro.conf.arg(  # `find_audio` checks that there is one
    metavar="AUDIO [AUDIO ...]",
    help_behavior_hint="(required)",
    help="Recordings, folders of them, quoted patterns, or - for standard input. WAV, FLAC, Ogg, MP3, AIFF, Sphere and "
    "more; m4a and video where ffmpeg is installed.",
)
FORMAT = tyro.conf.arg(
    help_behavior_hint="(default: txt; repeat it for several, with --output-dir)",
    help="txt: a line a recording, behind its path where there are several. json: an object a line, with the times and "
    "confidences of words and characters. srt, vtt: subtitles. tsv: the subtitles as a table. ctm: a line a word, as "
    "NIST scores it.",
)


@dataclasses.dataclass(frozen=True)
class Transcribe:
    """Write what is said in recordings: lines of text, subtitles or tables, with times and confidences."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a training run."""
    audio: Annotated[tuple[Path, ...], tyro.conf.Positional, AUDIO]
    format: Annotated[
        tuple[Literal["txt", "json", "srt", "vtt", "ctm", "tsv"], ...], tyro.conf.UseAppendAction, FORMAT
    ] = ()
    output_dir: Path | None = None
    """Folder for a file NAME.FORMAT of each recording; it gets the folders below those named, too."""
    resume: bool = False
    """Leave out recordings whose files are in --output-dir already, whatever run or settings made them."""
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: of the command line; by default those of this process.

    Returns:
        The exit code: 0, 1 after an error the user can mend, 130 after Ctrl-C, 143 after SIGTERM, 141 where nobody
        reads the output; and the process ends with 75 where another one of its training is lost.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.stderr is None:  # closed, as stdout below
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    logs.show()
    try:
        if sys.stdout is None:
            raise InputError("Standard output must be open, got a closed one. Send it to a file or to /dev/null.")
        code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # tyro's, after --help or a wrong command line
        return FAILURE if stop.code else 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILURE
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in PLACES:
            raise
        place = error.filename or "Standard output"
        advice = "Make room or mend the permissions, then run the same command again."
        print(f"error: {place} must be readable and writable, got: {error.strerror}. {advice}", file=sys.stderr)
        return FAILURE


def _run(words: list[str]) -> int:
    commands = {
        "train": _train,
        "evaluate": _evaluate,
        "summary": _summary,
        "transcribe": _transcribe,
        "align": _align,
        "calibrate": _calibrate,
        "replay": _replay,
        "prepare": _prepare,
        "data": _data,
        "lm": _lm,
        "bench": _bench,
    }
    if not words or words in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0 if words else FAILURE
    if words[0] in commands:
        return commands[words[0]](words[1:])
    if not words[0].startswith("-"):
        raise InputError(f"COMMAND must be one of {', '.join(commands)}, got {words[0]!r}. See python main.py --help.")
    return _train(words)


def _train(words: list[str]) -> int:
    path = _config_path(words)
    if path is None and not {"-h", "--help"} & set(words):
        raise InputError("--config must name a configuration file, got none. Try --config configs/quickstart.py.")
    default = Train(path, load_config(path)) if path else Train(tyro.MISSING, Config())
    command = tyro.cli(Train, prog="python main.py train", args=words, default=default)
    if command.dry_run and command.cluster.distributed:
        raise InputError("--dry-run must run in one process, got --distributed. Leave one of them out.")
    from ds2_jax.parallel.processes import joined
    from ds2_jax.runs import run_folder
    from ds2_jax.system.compilation import enable_cache
    from ds2_jax.training.profile import steps_of
    from ds2_jax.training.train import (
        train,  # TensorFlow and Orbax load with it, so not before the command line is right
    )

    enable_cache()
    workdir = command.workdir or Path("runs") / command.config.stem
    if command.dry_run:
        from ds2_jax.training.dry_run import dry_run

        dry_run(command.settings, workdir, command.overwrite)
        return 0
    steps = steps_of(command.profile) if command.profile else None
    with joined(command.cluster, functools.partial(run_folder.prospects, workdir, command.overwrite)):
        train(command.settings, workdir, command.overwrite, steps)
    return 0


def _config_path(words: Sequence[str]) -> Path | None:
    """The file behind the last --config: its settings are the defaults of all other options, so it is read first."""
    path = None
    for word, following in itertools.pairwise([*words, None]):
        if word == "--config" and following is not None:
            path = Path(following)
        elif word is not None and word.startswith("--config="):
            path = Path(word.removeprefix("--config="))
    return path


def _evaluate(words: list[str]) -> int:
    command = tyro.cli(Evaluate, prog="python main.py evaluate", args=words)
    from ds2_jax.evaluation.evaluate import evaluate
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    evaluate(command.run, command.manifest, command.decoding, report_folder=command.report, against=command.against)
    return 0


def _summary(words: list[str]) -> int:
    from ds2_jax.evaluation.summary import summary

    return _parse(summary, "summary", words)()


def _transcribe(words: list[str]) -> int:
    command = tyro.cli(Transcribe, prog="python main.py transcribe", args=words)
    from ds2_jax.recognition.transcribe import transcribe
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    formats = command.format or ("txt",)
    return transcribe(command.run, command.audio, formats, command.output_dir, command.resume, command.decoding)


def _prepare(words: list[str]) -> int:
    from ds2_jax.corpora import CORPORA, preparer

    if not _is_one_of(CORPORA, words, "prepare CORPUS", "Fetches or builds a corpus."):
        return 0
    print(_parse(preparer(words[0]), f"prepare {words[0]}", words[1:])())
    return 0


def _align(words: list[str]) -> int:
    from ds2_jax.recognition.align import align

    return _parse(align, "align", words)()


def _calibrate(words: list[str]) -> int:
    from ds2_jax.evaluation.calibrate import calibrate

    return _parse(calibrate, "calibrate", words)()


def _replay(words: list[str]) -> int:
    from ds2_jax.training.replay.command import replay

    return _parse(replay, "replay", words)()


def _data(words: list[str]) -> int:
    about = {name: text for name, (_, text) in DATA_TOOLS.items()}
    if not _is_one_of(about, words, "data TOOL", "Looks at manifests and changes them."):
        return 0
    if "--" in words:  # what follows is for Apache Beam
        mark = words.index("--")
        words = [*words[:mark], f"--beam-options={shlex.join(words[mark + 1 :])}"]
    tool = _find(DATA_TOOLS[words[0]][0])
    if path := _config_path(words):
        tool = _with_settings(tool, load_config(path))
    return _parse(tool, f"data {words[0]}", words[1:])()


def _lm(words: list[str]) -> int:
    about = {name: text for name, (_, text) in LM_TOOLS.items()}
    if not _is_one_of(about, words, "lm TOOL", "Makes language models and tunes them."):
        return 0
    return _parse(_find(LM_TOOLS[words[0]][0]), f"lm {words[0]}", words[1:])()


def _find(place: str) -> Callable[..., int]:
    module, function = place.rsplit(".", 1)
    tool: Callable[..., int] = getattr(importlib.import_module(f"ds2_jax.{module}"), function)
    return tool


def _with_settings(tool: Callable[..., int], config: Config) -> Callable[..., int]:
    """`tool` with those of its parameters that are a section of the settings taken from `config` where not given."""
    sections = {
        name: getattr(config, name)
        for name, parameter in inspect.signature(tool).parameters.items()
        if dataclasses.is_dataclass(parameter.default) and type(parameter.default) is type(getattr(config, name, None))
    }
    settled = functools.partial(tool, **sections)
    settled.__doc__ = tool.__doc__  # of which `_parse` makes the help
    return settled


def _is_one_of(names: Mapping[str, str], words: list[str], usage: str, about: str) -> bool:
    """Whether `words` begin with one of `names`; prints what there is where they ask for help.

    Raises:
        InputError: they begin with something else.
    """
    command, kind = usage.split()
    if words and words[0] in ("--help", "-h"):
        width = max(map(len, names))
        listing = "".join(f"  {name:{width}}  {text}\n" for name, text in names.items())
        print(f"usage: python main.py {usage} [--help] ...\n\n{about}\n\n{listing}", end="")
        return False
    if not words or words[0] not in names:
        got = repr(words[0]) if words else "none"
        raise InputError(f"{kind} must be one of {', '.join(names)}, got {got}. See python main.py {command} --help.")
    return True


def _parse(function: Callable[..., Result], command: str, words: list[str]) -> Callable[[], Result]:
    """`function` with its arguments read from the command line; its signature and docstring make the help.

    It is called by us and not by tyro, which would take its errors for wrong arguments.
    """

    @functools.wraps(function)
    def bind(*positional: Any, **named: Any) -> Callable[[], Result]:
        return functools.partial(function, *positional, **named)

    call: Callable[[], Result] = tyro.cli(bind, prog=f"python main.py {command}", args=words)
    return call


def _bench(words: list[str]) -> int:
    from ds2_jax.bench.options import Options

    options = tyro.cli(Options, prog="python main.py bench", args=words)
    from ds2_jax.bench.report import bench

    bench(options)
    return 0

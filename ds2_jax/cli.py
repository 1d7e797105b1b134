"""The command line: finds the command, reads its options, and turns errors into messages and exit codes."""

import argparse
import contextlib
import difflib
import errno
import functools
import importlib
import inspect
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from ds2_jax.config import Config, load_config
from ds2_jax.corpora import CORPORA
from ds2_jax.system import logs, packages, platforms
from ds2_jax.system.errors import InputError
from ds2_jax.system.interrupts import Stopped
from ds2_jax.system.program import program


class Command(NamedTuple):
    """A command.

    Attributes:
        place: MODULE:FUNCTION below `ds2_jax`. The parameters of the function are the options, and its docstring is the
            help. The function returns the exit code, or a path to print. The module imports nothing slow, such as JAX.
        about: one line for the list of commands.
        more_words: MODULE:FUNCTION, of the function and its words, that returns options from elsewhere, as words.
    """

    place: str
    about: str
    more_words: str | None = None


COMMANDS = {
    "train": Command("training.command:train", "train or continue a run, then evaluate the test split"),
    "evaluate": Command("evaluation.command:evaluate", "word and character error rates of a trained run"),
    "score": Command("evaluation.command:score", "error rates of texts that any recogniser has written"),
    "summary": Command(
        "evaluation.summary:summary", "a table of the error rates of several runs, such as seeds, and their mean"
    ),
    "plot": Command("evaluation.curves:plot", "the curves of trainings as a picture, several runs together"),
    "transcribe": Command("recognition.command:transcribe", "transcripts of audio and video: text, subtitles, tables"),
    "live": Command("recognition.command:live", "text while someone speaks: a microphone, a pipe or a file"),
    "align": Command("recognition.command:align", "when each word and character of a known text is said"),
    "serve": Command(
        "serving.command:serve",
        "recognition for other programs: OpenAI's API and vosk's, over a network",
        more_words="serving.settings:more_words",
    ),
    "calibrate": Command("evaluation.command:calibrate", "fit confidences and word times; training does so at the end"),
    "import": Command("exchange.command:import_", "make a model of a checkpoint of deepspeech.pytorch"),
    "export": Command("exchange.command:export", "write a model for other programs: ONNX, safetensors, StableHLO"),
    "replay": Command("training.command:replay", "repeat a step whose loss was not finite, and show the cause"),
    **{
        f"prepare {name}": Command(f"corpora.{name.replace('-', '_')}:prepare", about)
        for name, about in CORPORA.items()
    },
    "data check": Command(
        "curation.check:check", "decode every recording; list what stops training and what looks wrong"
    ),
    "data stats": Command("curation.stats:stats", "hours, speakers, words and durations, without decoding"),
    "data merge": Command("curation.edit:merge", "combine several manifests into one"),
    "data split": Command("curation.edit:split", "split a manifest into train, dev and test by speaker"),
    "data alphabet": Command(
        "curation.propose_alphabet:alphabet", "propose data.alphabet and data.remove for transcripts of any language"
    ),
    "data preview": Command(
        "curation.preview.command:preview",
        "hear and see how training changes utterances; add noise to a file",
    ),
    "data batch-seconds": Command(
        "training.command:batch_seconds", "the largest data.batch_seconds that fits the memory of a device"
    ),
    "data pack": Command(
        "curation.pack:pack", "pack recordings and transcripts into a few large files, for fast reading"
    ),
    "lm build": Command("lm.build:build", "build an n-gram model from text files or manifests, as an ARPA file"),
    "lm tune": Command("evaluation.command:tune", "tune the weights of a language model for a run, on its dev split"),
    "lm units": Command("lm.units:units", "divide words into pieces, to train a model whose labels are such pieces"),
    "bench": Command("bench.command:bench", "measure speed and memory, next to PyTorch if it is installed"),
    "bench serve": Command(
        "bench.serve_command:bench_serve", "measure a server: throughput, latency and live streams at once"
    ),
}
"""Commands by name; a name is one word or two."""


class Group(NamedTuple):
    """Commands whose names begin with the same word.

    Attributes:
        kind: placeholder for the second word.
        about: one line for the list of commands.
    """

    kind: str
    about: str


GROUPS = {
    "prepare": Group("CORPUS", "fetch or build a corpus"),
    "data": Group("TOOL", "inspect and change manifests"),
    "lm": Group("TOOL", "make or tune a language model"),
}
DEFAULT = "train"
"""The command if the user names none."""
RECOGNITION = ("transcribe", "live", "align", "serve")
"""Commands that need only the packages of requirements-recognise*.txt."""
HELP = (["--help"], ["-h"])
REST = "beam_options"
"""The parameter that receives all words after `--` as one string."""
FAILURE, INTERRUPTED, BROKEN_PIPE = 1, 130, 141
"""Exit codes for wrong input, Ctrl-C and a closed reader of the output; the last two follow the shell's convention for
signals, as do 143 for SIGTERM and 129 for SIGHUP."""

PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ETIMEDOUT),
}
"""Errors of a file's location. The user can correct them, so they never give a traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: words of the command line; by default those of this process.

    Returns:
        The exit code: 0; 1 after an error that the user can correct; 130 after Ctrl-C; 143 after SIGTERM; 129 after
        SIGHUP; 141 if nobody reads the output any more. In distributed training, the process exits with 75 if another
        process is lost.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.stderr is None:  # Python sets it to None if the shell closed it; the same for stdout below
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    logs.show()
    try:
        if sys.stdout is None:
            raise InputError("Standard output must be open, got a closed one. Send it to a file or to /dev/null.")
        with platforms.explained():
            code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # raised by tyro after --help or a wrong command line
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
        advice = "Free space, or correct the path or its permissions."
        print(f"error: {place} must be readable and writable, got: {error.strerror}. {advice}", file=sys.stderr)
        return FAILURE


def _run(words: list[str]) -> int:
    if not words or words in HELP:
        print(_usage(), end="")
        return 0 if words else FAILURE
    if words[0] in GROUPS and words[1:] in HELP:
        print(_group_usage(words[0]), end="")
        return 0
    name, rest = _find(words)
    with packages.explained(None if name in RECOGNITION else name):
        result = parse(name, rest)()
    if isinstance(result, Path):
        print(result)
        return 0
    return result


def _usage() -> str:
    rows = {name: each.about for name, each in COMMANDS.items() if name.split()[0] not in GROUPS}
    rows |= {f"{name} {each.kind}": f"{each.about}; {name} --help lists them" for name, each in GROUPS.items()}
    return f"""\
usage: {program()} [COMMAND] ...

Deep Speech 2: trains speech recognisers and transcribes with them.

commands ({DEFAULT} if none is named):
{_listing(rows)}
Every command has its own --help, for example:
  {program()} --config quickstart --help
"""


def _group_usage(name: str) -> str:
    rows = {member: COMMANDS[f"{name} {member}"].about for member in _members(name)}
    kind, about = GROUPS[name]
    return f"usage: {program()} {name} {kind} [--help] ...\n\n{about.capitalize()}.\n\n{_listing(rows)}"


def _listing(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "".join(f"  {name:{width}}  {about}\n" for name, about in rows.items())


def _members(group: str) -> list[str]:
    """Lists the second words of a group's commands."""
    return [name.removeprefix(f"{group} ") for name in COMMANDS if name.startswith(f"{group} ")]


def _find(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Returns the name of the command at the start of `words`, and the words after it."""
    if words[0].startswith("-"):
        return DEFAULT, words
    first, *rest = words
    _require_one_of("COMMAND", dict.fromkeys(name.split()[0] for name in COMMANDS), first)
    if first not in GROUPS:
        both = " ".join(words[:2])
        return (both, rest[1:]) if both in COMMANDS else (first, rest)
    second = rest[0] if rest else None
    _require_one_of(GROUPS[first].kind, _members(first), second, f"{first} ")
    return f"{first} {second}", rest[1:]


def _require_one_of(kind: str, names: Iterable[str], word: str | None, before: str = "") -> None:
    if word in (known := list(names)):
        return
    near = difflib.get_close_matches(word or "", known, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    got = repr(word) if word else "none"
    raise InputError(f"{kind} must be one of {', '.join(known)}, got {got}. {guess}See {program()} {before}--help.")


def parse(name: str, words: Sequence[str]) -> Callable[[], int | Path]:
    """Reads the options of a command.

    Returns:
        A function that runs the command. The command does not run here, because tyro would report its errors as errors
        of the command line.
    """
    function = _load(COMMANDS[name].place)
    if (more_words := COMMANDS[name].more_words) and not {*words} & {"--help", "-h"}:
        words = [*_load(more_words)(function, words), *words]
    parameters = dict(inspect.signature(function).parameters)
    if REST in parameters and "--" in words:
        mark = words.index("--")
        words = [*words[:mark], f"--{REST.replace('_', '-')}={shlex.join(words[mark + 1 :])}"]
    if "config" in parameters and (config := _named_config(words)) is not None:
        parameters = {each: _with_default(parameter, config) for each, parameter in parameters.items()}

    def bind(*positional: Any, **named: Any) -> Callable[[], int | Path]:
        return functools.partial(function, *positional, **named)

    vars(bind)["__signature__"] = inspect.Signature(list(parameters.values()))
    bind.__annotations__ = function.__annotations__
    bind.__doc__ = re.sub(r"\n {8,}", " ", inspect.getdoc(function) or "")  # tyro would print these line breaks
    try:
        command: Callable[[], int | Path] = tyro.cli(bind, prog=f"{program()} {name}", args=words)
    except SystemExit as stop:
        if stop.code and (guesses := _guesses(words, _help_of(bind))):
            print(f"Did you mean {', '.join(guesses)}?", file=sys.stderr)
        raise
    return command


def _load(place: str) -> Callable[..., Any]:
    module, _, attribute = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f"ds2_jax.{module}"), attribute)
    return function


def _help_of(function: Callable[..., Any]) -> str:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        tyro.cli(function, args=["--help"])
    return text.getvalue()


def _guesses(words: Sequence[str], text: str) -> list[str]:
    """Guesses the options that wrong words stand for: initials (--optim.lr), and names without dashes (epochs=3).

    tyro suggests options for other misspelt ones.

    Args:
        words: the words of the command line.
        text: the help text of the command, which lists all options.
    """
    options = list(dict.fromkeys(re.findall(r"--([a-z][a-z0-9.-]*[a-z0-9])", text)))
    found = []
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in options:
            section, _, last = name.rpartition(".")
            found += [
                option
                for option in options
                if option.startswith(section) and _initials(option.rpartition(".")[2]) == last
            ]
        elif "=" in word and not word.startswith("-"):
            found += difflib.get_close_matches(name, options, n=1, cutoff=0.8)
    return [f"--{option}" for option in dict.fromkeys(found)]


def _initials(name: str) -> str:
    return "".join(part[0] for part in name.split("-"))


def _named_config(words: Sequence[str]) -> Config | None:
    """Loads the configuration that the last --config names, before the options are read. It sets their defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?", type=Path)
    path = parser.parse_known_args(words)[0].config
    return None if path is None else load_config(path)


def _with_default(parameter: inspect.Parameter, config: Config) -> inspect.Parameter:
    """Sets the default of a parameter from `config`, if the parameter holds all settings or a section of them."""
    for settings in (config, getattr(config, parameter.name, None)):
        if type(settings) is type(parameter.default) and settings is not None:
            return parameter.replace(default=settings)
    return parameter

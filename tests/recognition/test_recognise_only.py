"""Recognition needs only the packages of requirements-recognise.txt, and says what else a command needs."""

import ast
import dataclasses
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

import ds2_jax
from ds2_jax import cli
from ds2_jax.config import Config
from ds2_jax.exchange.export import _write_own
from ds2_jax.model.update import TrainState
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.system.errors import InputError
from ds2_jax.system.packages import ALL, FILES, RECOGNISE, RECOGNISE_LM, explained
from tests.small_runs import RATE, SMALL_CONFIG, noise, some_state, write_untrained_run

ROOT = Path(__file__).resolve().parents[2]
STREAMING_CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    features=dataclasses.replace(SMALL_CONFIG.features, normalisation="running"),
    model=dataclasses.replace(SMALL_CONFIG.model, bidirectional=False, lookahead_context=3),
)
OPTIONAL = {
    *("apache_beam", "espeakng_loader", "fast_ctc_decode", "kenlm", "optuna", "sounddevice", "torch", "zstandard"),
    *("prometheus_client", "sentencepiece", "starlette", "uvicorn", "websockets"),
}
"""Packages that are not in requirements.txt. The modules that import them do without, or explain it themselves."""
ARPA = "\\data\\\nngram 1=3\n\n\\1-grams:\n-99\t<s>\n-1\t</s>\n-0.5\tGO\n\n\\end\\\n"
MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exported models, their runs without graphs, a short and a long recording, and a language model."""
    folder = tmp_path_factory.mktemp("recognise")
    for name, config in (("whole", SMALL_CONFIG), ("streaming", STREAMING_CONFIG)):
        state = lively_state(config)
        run = write_untrained_run(folder / f"run-{name}", config, state)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        _write_own(run, config, variables, folder / name, int8=False)  # without the proof, which compiles
    for name, seconds in (("short", 5), ("long", 65)):
        times = np.arange(seconds * RATE) / RATE
        soundfile.write(folder / f"{name}.wav", noise(seconds) * np.abs(np.sin(2 * times)), RATE)
    (folder / "go.arpa").write_text(ARPA)
    return folder


def lively_state(config: Config) -> TrainState:
    """Draws weights whose texts depend on the sound."""
    state = some_state(config)
    return dataclasses.replace(state, params=jax.tree.map(lambda leaf: 4 * leaf, state.params))


def recognised(folder: Path) -> list[list[str]]:
    """Lists commands that need requirements-recognise.txt."""
    short, whole, streaming = (str(folder / name) for name in ("short.wav", "whole", "streaming"))
    return [
        ["transcribe", whole, short, "--format", "json"],
        ["transcribe", streaming, short, "--format", "json"],
        ["transcribe", whole, str(folder / "long.wav"), "--format", "json"],
        ["transcribe", whole, short, "--format", "txt"],
        ["transcribe", whole, short, "--format", "srt"],
        ["transcribe", f"{whole}/model.onnx", short],
        ["live", streaming, short],
    ]


def decoded(folder: Path) -> list[list[str]]:
    """Lists commands that need requirements-recognise-lm.txt."""
    short, whole = str(folder / "short.wav"), str(folder / "whole")
    return [
        ["transcribe", whole, short, "--lm", str(folder / "go.arpa")],
        ["transcribe", whole, short, "--hot-word", "GO=3"],
        ["live", str(folder / "streaming"), short, "--num-best", "2"],
        ["align", whole, short, "GO"],
    ]


def unable(folder: Path) -> dict[str, list[str]]:
    """Maps what is said to be missing to commands that need requirements.txt."""
    short, whole = str(folder / "short.wav"), str(folder / "whole")
    return {
        "--engine jax, or a run without a graph for ONNX Runtime, must have the package jax": [
            *("transcribe", whole, short, "--engine", "jax")
        ],
        "A model without a graph for ONNX Runtime must have the package onnx": [
            "transcribe",
            str(folder / "run-whole"),
            short,
        ],
        "A .safetensors file must have the package safetensors": ["transcribe", f"{whole}/model.safetensors", short],
        "export must have the package jax": ["export", whole, "--out", str(folder / "again")],
        "evaluate must have the package ": ["evaluate", whole],
        "train must have the package jax": ["train", "--config", "an4_cpu", "--workdir", str(folder / "new")],
    }


def check_refused(results: Iterable[tuple[int, str, str]], messages: Iterable[str], file: str) -> None:
    for (code, out, error), message in zip(results, messages, strict=True):
        assert (code, out) == (1, ""), error
        assert error.startswith(f"error: {message}"), error
        found = re.fullmatch(
            r"error: .*, got an environment without it\. Install it: pip install -r (\S+?)(,.*)?\n", error
        )
        assert found is not None, error
        assert found[1] == file


def pinned(file: str) -> set[str]:
    """Returns the names of the distributions that a file of requirements pins, normalised."""
    text = (ROOT / file).read_text()
    names = {normalised(name) for name in re.findall(r"^([\w.-]+)==", text, flags=re.MULTILINE)}
    return names.union(*(pinned(other) for other in re.findall(r"^-r (\S+)", text, flags=re.MULTILINE)))


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_table_of_packages_agrees_with_the_requirements() -> None:
    assert pinned(RECOGNISE) < pinned(RECOGNISE_LM) < pinned(ALL)
    distributions = importlib.metadata.packages_distributions()
    for package, file in FILES.items():
        names = {normalised(name) for name in distributions[package]}
        assert names & pinned(file), package
        smaller = {RECOGNISE: set(), RECOGNISE_LM: pinned(RECOGNISE), ALL: pinned(RECOGNISE_LM)}[file]
        assert not names & smaller, package


def test_the_table_holds_every_package_that_is_imported() -> None:
    imported = set()
    for path in (ROOT / "ds2_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"ds2_jax"}
    assert packages == FILES.keys() | OPTIONAL


@pytest.mark.parametrize("file", [RECOGNISE, RECOGNISE_LM])
def test_the_smaller_files_pin_the_same_versions(file: str) -> None:
    lines = [line for line in (ROOT / file).read_text().splitlines() if line[0] not in "#-"]
    assert set(lines) < set((ROOT / ALL).read_text().splitlines())


def test_other_missing_modules_stay_errors_of_this_project() -> None:
    for name in ("ds2_jax.gone", "numbatic", None):
        with pytest.raises(ModuleNotFoundError), explained():
            raise ModuleNotFoundError("gone", name=name)
    with pytest.raises(InputError, match="must have the package numba, "), explained():
        raise ModuleNotFoundError("gone", name="numba.core.types")


def test_the_library_explains_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *_: object) -> None:
        raise ModuleNotFoundError("gone", name=name)

    recogniser = Recogniser(folder / "whole")
    monkeypatch.setattr(recogniser, "_log_probs", functools.partial(missing, "numba"))
    with pytest.raises(InputError, match=RECOGNISE_LM):
        recogniser.align(folder / "short.wav", "GO")
    monkeypatch.setattr("ds2_jax.runs.model.jax_engine", functools.partial(missing, "jax"))
    with pytest.raises(InputError, match=ALL):
        ds2_jax.load(folder / "whole", engine="jax")


PROGRAM = """
import contextlib, importlib, io, json, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent, commands = json.load(sys.stdin)
sys.meta_path.insert(0, Without())
import ds2_jax
from ds2_jax import cli

for command in cli.COMMANDS.values():  # as --help does
    importlib.import_module("ds2_jax." + command.place.partition(":")[0])
results = []
for words in commands:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        code = cli.main(words)
    results.append((code, out.getvalue(), error.getvalue()))
print(json.dumps(results))
"""


def run_without(absent: set[str], commands: Sequence[Sequence[str]]) -> list[tuple[int, str, str]]:
    """Runs commands in one process that cannot import some packages.

    Returns:
        Exit code, standard output and standard error of each.
    """
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([sorted(absent), commands]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return [(code, out, error) for code, out, error in json.loads(process.stdout)]


def test_recognition_needs_no_other_packages(folder: Path) -> None:
    """The child process can import nothing but what requirements-recognise.txt pins. Its texts are those of JAX."""
    distributions = importlib.metadata.packages_distributions()
    kept = pinned(RECOGNISE)
    absent = {package for package, names in distributions.items() if not {normalised(name) for name in names} & kept}
    heavy = {"jax", "jaxlib", "flax", "orbax", "tensorflow", "scipy", "numba", "optax", "librosa", "onnx", "ml_dtypes"}
    assert heavy < absent
    working, refused = [*recognised(folder)], unable(folder)
    results = run_without(absent, [*working, *decoded(folder), *refused.values()])
    for code, _, error in results[: len(working)]:
        assert code == 0, error
    for (_, out, _), words in zip(results[:3], working[:3], strict=True):
        row = json.loads(out)
        expected = Recogniser(Path(words[1]), engine="jax").transcribe(words[2])
        assert row["text"] == expected.text
        assert [(word["start"], word["end"]) for word in row["words"]] == [
            (round(word.start, 3), round(word.end, 3)) for word in expected.words
        ]
    assert len({json.loads(out)["text"] for _, out, _ in results[:3]}) == 3
    end = len(working) + len(decoded(folder))
    beam = "A language model, a hot word, beam search or align must have the package numba"
    check_refused(results[len(working) : end], [beam] * (end - len(working)), RECOGNISE_LM)
    check_refused(results[end:], refused, ALL)


def make_environment(folder: Path, file: str) -> Path:
    """Makes an environment that holds only the packages of a file, without pip. Returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "-r", file]
    subprocess.run(install, cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "check"], check=True)
    return python


def mebibytes(folder: Path) -> float:
    """Measures what the files of a folder take on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) / MIB


def run_in(python: Path, words: Sequence[object]) -> tuple[int, str, str]:
    """Runs a program in an environment. Returns exit code, standard output and standard error."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *map(str, words)]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return process.returncode, process.stdout, process.stderr


@pytest.mark.slow
def test_an_environment_for_recognition_alone(folder: Path, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", RECOGNISE)
    assert mebibytes(tmp_path / "env") < 200
    for words in [*recognised(folder), *([*name.split(), "--help"] for name in cli.COMMANDS), ["--help"]]:
        code, out, error = run_in(python, ["main.py", *words])
        assert code == 0, error
        assert out
    code, out, error = run_in(python, ["-c", LIBRARY, folder / "whole", folder / "long.wav"])
    assert code == 0, error
    assert out.strip() == Recogniser(folder / "whole", engine="jax").transcribe(folder / "long.wav").text
    refused = unable(folder)
    results = [run_in(python, ["main.py", *words]) for words in refused.values()]
    check_refused(results, refused, ALL)
    beam = "A language model, a hot word, beam search or align must have the package numba"
    results = [run_in(python, ["main.py", *words]) for words in decoded(folder)]
    check_refused(results, [beam] * len(results), RECOGNISE_LM)


LIBRARY = "import ds2_jax, sys; print(ds2_jax.load(sys.argv[1]).transcribe(sys.argv[2]).text)"


@pytest.mark.slow
def test_an_environment_for_language_models(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = make_environment(tmp_path / "env", RECOGNISE_LM)
    assert mebibytes(tmp_path / "env") < 400
    for words in [*recognised(folder)[:2], *decoded(folder)]:
        code, out, error = run_in(python, ["main.py", *words])
        assert code == 0, error
        assert cli.main(words) == 0
        assert out == capsys.readouterr().out
    refused = unable(folder)
    check_refused([run_in(python, ["main.py", *words]) for words in refused.values()], refused, ALL)

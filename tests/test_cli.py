"""The command line accepts what a user may type, and explains what is wrong."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from tests.small_runs import SMALL_CONFIG, noise, write_noise, write_noise_manifest, write_untrained_run

ROOT = Path(__file__).parent.parent
HEAVY = {"flax", "jax", "matplotlib", "numba", "orbax", "scipy", "tensorflow"}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A configuration file with the small model."""
    path = tmp_path / "small.py"
    path.write_text("from tests.small_runs import SMALL_CONFIG as config\n")
    return path


def run_cli(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Runs a command and returns the exit code and stderr; stdout must stay empty."""
    code = cli.main([str(word) for word in words])
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return code, " ".join(output.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("train", "[-h] [OPTIONS] "),
        ("evaluate", "[-h] [OPTIONS] RUN "),
        ("summary", "[-h] RUN [RUN ...] "),
        ("transcribe", "[-h] [OPTIONS] RUN AUDIO [AUDIO ...] "),
        ("align", "[-h] [OPTIONS] RUN AUDIO TEXT "),
        ("calibrate", "[-h] RUN [--manifest "),
        ("replay", "[-h] FILE [--run RUN]"),
        ("prepare", "CORPUS [--help] ..."),
        ("bench", "[-h] [OPTIONS] "),
    ],
)
def test_commands_have_help(command: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"usage: python main.py {command} {usage}" in output
    assert "(default: FILE)" not in output
    assert "(default: )" not in output


LOOKS_AT_MODULES = f"""
import contextlib, io, sys
from ds2_jax import cli
for name in cli.COMMANDS:
    for words in (["--help"], ["--no-such-option"]):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = cli.main([*name.split(), *words])
        print(name, code, *({HEAVY!r} & sys.modules.keys()), sep=",")
"""


def test_no_command_loads_much_before_its_options_are_right() -> None:
    """So each takes well below a second; with JAX, Numba or TensorFlow it would take two or more."""
    result = subprocess.run(
        [sys.executable, "-c", LOOKS_AT_MODULES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    expected = [f"{name},{code}" for name in cli.COMMANDS for code in (0, 1)]
    assert result.stdout.splitlines() == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train", "error: --config must name a configuration file, got none."),
        ("evaluate", "Folder of a training run, or a folder or file that export wrote. (required)"),
        ("transcribe", "Folder of a training run, a folder or file that export wrote, or spelling, the model in this"),
        ("prepare", "error: CORPUS must be one of an4,"),
    ],
)
def test_command_alone_says_what_is_missing(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = run_cli(capsys, command)
    assert code == 1
    assert message in output


def test_help_lists_every_setting_with_the_defaults_of_the_file(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--config", str(config_file), "--help"]) == 0
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for section in ("", "features", "data", "augment", "model", "optim"):
        settings = getattr(SMALL_CONFIG, section) if section else SMALL_CONFIG
        for field in dataclasses.fields(settings):
            if not dataclasses.is_dataclass(getattr(settings, field.name)):
                assert f"--{section}{'.' if section else ''}{field.name}".replace("_", "-") in output
    assert f"(default: {SMALL_CONFIG.model.hidden_size})" in output


def test_main_script_lists_the_commands() -> None:
    result = subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for command in ("train", "evaluate", "summary", "transcribe", "prepare", "bench"):
        assert f"  {command} " in result.stdout
    assert result.stderr == ""


def test_no_words_print_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 1
    assert capsys.readouterr().out.startswith("usage: python main.py")


def test_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(capsys, "trian") == (
        1,
        "error: COMMAND must be one of train, evaluate, score, summary, plot, transcribe, live, align, serve, "
        "calibrate, import, export, replay, prepare, data, lm, bench, got 'trian'. Did you mean train? See python "
        "main.py --help.",
    )


def test_unknown_tool_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(capsys, "lm", "tuen", "runs/an4") == (
        1,
        "error: TOOL must be one of build, tune, units, got 'tuen'. Did you mean tune? See python main.py lm --help.",
    )
    assert run_cli(capsys, "lm") == (
        1,
        "error: TOOL must be one of build, tune, units, got none. See python main.py lm --help.",
    )


@pytest.mark.parametrize("group", ["prepare", "data", "lm"])
def test_a_group_lists_its_commands(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([group, "--help"]) == 0
    output = capsys.readouterr().out
    members = [(name.split()[1], command.about) for name, command in cli.COMMANDS.items() if name.startswith(group)]
    assert members
    for member, about in members:
        assert re.search(rf"^  {member} +{re.escape(about)}$", output, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("called", "program"),
    [
        ("main.py", "python main.py"),
        ("/usr/bin/ds2-jax", "ds2-jax"),
        ("C:/Scripts/ds2-jax.exe", "ds2-jax"),
        ("/lib/ds2_jax/__main__.py", "python -m ds2_jax"),
    ],
)
def test_the_usage_names_what_was_called(
    called: str, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert cli.main(["--help"]) == 0
    assert cli.main(["bench", "--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: {program} [COMMAND] ...\n")
    assert f"usage: {program} bench [-h]" in output


def test_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, message = run_cli(capsys, "--config", "no.py")
    assert code == 1
    assert message.startswith(
        "error: --config must name a configuration file, got no.py, which does not exist. Known recipes: an4, "
    )
    code, message = run_cli(capsys, "--epochs", "3")
    assert code == 1
    assert message.startswith("error: --config must name a configuration file, got none.")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--model.hidden-sise", "3"], 1, "Perhaps you meant: --model.hidden-size INT"),
        (["--epochs", "many"], 1, "Error parsing --epochs: invalid literal for int() with base 10: 'many'"),
        (["--model.rnn-type", "lsd"], 1, "invalid choice 'lsd' for argument '--model.rnn-type'"),
        (["--epochs", "0"], 1, "error: epochs must be at least 1, got 0."),
        (["--model.dropout", "1"], 1, "error: model.dropout must be in [0, 1), got 1.0."),
        (["--data.batch-size", "0"], 1, "error: data.batch_size must be at least 1, got 0."),
        (
            ["--data.corpus", "an4", "--data.dev", "mine.jsonl"],
            1,
            "error: data.dev must be left out if data.corpus is 'an4', got 'mine.jsonl'. Add --data.corpus None to",
        ),
        ([], 1, "error: data.train must be set, got None. Give a manifest, or a data.corpus."),
    ],
)
def test_wrong_settings_are_named(
    config_file: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    actual, text = run_cli(capsys, "--config", config_file, *words, "--workdir", config_file.parent / "run")
    assert actual == code
    assert message in text
    assert not (config_file.parent / "run").exists()


def train_on(capsys: pytest.CaptureFixture[str], config_file: Path, manifest: Path) -> str:
    workdir = config_file.parent / "run"
    code, message = run_cli(capsys, "--config", config_file, "--data.train", manifest, "--workdir", workdir)
    assert code == 1
    return message


def test_bad_manifests_are_named(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "train.jsonl"
    message = train_on(capsys, config_file, manifest)
    assert f"error: data.train {manifest} must be a readable file, got: No such file or directory." in message
    manifest.touch()
    message = train_on(capsys, config_file, manifest)
    assert f"error: {manifest} must hold at least one utterance, got 'an empty manifest'." in message
    manifest.write_text("{")
    assert f"error: {manifest}, line 1 must be a JSON object, got '{{'." in train_on(capsys, config_file, manifest)


def test_bad_utterances_are_named(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_noise_manifest(tmp_path / "data", ("GO", "ÉTÉ", "NO"), name="train")
    (tmp_path / "data/train2.wav").unlink()
    message = train_on(capsys, config_file, manifest)
    assert f"error: {manifest} must hold only usable utterances, got 2 of 3 that are not: " in message
    assert "1 unknown characters" in message
    assert "1 missing audio" in message
    assert "leave them out with --data.on-bad-utterance skip" in message
    assert "train2.wav does not exist" in message


def test_last_config_counts(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = run_cli(capsys, "--config", "no.py", "--config", config_file)
    assert (code, message[:31]) == (1, "error: data.train must be set, ")


def write_bad_audio(folder: Path, kind: str) -> Path:
    path = write_noise(folder / f"{kind}.wav")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "empty file":
        path.write_bytes(b"")
    elif kind == "zero length":
        soundfile.write(path, np.zeros(0, np.float32), 16_000)
    elif kind == "NaN":
        samples = noise(0.5)
        samples[7] = np.nan
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("runs") / "run", SMALL_CONFIG)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("truncated", "truncated.wav must"),
        ("empty file", "empty file.wav must"),
        ("zero length", "zero length.wav must"),
        ("NaN", "NaN.wav must"),
    ],
)
def test_bad_audio_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, rule: str
) -> None:
    code, message = run_cli(capsys, "transcribe", run, write_bad_audio(tmp_path, kind))
    assert code == 1
    assert rule in message
    assert "0 files" in message
    assert "1 file failed" in message


@pytest.mark.parametrize("command", ["evaluate", "transcribe"])
def test_missing_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    words = [write_noise(tmp_path / "a.wav")] if command == "transcribe" else []
    assert run_cli(capsys, command, tmp_path / "no", *words) == (
        1,
        "error: RUN must be the folder of a training run, a folder or file that export wrote, or spelling, got "
        f"{tmp_path / 'no'}, where there is nothing.",
    )
    code, message = run_cli(capsys, command)
    assert code == 1
    assert "Folder of a training run, " in message


def test_missing_audio_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "no.wav"
    assert run_cli(capsys, "transcribe", run, missing) == (
        1,
        f"error: AUDIO must be a file or folder, got {missing}, which does not exist. Correct the path.",
    )
    assert run_cli(capsys, "transcribe", run)[0] > 0


def test_unknown_corpus_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, message = run_cli(capsys, "prepare", "timit")
    assert code == 1
    assert message.startswith("error: CORPUS must be one of an4,")
    assert message.endswith("got 'timit'. See python main.py prepare --help.")


def test_prepare_prints_the_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[object] = []

    def prepare(root: Path, archive: Path) -> Path:
        asked.extend((root, archive))
        return Path("data/an4")

    monkeypatch.setattr("ds2_jax.corpora.an4.prepare", prepare)
    assert cli.main(["prepare", "an4", "--root", "data", "--archive", "an4.tar.gz"]) == 0
    assert asked == [Path("data"), Path("an4.tar.gz")]
    assert capsys.readouterr().out == "data/an4\n"


@pytest.mark.parametrize("platform", ["cuda", pytest.param("nonsense", marks=pytest.mark.slow)])
def test_a_platform_that_is_not_there_is_one_line(platform: str, config_file: Path, tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path)
    words = ["--config", str(config_file), "--data.train", str(manifest), "--workdir", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "main.py", *words],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"error: JAX_PLATFORMS must name what JAX finds here, got {platform!r}: "
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (("--optim.lr", "1"), "--optim.learning-rate"),
        (("--lr=1",), "--optim.learning-rate"),
        (("--optim.wd", "1"), "--optim.weight-decay"),
        (("epoch=3",), "--epochs"),
        (("data.batch_size=3",), "--data.batch-size"),
    ],
)
def test_abbreviated_options_get_a_suggestion(
    config_file: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], guess: str
) -> None:
    code, message = run_cli(capsys, "--config", config_file, *words)
    assert code == 1
    assert message.endswith(f"Did you mean {guess}?")

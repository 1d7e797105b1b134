"""With the cache a second start compiles nothing, and a bad cache never stops a command."""

import dataclasses
import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ds2_jax.config import to_json
from ds2_jax.system import compilation
from tests.small_runs import SMALL_CONFIG, with_manifests, write_noise, write_noise_manifest, write_untrained_run

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
TIMES = ("per_hour", "seconds")
COUNTING = """\
import json, sys
from collections import Counter
import jax
from ds2_jax.cli import main
events = Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: events.update([event]))
code = main(sys.argv[1:])
wanted, loaded = events["/jax/core/compile/backend_compile_duration"], events["/jax/compilation_cache/cache_hits"]
print(json.dumps({"wanted": wanted, "compiled": wanted - loaded}), file=sys.stderr)
sys.exit(code)
"""


@dataclasses.dataclass(frozen=True)
class Start:
    """The output of a finished command, the programs that it needed, and how many of them it compiled."""

    output: str
    errors: str
    wanted: int
    compiled: int


def begin(cache: Path, *words: object) -> Callable[[], Start]:
    """Starts a command in its own process. The returned function waits for its end."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING, *map(str, words)],
        cwd=ROOT,
        env=environment | {"XDG_CACHE_HOME": str(cache), "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def finish() -> Start:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        return Start(output, errors, **json.loads(errors.splitlines()[-1]))

    return finish


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_second_start_of_training_compiles_nothing_and_gives_the_same_bits(tmp_path: Path) -> None:
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path / "data"))
    (tmp_path / "small.py").write_text(
        f"from ds2_jax.config import from_json\nconfig = from_json({to_json(config)!r})\n"
    )
    first, second = (
        begin(tmp_path / "cache", "--config", tmp_path / "small.py", "--workdir", tmp_path / name)()
        for name in ("compiled", "loaded")
    )
    assert first.wanted == first.compiled > 2
    assert (second.wanted, second.compiled) == (first.wanted, 0)
    compiled, loaded = (
        [
            {name: value for name, value in json.loads(line).items() if not name.endswith(TIMES)}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("compiled", "loaded")
    )
    assert len(compiled) == 2 * config.epochs + 1  # steps, epochs, the test split
    assert loaded == compiled
    folders = [tmp_path / "cache/ds2_jax", *(tmp_path / "cache/ds2_jax").rglob("*/")]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert f"jax-{jax.__version__}" in folders[-1].name
    assert folders[-1].parent.name == compilation.machine_type()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "transcribe"])
def test_second_start_compiles_nothing_even_when_two_first_ones_ran_at_once(command: str, tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path / "data")
    run = write_untrained_run(tmp_path / "run", SMALL_CONFIG)
    words = (
        [write_noise(tmp_path / "one.wav"), "--engine", "jax"] if command == "transcribe" else ["--manifest", manifest]
    )
    both = [begin(tmp_path / "cache", command, run, *words) for _ in range(2)]
    first, other = (finish() for finish in both)
    later = begin(tmp_path / "cache", command, run, *words)()
    assert first.compiled > 0
    assert (later.wanted, later.compiled) == (first.wanted, 0)
    assert first.output == other.output == later.output
    assert "cache" not in later.errors


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets JAX's settings as in a new process of a user whose cache is in `tmp_path`. They are restored afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = {name: jax.config.values[name] for name in SETTINGS}
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def enabled() -> str | None:
    compilation.enable_cache()
    folder = jax.config.values["jax_compilation_cache_dir"]
    return str(folder) if folder else None


def compile_something() -> None:
    """Compiles or loads a program and checks its result."""
    jax.clear_caches()
    assert jax.jit(lambda x: (x * 3).sum())(jnp.arange(4)) == 18


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the line that says why there is no cache, and checks that a program compiles without it."""
    assert enabled() is None
    compile_something()
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("compiling without a cache: ")
    return line


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_folder_that_others_can_write_is_not_used(
    settings: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int
) -> None:
    folder = tmp_path / "ds2_jax"
    folder.mkdir()
    folder.chmod(mode)
    rule = f"{folder} must belong to you and be writable by nobody else, got owner {os.getuid()} and mode {mode:o}."
    assert rule in refused(capsys)
    assert not files_below(tmp_path)


def test_folder_of_another_user_is_not_used(
    settings: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ds2_jax").mkdir(mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert f"got owner {owner} and mode 700." in refused(capsys)
    assert not files_below(tmp_path)


def test_inner_folder_is_checked_too(settings: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(enabled() or "")
    folder.chmod(0o777)
    jax.config.update("jax_compilation_cache_dir", None)
    assert f"{folder} must belong to you" in refused(capsys)


def test_folder_that_cannot_be_made_is_done_without(
    settings: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert str(tmp_path / "file") in refused(capsys)


def test_user_without_a_home_does_without(
    settings: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/does/not/count")
    assert "Could not determine home directory. " in refused(capsys)


def test_full_disk_is_noticed_before_the_first_program(
    settings: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert "No space left on device" in refused(capsys)


def test_home_holds_the_cache_by_default(settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Path(enabled() or "").is_relative_to(tmp_path / "home/.cache/ds2_jax")


def test_users_own_settings_are_kept(settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    assert enabled() == str(tmp_path / "mine")
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 7
    assert jax.config.values["jax_persistent_cache_min_entry_size_bytes"] == -1
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_compilation_cache_dir", None)
    assert enabled() is None
    assert not (tmp_path / "ds2_jax").exists()


def test_entry_cut_off_is_compiled_anew_and_mended_at_the_next_start(settings: None, tmp_path: Path) -> None:
    folder = Path(enabled() or "")
    compile_something()
    (entry, *others) = sorted(folder.iterdir(), key=lambda path: "lambda" not in path.name)
    whole = entry.stat().st_size
    entry.write_bytes(entry.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry"):
        compile_something()
    assert entry.stat().st_size == whole - 10  # JAX does not change it
    jax.config.update("jax_compilation_cache_dir", None)  # as a new process would find it
    enabled()
    assert set(files_below(tmp_path)) == set(others)
    compile_something()
    assert entry.exists()
    compile_something()  # warnings are errors, so there is no warning


def test_longest_unused_entries_leave_when_there_are_too_many(
    settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ds2_jax/machine/version"
    folder.mkdir(parents=True, mode=0o700)
    for name, day in (("old", 1), ("used", 3), ("new", 2)):
        path = folder / f"jit_{name}-cache"
        path.write_bytes(b"(\xb5" + bytes(98))  # begins like Zstandard, but is not opened
        os.utime(path, (day * 86_400, 86_400))
    (folder / "of-another-kind").write_bytes(bytes(1_000))
    monkeypatch.setattr(compilation, "MAX_BYTES", 250)
    enabled()
    assert [path.name for path in files_below(tmp_path)] == ["jit_new-cache", "jit_used-cache", "of-another-kind"]

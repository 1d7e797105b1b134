"""A file is read once and then loaded from the cache. The cache never makes a model wrong or stops a command."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.ngram import cache
from ds2_jax.decoding.ngram.arpa import Arpa, read_arpa
from ds2_jax.decoding.ngram.cache import Contents, read_through_cache
from tests.golden.ngram_inputs import HAND

ROOT = Path(__file__).parents[3]
LOADING = """\
import pathlib, sys
from ds2_jax.decoding.ngram.model import load
print(load(pathlib.Path(sys.argv[1])).score('THE CAT'))
"""
MEASURING = """\
import pathlib, re, sys, time
import ds2_jax.decoding.ngram.model
start = time.process_time()
model = ds2_jax.decoding.ngram.model.load(pathlib.Path(sys.argv[1]))
seconds = time.process_time() - start
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(len(model.arrays.words), seconds, int(peak[1]) / 2**20)
"""
"""Prints the number of nodes, the CPU seconds of loading and the process's peak memory in gigabytes, on Linux."""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.arpa"
    path.write_text(HAND)
    return path


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Records the ARPA files that are read."""
    paths: list[Path] = []

    def counted(path: Path) -> Arpa:
        paths.append(path)
        return read_arpa(path)

    monkeypatch.setattr(cache, "read_arpa", counted)
    return paths


def entries(model: Path) -> list[Path]:
    return sorted(model.parent.glob("cache/ds2_jax/ngrams/*"))


def assert_same(left: Contents, right: Contents) -> None:
    assert left[0] == right[0]
    for one, other in zip((*left[1], left[2]), (*right[1], right[2]), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_second_time_loads_the_same(model: Path, readings: list[Path]) -> None:
    first, second = read_through_cache(model), read_through_cache(model)
    assert_same(first, second)
    assert readings == [model]
    assert all(array.flags.aligned for array in (*second[1], second[2]))


def test_a_copy_of_the_file_uses_the_same_entry_and_a_change_makes_another(model: Path, readings: list[Path]) -> None:
    read_through_cache(model)
    copy = model.with_name("copy.arpa")
    copy.write_text(HAND)
    read_through_cache(copy)
    assert readings == [model]
    copy.write_text(HAND.replace("-0.0625\t<s>", "-0.125\t<s>"))
    assert read_through_cache(copy)[1].log10[-1] == -0.125
    assert readings == [model, copy]
    assert len(entries(model)) == 2


def test_a_model_without_words(model: Path, readings: list[Path]) -> None:
    model.write_text("\\data\\\nngram 1=2\n\\1-grams:\n-1\t<s>\n-1\t</s>\n\\end\\\n")
    first, second = read_through_cache(model), read_through_cache(model)
    assert first[0] == second[0] == ()
    assert_same(first, second)


@given(position=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255) | st.none())
def test_a_damaged_or_cut_entry_is_made_anew(
    position: float, change: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("damage")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        model = folder / "model.arpa"
        model.write_text(HAND)
        whole = read_through_cache(model)
        (entry,) = entries(model)
        content = bytearray(entry.read_bytes())
        place = int(position * len(content))
        if change is None:
            entry.write_bytes(content[:place])
        else:
            content[place] ^= change
            entry.write_bytes(content)
        assert cache._read(entry) is None
        assert_same(read_through_cache(model), whole)
        assert cache._read(entry) is not None


def test_an_entry_of_another_version_is_not_used(
    model: Path, readings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_through_cache(model)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    read_through_cache(model)
    assert len(readings) == 2
    old, new = entries(model)
    new.write_bytes(old.read_bytes())  # intact, but under another file's name
    read_through_cache(model)
    assert len(readings) == 3


def test_without_a_place_for_the_cache_it_goes_on(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_through_cache(model)
    monkeypatch.setenv("XDG_CACHE_HOME", str(model))  # a file
    assert_same(read_through_cache(model), expected)
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"reading the language model without a cache: .*File exists.*\. Set XDG_CACHE_HOME to another folder\.\n", said
    )

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert_same(read_through_cache(model), expected)
    said = capsys.readouterr().err
    assert said == (
        "reading the language model without a cache: Could not determine home directory. "
        "Set XDG_CACHE_HOME to another folder.\n"
    )


def test_a_cache_that_others_could_write_is_not_read(
    model: Path, readings: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The arrays contain indices into each other, which the inner loops trust."""
    expected = read_through_cache(model)
    [entry] = entries(model)
    assert stat.S_IMODE(entry.parent.stat().st_mode) == 0o700
    entry.parent.chmod(0o777)
    entry.write_bytes(b"")
    assert_same(read_through_cache(model), expected)
    assert len(readings) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"reading the language model without a cache: {entry.parent} must belong to you and be")
    assert entry.read_bytes() == b""


def test_an_entry_that_cannot_be_written_whole_leaves_nothing(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    read_through_cache(model)
    assert "without a cache: [Errno 28] No space left on device. Set XDG" in capsys.readouterr().err
    assert entries(model) == []


def test_a_file_that_changes_while_it_is_read_is_not_stored(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changing(path: Path) -> Arpa:
        arpa = read_arpa(path)
        path.write_text(HAND + "\n")
        return arpa

    monkeypatch.setattr(cache, "read_arpa", changing)
    read_through_cache(model)
    assert entries(model) == []


def test_only_the_user_can_write_to_it(model: Path) -> None:
    before = os.umask(0)
    try:
        read_through_cache(model)
    finally:
        os.umask(before)
    (entry,) = entries(model)
    assert [place.stat().st_mode & 0o777 for place in (entry.parent, entry.parent.parent)] == [0o700, 0o700]


def test_processes_side_by_side(model: Path) -> None:
    command = [sys.executable, "-c", LOADING, str(model)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {process.communicate()[0] for process in processes} == {"-1.0\n"}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(entries(model)) == 1


@pytest.mark.slow
def test_four_million_ngrams(model: Path) -> None:
    """The project promises less than 10 s from the cache and less than 1 GB. The first read has a limit too."""
    counts = (200_000, 1_500_000, 2_300_000)
    names = ["<s>", "</s>", "<unk>", *(f"word{number}" for number in range(counts[0] - 3))]
    rows = np.unique(np.random.default_rng(0).integers(3, counts[0], (counts[1] + 1000, 2), dtype=np.int32), axis=0)
    pairs = [f"{names[first]} {names[second]}" for first, second in rows[: counts[1]].tolist()]
    with model.open("w") as file:
        file.write("\\data\\\n" + "".join(f"ngram {order}={count}\n" for order, count in enumerate(counts, start=1)))
        file.write("\\1-grams:\n" + "".join(f"-{1 + len(name) / 7:.6f}\t{name}\t-0.25\n" for name in names))
        file.write("\\2-grams:\n" + "".join(f"-1.234567\t{pair}\t-0.3010\n" for pair in pairs))
        triples = (
            f"-0.7654321\t{pairs[number // 2]} {names[3 + number % (counts[0] - 3)]}\n" for number in range(counts[2])
        )
        file.write("\\3-grams:\n" + "".join(triples) + "\\end\\\n")
    for most_seconds, most_gigabytes in ((60, 2), (10, 1)):
        command = [sys.executable, "-c", MEASURING, str(model)]
        printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        nodes, seconds, gigabytes = map(float, printed.split())
        assert nodes == 1 + sum(counts)
        assert seconds < most_seconds
        assert gigabytes < most_gigabytes

"""Counts that can be counted by hand."""

from pathlib import Path

import pytest

from ds2_jax import cli
from ds2_jax.curation.stats import column_names, describe, quantiles, read_manifests
from ds2_jax.data.manifest import Utterance, write_manifest
from ds2_jax.system.errors import InputError

ROWS = [
    Utterance(Path("/a.wav"), 1.0, "YES  NO", "a", "ann"),
    Utterance(Path("/b.wav"), 2.0, "YES", "b", "bob"),
    Utterance(Path("/c.wav"), 3.0, "E\u0301", "c"),
]


def test_counts() -> None:
    assert describe(ROWS) == {
        "utterances": "3",
        "hours": "0.00",
        "speakers": "2",
        "  utterances without one": "1",
        "words": "4",
        "  a minute": "40",
        "  different": "3",
        "characters": "11",
        "  different ones": "7",  # Y E S N O, the space, and É as one
        "duration, s": "",
        "  least": "1.00",
        "  1 %": "1.02",
        "  10 %": "1.20",
        "  median": "2.00",
        "  90 %": "2.80",
        "  99 %": "2.98",
        "  most": "3.00",
    }


def test_nothing_is_no_number() -> None:
    assert set(quantiles([float("nan")]).values()) == {"-"}
    assert describe([Utterance(Path("/a.wav"), 0.0, "A", "a")])["  a minute"] == "-"


def test_manifests_are_columns_beside_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "a.jsonl", ROWS[:2])
    write_manifest(tmp_path / "b.jsonl", ROWS[2:])
    assert cli.main(["data", "stats", f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["a.jsonl", "b.jsonl", "all"]
    assert lines[1].split() == ["utterances", "2", "1", "3"]
    assert lines[-1].split() == ["most", "2.00", "3.00", "3.00"]


def test_equal_names_give_way_to_paths() -> None:
    assert column_names([Path("a/x"), Path("b/y")]) == ["x", "y"]
    assert column_names([Path("a/x"), Path("b/x")]) == ["a/x", "b/x"]


def test_a_manifest_named_twice_is_a_slip(tmp_path: Path) -> None:
    write_manifest(tmp_path / "a.jsonl", ROWS)
    path = tmp_path / "a.jsonl"
    with pytest.raises(InputError) as error:
        read_manifests([path, tmp_path / "." / "a.jsonl"])
    assert str(error.value) == f"Each manifest must be named once, got {path} 2 times. Name it once."
    with pytest.raises(InputError) as error:
        read_manifests([])
    assert str(error.value) == "MANIFEST must name at least one file, got none. Add it."

"""corpora/build.py: what a stopped run leaves, a journal of finished work, items in parallel."""

import contextlib
import threading
from pathlib import Path

import pytest

from ds2_jax.corpora.build import ITEMS_AHEAD, Journal, begin, building, in_parallel
from ds2_jax.errors import InputError

SOURCE = {"release": 2, "language": "fr"}


def leave(folder: Path, source: dict[str, object] | None) -> None:
    """A run that was stopped after it had said what it works on."""
    with contextlib.suppress(KeyboardInterrupt), building(folder, source) as partial:
        begin(partial, SOURCE)
        (partial / "work").touch()
        raise KeyboardInterrupt


def test_what_a_stopped_run_left_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path / "corpus", SOURCE)
    capsys.readouterr()
    with building(tmp_path / "corpus", {"release": 2}) as partial:  # a source that says less says nothing else
        assert (partial / "work").exists()
        assert partial == tmp_path / "corpus.partial"
    assert capsys.readouterr().err == f"{partial}: going on with what a stopped run left\n"


@pytest.mark.parametrize("source", [{"release": 3}, {"release": 2, "speakers": 5}, None])
def test_what_another_run_left_is_deleted(tmp_path: Path, source: dict[str, object] | None) -> None:
    leave(tmp_path / "corpus", SOURCE)
    with building(tmp_path / "corpus", source) as partial:
        assert not partial.exists()


def test_what_says_nothing_of_its_source_is_deleted(tmp_path: Path) -> None:
    leave(tmp_path / "corpus", None)
    assert list(tmp_path.iterdir()) == []
    for content in ("", "[]", "{"):
        leave(tmp_path / "corpus", SOURCE)
        (tmp_path / "corpus.partial/source.json").write_text(content)
        with building(tmp_path / "corpus", SOURCE) as partial:
            assert not partial.exists()


def fail() -> float:
    raise AssertionError("done twice")


def test_journal_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        assert journal.once("a", lambda: 1.5) == journal.once("a", fail) == 1.5
        assert "a" in journal
        assert "b" not in journal
    with Journal(path) as journal:
        assert journal.once("a", fail) == 1.5
        assert journal.once("b\n\u2028\x85", lambda: "no é") == "no é"
    with Journal(path) as journal:
        assert journal.once("b\n\u2028\x85", fail) == "no é"


def test_journal_cut_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1.5}\n{"b": 12')
    with Journal(path) as journal:
        assert journal.once("a", fail) == 1.5
        assert journal.once("b", lambda: 123.5) == 123.5
    assert path.read_text() == '{"a": 1.5}\n{"b": 123.5}\n'


def test_journal_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no/journal\.jsonl must be writable, got: No such file"):
        Journal(tmp_path / "no/journal.jsonl")


def test_items_in_parallel_keep_their_order() -> None:
    count = 3 * ITEMS_AHEAD
    assert in_parallel(range(count), lambda item: -item, title="x", unit="y") == [-item for item in range(count)]


def test_an_error_ends_the_work() -> None:
    done: list[int] = []
    failed = threading.Event()

    def make(item: int) -> int:
        if item == 1:
            failed.set()
            raise InputError("no")
        assert failed.wait(10)
        done.append(item)
        return item

    with pytest.raises(InputError, match="no"):
        in_parallel(range(10 * ITEMS_AHEAD), make, title="x", unit="y", num_workers=2)
    assert len(done) < 2 * ITEMS_AHEAD

"""Files are written completely or not at all."""

import gzip
import io
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.system.caches import cache_folder, private_folder
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import search, write_text, writing
from ds2_jax.system.inflate import INFLATED_AT_LEAST, inflate


def test_text_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a/b.txt"
    for text in ("one\n", "été\n"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert list(path.parent.iterdir()) == [path]


def test_stop_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with pytest.raises(InputError) as caught, writing(path):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == (
        f"{path} must be writable, got: No space left on device. Free space, or correct the path or its permissions."
    )


def test_a_gzip_file_of_any_size_is_inflated() -> None:
    lines = np.random.default_rng(0).bytes(10_000).hex(sep="\n").encode()
    packed = gzip.compress(lines) + gzip.compress(b"another member")
    with inflate(io.BytesIO(packed)) as content:
        assert content.readline() == lines[:3]
        assert content.read() == lines[3:] + b"another member"
    zeros = gzip.compress(bytes(INFLATED_AT_LEAST))
    assert len(zeros) * 50 < INFLATED_AT_LEAST
    assert sum(map(len, inflate(io.BytesIO(zeros)))) == INFLATED_AT_LEAST


def test_a_gzip_bomb_is_not_inflated() -> None:
    bomb = gzip.compress(bytes(2 * INFLATED_AT_LEAST))
    sizes: list[int] = []
    with (
        inflate(io.BytesIO(bomb)) as content,
        pytest.raises(gzip.BadGzipFile, match=r"^over 50 bytes of content for each"),
    ):
        sizes.extend(len(block) for block in iter(lambda: content.read(2**16), b""))
    assert INFLATED_AT_LEAST / 2 < sum(sizes) <= INFLATED_AT_LEAST + 50 * len(bomb)


@pytest.mark.parametrize("damage", [slice(0, -9), slice(0, 5)])
def test_a_gzip_file_cut_short(damage: slice) -> None:
    with inflate(io.BytesIO(gzip.compress(bytes(1000))[damage])) as content, pytest.raises(EOFError):
        content.read()


def modes(*folders: Path) -> set[int]:
    return {stat.S_IMODE(folder.stat().st_mode) for folder in folders}


def test_a_cache_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = cache_folder("some")
    assert folder == tmp_path / "cache/ds2_jax/some"
    assert modes(folder, folder.parent) == {0o700}
    folder.chmod(0o755)  # older versions made it so
    assert modes(cache_folder("some")) == {0o700}


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_could_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some").chmod(mode)
    message = f"{tmp_path / 'some'} must belong to you and be writable by nobody else, got owner {os.getuid()} and mode"
    with pytest.raises(InputError, match=f"^{re.escape(message)} {mode:o}\\.$"):
        private_folder(tmp_path / "some")
    assert modes(tmp_path / "some") == {mode}


def test_a_cache_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(
        InputError, match=r"must belong to you and be writable by nobody else, got owner \d+ and mode 700"
    ):
        private_folder(tmp_path / "some")


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_below(top: Path) -> list[str]:
    return [path.relative_to(top).as_posix() for path in search(top)]


def test_search_passes_over_what_is_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "top", "b", ".a", "x/d", "x/.y/e", "a/c", ".hidden/f")
    assert names_below(tmp_path / "top") == ["b", "a/c", "x/d"]
    assert capsys.readouterr().err == f"{tmp_path}/top: 3 hidden files ignored\n"
    assert names_below(tmp_path / "top/.hidden") == ["f"]  # the folder was named by the caller
    assert capsys.readouterr().err == ""


def test_search_follows_links_to_folders_once(tmp_path: Path) -> None:
    make(tmp_path, "top/b", "top/x/d", "far/f", "far/deep/g")
    (tmp_path / "top/a").symlink_to(tmp_path / "top/x")  # found first, but the folder's own name counts
    (tmp_path / "top/far").symlink_to(tmp_path / "far")
    (tmp_path / "top/x/again").symlink_to(tmp_path / "far/deep")
    assert names_below(tmp_path / "top") == ["b", "x/d", "far/f", "far/deep/g"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "top/b", "beside/c", "far/f")
    for link, target in (("top/self", "top"), ("top/up", "."), ("top/far", "far"), ("far/back", "top")):
        (tmp_path / link).symlink_to(tmp_path / target)
    assert names_below(tmp_path / "top") == ["b", "far/f"]
    (tmp_path / "link").symlink_to(tmp_path / "top")
    assert names_below(tmp_path / "link") == ["b", "far/f"]


def test_search_names_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        search(tmp_path / "gone")
    rule = "must be readable, got: No such file or directory. Correct the permissions and try again."
    assert str(error.value) == f"{tmp_path / 'gone'} {rule}"

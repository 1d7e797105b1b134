"""Unpacking against damaged and hostile archives."""

import gc
import gzip
import hashlib
import io
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds2_jax.corpora import archive as archive_lib
from ds2_jax.corpora.archive import BadArchiveError, extract, fingerprint
from ds2_jax.system.download import file_sha256
from ds2_jax.system.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(CONTENT).hexdigest()


def make_archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def test_extract(tmp_path: Path) -> None:
    executable = member("a/b/c.txt")
    executable.mode, executable.uid = 0o4777, 12345
    archive = make_archive(tmp_path / "a.tar.gz", [(member("a", tarfile.DIRTYPE), b""), (executable, CONTENT)])
    extract(archive, tmp_path / "out")
    unpacked = tmp_path / "out/a/b/c.txt"
    assert unpacked.read_bytes() == CONTENT
    assert unpacked.stat().st_mode & 0o7777 == 0o755  # neither set-uid nor writable by all


def test_unpacking_that_takes_time_shows_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", [(member("a"), CONTENT)])
    extract(archive, tmp_path / "quick")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(archive_lib, "SECONDS_BEFORE_BAR", 0.0)
    extract(archive, tmp_path / "out")
    assert "unpacking a.tar.gz: 100%" in capsys.readouterr().err
    extract(archive, tmp_path / "silent", shows_bar=False)
    assert capsys.readouterr().err == ""


null_in_name = member("a")
null_in_name.pax_headers = {"path": "a\0b"}
HOSTILE = [
    (null_in_name, "file 'a\\x00b'"),
    (member("/absolute"), "file '/absolute'"),
    (member("../outside"), "file '../outside'"),
    (member("a/../../outside"), "file 'a/../../outside'"),
    (member("..", tarfile.DIRTYPE), "file '..'"),
    (member("link", tarfile.SYMTYPE, "/etc/passwd"), "link or device 'link'"),
    (member("link", tarfile.SYMTYPE, ".."), "link or device 'link'"),
    (member("link", tarfile.LNKTYPE, "../secret"), "link or device 'link'"),
    (member("link", tarfile.LNKTYPE, "fine"), "link or device 'link'"),
    (member("pipe", tarfile.FIFOTYPE), "link or device 'pipe'"),
    (member("disk", tarfile.BLKTYPE), "link or device 'disk'"),
    (member("null", tarfile.CHRTYPE), "link or device 'null'"),
]


@pytest.mark.parametrize(("hostile", "name"), HOSTILE, ids=[name for _, name in HOSTILE])
def test_hostile_archives_write_nothing_outside(tmp_path: Path, hostile: tarfile.TarInfo, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    archive = make_archive(
        tmp_path / "a.tar.gz",
        [(member("fine"), b"fine"), (hostile, b""), (member("link/through"), b"x")],
    )
    before = set(tmp_path.rglob("*"))
    message = (
        f"{archive} must hold only files and folders with relative paths without .., got the {name}. Do "
        "not use this archive."
    )
    with pytest.raises(BadArchiveError, match=f"^{re.escape(message)}$"):
        extract(archive, tmp_path / "out" / "in")
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "out", tmp_path / "out/in", tmp_path / "out/in/fine"}
    assert (tmp_path / "secret").read_bytes() == b"secret"


def packed(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(data, compresslevel=1))
    return path


def with_header(kind: bytes, size: bytes) -> bytes:
    """Makes a tar file of one member with the given kind and size (12 bytes, as GNU writes them)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("a"))
    header = bytearray(file.getvalue())
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", [b"0", b"S", b"?"])
@pytest.mark.parametrize("choose", [None, lambda member: None], ids=["all", "none"])
def test_a_member_that_claims_more_than_the_archive_can_hold(tmp_path: Path, kind: bytes, choose: Any) -> None:
    """tarfile would read on after the end of the archive, 10 KiB at a time, without end."""
    archive = packed(tmp_path, with_header(kind, b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7))
    message = (
        f"^{archive} must unpack to at most {2**25 + 50 * archive.stat().st_size:,} bytes, but a header states more"
    )
    with pytest.raises(BadArchiveError, match=message):
        extract(archive, tmp_path / "out", choose)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", [(member("fine"), b"x"), (member("bomb"), bytes(2**26))])
    with pytest.raises(BadArchiveError, match=f"^{archive} must (be an undamaged|unpack to at most)"):
        extract(archive, tmp_path / "out")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 2**25 + 60 * archive.stat().st_size


@pytest.mark.parametrize("headers", [{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, {"mtime": "9" * 30}])
def test_headers_that_tarfile_does_not_check(tmp_path: Path, headers: dict[str, str]) -> None:
    odd = member("a")
    odd.pax_headers = headers
    archive = make_archive(tmp_path / "a.tar.gz", [(odd, b"")])
    with pytest.raises(BadArchiveError, match=f"^{archive} must be an undamaged .tar.gz archive, got a bad header \\("):
        extract(archive, tmp_path / "out")


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no\.tar\.gz must be a file, got a folder or nothing at this path\. Correct the path\.$"
    ):
        extract(tmp_path / "no.tar.gz", tmp_path / "out")


def damage(data: bytes, how: str) -> bytes:
    if how == "not gzip":
        return b"<html>Please log in</html>"
    if how == "not tar":
        return gzip.compress(b"hello world" * 100)
    if how == "empty":
        return b""
    if how == "flipped bit":
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    if how == "invalid block":
        deflate = zlib.compressobj(wbits=31)
        whole_blocks = deflate.compress(gzip.decompress(data)[:100_000]) + deflate.flush(zlib.Z_FULL_FLUSH)
        return whole_blocks + b"\x07"  # type 3 does not exist
    if how == "wrong checksum":
        return data[:-8] + bytes(4) + data[-4:]
    return data[: int(len(data) * float(how))]


@pytest.mark.parametrize(
    "how",
    ["not gzip", "not tar", "empty", "flipped bit", "invalid block", "wrong checksum", "0.01", "0.5", "0.99", "0.9999"],
)
def test_damaged_archive(tmp_path: Path, how: str) -> None:
    content = CONTENT.hex().encode()
    archive = make_archive(tmp_path / "a.tar.gz", [(member("a"), content), (member("b"), content)])
    archive.write_bytes(damage(archive.read_bytes(), how))
    with pytest.raises(
        BadArchiveError, match=r"a\.tar\.gz must be an undamaged \.tar\.gz archive, got: .+\. Delete it and fetch"
    ):
        extract(archive, tmp_path / "out")


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", [(member("a"), b"x")])
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(
        InputError, match=r"out must be a folder to which .*a\.tar\.gz can be unpacked, got: .+\. Correct this and try"
    ) as failure:
        extract(archive, tmp_path / "out")
    assert not isinstance(failure.value, BadArchiveError)  # the archive is not at fault


def test_chosen_members_alone_are_unpacked_where_told(tmp_path: Path) -> None:
    archive = make_archive(
        tmp_path / "a.tar.gz",
        [
            (member("a", tarfile.DIRTYPE), b""),
            (member("a/b.txt"), CONTENT),
            (member("a/c.txt"), b"c"),
            (member("a/link.txt", tarfile.SYMTYPE, "/etc/passwd"), b""),
            (member("a/hard.txt", tarfile.LNKTYPE, "a/b.txt"), b""),
        ],
    )
    asked: list[str] = []

    def choose(found: tarfile.TarInfo) -> str | None:
        asked.append(found.name)
        return None if found.name == "a/c.txt" else f"new/{found.name[2:]}"

    extract(archive, tmp_path / "out", choose)
    assert asked == ["a", "a/b.txt", "a/c.txt", "a/link.txt", "a/hard.txt"]
    assert [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()] == [tmp_path / "out/new/b.txt"]
    assert (tmp_path / "out/new/b.txt").read_bytes() == CONTENT


def test_members_are_forgotten(tmp_path: Path) -> None:
    """Otherwise 2.5 million clips take gigabytes of memory."""
    archive = make_archive(tmp_path / "a.tar.gz", [(member(str(number)), b"") for number in range(100)])
    alive: list[int] = []

    def count() -> int:
        return sum(type(each) is tarfile.TarInfo for each in gc.get_objects())

    extract(archive, tmp_path / "out", lambda found: alive.append(count()) if found.name in ("0", "99") else None)
    assert alive[1] - alive[0] < 10


@pytest.mark.parametrize("name", ["/absolute", "../outside", "a/../../outside"])
def test_chosen_member_that_lies_outside(tmp_path: Path, name: str) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", [(member(name), b"x")])
    message = f"got the file '{re.escape(name)}'. Do not use this archive.$"
    with pytest.raises(InputError, match=message):
        extract(archive, tmp_path / "out", lambda found: found.name)
    with pytest.raises(InputError, match=message):
        extract(archive, tmp_path / "out", lambda _: "inside")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(("there", "kept"), [(b"X" * len(CONTENT), True), (CONTENT[:-1], False), (b"", False)])
def test_chosen_file_that_is_there_in_full_size_is_kept(tmp_path: Path, there: bytes, kept: bool) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", [(member("a"), CONTENT)])
    (tmp_path / "a").write_bytes(there)
    extract(archive, tmp_path, lambda found: found.name)
    assert (tmp_path / "a").read_bytes() == (there if kept else CONTENT)


@pytest.mark.parametrize("how", ["flipped bit", "wrong checksum", "0.99"])
def test_damage_behind_what_was_chosen_is_found(tmp_path: Path, how: str) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", [(member("a"), b"a"), (member("b"), CONTENT.hex().encode())])
    archive.write_bytes(damage(archive.read_bytes(), how))
    with pytest.raises(
        InputError, match=r"a\.tar\.gz must be an undamaged \.tar\.gz archive, got: .+\. Delete it and fetch"
    ):
        extract(archive, tmp_path / "out", lambda found: "a" if found.name == "a" else None)


def test_fingerprint_tells_archives_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(CONTENT, mtime=0))
    found = fingerprint(path)
    assert found == {"archive_bytes": path.stat().st_size, "archive_crc32": f"{zlib.crc32(CONTENT):08x}"}
    path.write_bytes(gzip.compress(CONTENT[:-1] + b"!", mtime=0))
    assert fingerprint(path)["archive_crc32"] != found["archive_crc32"]
    path.write_bytes(b"")
    assert fingerprint(path) == {"archive_bytes": 0, "archive_crc32": ""}
    with pytest.raises(
        InputError, match=r"no\.tar\.gz must be a file, got a folder or nothing at this path\. Correct the path\.$"
    ):
        fingerprint(tmp_path / "no.tar.gz")

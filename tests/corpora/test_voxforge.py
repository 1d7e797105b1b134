"""corpora/voxforge.py, on small submissions of the published layout: in a folder, and from a local server."""

import functools
import http.server
import importlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ds2_jax import cli
from ds2_jax.audio.reading import read_audio
from ds2_jax.corpora import voxforge
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError
from tests.speech import SENTENCES, recording, seconds, tree, write_archive

SPLITS = ("train", "dev", "test")


def submission(name: str, user: str, audio: str = "wav") -> dict[str, bytes]:
    """The files of a submission of two recordings."""
    prompts = "".join(f"{name}/mfc/b{i:04d} {sentence}\n" for i, sentence in enumerate(SENTENCES[:2]))
    files = {
        f"{name}/etc/PROMPTS": prompts.encode(),
        f"{name}/etc/prompts-original": b"b0000 Go left.\nb0001 Open the door.\n",
        f"{name}/etc/README": f"User Name:{user}\n\nSpeaker Characteristics:\n\nGender: Male\n".encode(),
        f"{name}/LICENSE": b"GPL\n",
    }
    for i, sentence in enumerate(SENTENCES[:2]):
        files[f"{name}/{audio}/b{i:04d}.{audio}"] = recording(sentence, audio.upper())
    return files


def write_submission(folder: Path, name: str, changes: dict[str, bytes | None] | None = None, **of: str) -> Path:
    """A submission's archive with `changes` (None: left out), named by their paths inside."""
    files = submission(name, **{"user": name.split("-")[0], **of}) | {
        f"{name}/{path}": content for path, content in (changes or {}).items()
    }
    return write_archive(
        folder / f"{name}.tgz", {path: content for path, content in files.items() if content is not None}
    )


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """Twelve submissions of ten speakers."""
    folder = tmp_path / "tgz"
    for user in "abcdefgh":
        write_submission(folder, f"{user}-20080101-xyz", audio="flac" if user < "c" else "wav")
    write_submission(folder, "A-20090101-xyz", user="A ")  # the case and the blank are no other speaker
    write_submission(folder, "a-20090102-xyz")
    write_submission(folder, "anonymous-20090101-abc")
    write_submission(folder, "anonymous-20090101-abd", user="Anonymous")
    return folder


def rows_of(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """(id, speaker) of each split."""
    return {
        path.stem: [(row.id, row.speaker) for row in read_manifest(path)]
        for path in sorted(folder.glob("*.jsonl"))
        if path.stem in SPLITS
    }


def left_out(folder: Path) -> dict[str, str]:
    """Reason by id."""
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return {row["id"]: row["reason"] for row in map(json.loads, lines)}


def test_utterances_are_those_of_the_submissions(archives: Path, tmp_path: Path) -> None:
    folder = voxforge.prepare(tmp_path / "data", archives)
    assert folder == tmp_path / "data/voxforge"
    rows = {row.id: row for split in SPLITS for row in read_manifest(folder / f"{split}.jsonl")}
    assert len(rows) == 12 * 2
    row = rows["a-20080101-xyz/b0001.flac"]
    assert (row.transcript, row.speaker, row.duration) == ("OPEN THE DOOR", "a", seconds("OPEN THE DOOR"))
    assert row.audio == folder / "a-20080101-xyz/flac/b0001.flac"
    assert row.audio.read_bytes() == recording("OPEN THE DOOR")
    assert len(read_audio(rows["h-20080101-xyz/b0000.wav"].audio, 16_000)) == round(seconds("GO LEFT") * 16_000)
    assert (folder / "a-20080101-xyz/LICENSE").read_bytes() == b"GPL\n"
    assert not (folder / "left_out.jsonl").exists()
    assert not [path for path in folder.iterdir() if path.name[0] == "."]


def test_no_speaker_is_in_two_splits(archives: Path, tmp_path: Path) -> None:
    splits = rows_of(voxforge.prepare(tmp_path / "data", archives))
    speakers = {split: {speaker for _, speaker in rows} for split, rows in splits.items()}
    assert {split: len(names) for split, names in speakers.items()} == {"train": 8, "dev": 1, "test": 1}
    everyone = [speaker for names in speakers.values() for speaker in names]
    anonymous = ["anonymous-20090101-abc", "anonymous-20090101-abd"]
    assert sorted(everyone) == sorted(
        [*"abcdefgh", *anonymous]
    )  # each once; the three submissions of "a" are one speaker's


@pytest.mark.parametrize(
    ("shares", "numbers"),
    [
        ((0.5, 0.2, 0.3), {"train": 5, "dev": 2, "test": 3}),
        ((1, 0, 0), {"train": 10}),
        ((0, 0.5, 0.5), {"dev": 5, "test": 5}),
        ((0, 0, 1), {"test": 10}),
        ((0.98, 0.01, 0.01), {"train": 8, "dev": 1, "test": 1}),  # none is empty
        ((0.01, 0.01, 0.98), {"train": 1, "dev": 1, "test": 8}),
    ],
)
def test_shares(archives: Path, tmp_path: Path, shares: tuple[float, float, float], numbers: dict[str, int]) -> None:
    folder = voxforge.prepare(tmp_path / "data", archives, shares)
    assert {split: len({speaker for _, speaker in rows}) for split, rows in rows_of(folder).items()} == numbers
    assert sum(len(rows) for rows in rows_of(folder).values()) == 24
    assert voxforge.prepare(tmp_path / "data", archives, shares) == folder


def test_seed_draws_and_a_new_speaker_moves_few(archives: Path, tmp_path: Path) -> None:
    shares = (0.5, 0.2, 0.3)
    first, again, other = (
        rows_of(voxforge.prepare(tmp_path / name, archives, shares, seed))
        for name, seed in (("x", 0), ("y", 0), ("z", 1))
    )
    assert first == again != other
    write_submission(archives, "i-20080101-xyz")
    more = rows_of(voxforge.prepare(tmp_path / "more", archives, shares))
    moved = {row for split in SPLITS for row in first[split] if row not in more[split]}
    assert len({speaker for _, speaker in moved}) <= 2


def test_second_run_does_nothing(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = voxforge.prepare(tmp_path / "data", archives)
    before = tree(folder)
    capsys.readouterr()
    monkeypatch.setattr(voxforge, "extract", None)
    monkeypatch.setattr(voxforge, "download", None)
    assert voxforge.prepare(tmp_path / "data", archives) == folder
    archives.rename(tmp_path / "gone")
    assert voxforge.prepare(tmp_path / "data", archives) == folder
    assert voxforge.prepare(tmp_path / "data") == folder
    assert tree(folder) == before
    assert capsys.readouterr().err == ""


def test_other_settings_or_submissions_are_not_taken_for_these(archives: Path, tmp_path: Path) -> None:
    folder = voxforge.prepare(tmp_path / "data", archives)
    with pytest.raises(InputError, match=f"^{folder} must be made with seed 1, got 0. Delete the folder, or choose"):
        voxforge.prepare(tmp_path / "data", archives, seed=1)
    message = f"{folder} must be made with shares [0.9, 0.05, 0.05], got [0.8, 0.1, 0.1]. Delete"
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        voxforge.prepare(tmp_path / "data", archives, (0.9, 0.05, 0.05))
    write_submission(archives, "i-20080101-xyz")
    with pytest.raises(InputError, match=f"^{folder} must be made with submissions [0-9a-f]+, got [0-9a-f]+. Delete"):
        voxforge.prepare(tmp_path / "data", archives)


@pytest.mark.parametrize("stage", ["voxforge.extract", "build.audio_duration", "build.write_manifest"])
def test_a_stop_in_the_middle_is_not_believed(
    archives: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = stage.partition(".")
    done = getattr(importlib.import_module(f"ds2_jax.corpora.{module}"), name)

    def stop_after(*args: Any, **named: Any) -> None:
        done(*args, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"ds2_jax.corpora.{stage}", stop_after)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as after a kill: nothing is tidied up
        with pytest.raises(KeyboardInterrupt):
            voxforge.prepare(tmp_path / "data", archives)
    assert (tmp_path / "data/voxforge.partial").is_dir()
    folder = voxforge.prepare(tmp_path / "data", archives)
    assert tree(folder) == tree(voxforge.prepare(tmp_path / "again", archives))
    assert not (tmp_path / "data/voxforge.partial").exists()


def test_what_cannot_be_used_is_named_and_counted(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = (f"a-20080{month}01-bad" for month in (2, 3, 4))
    text = f"{one}/mfc/b0000 \n\n{one}/mfc/b0002 GO\nb0001 A\nb0001 B\nb0003 caf\xe9\n".encode("latin-1")
    write_submission(archives, one, {"etc/PROMPTS": text, "wav/b0003.wav": recording("GO LEFT", "WAV")})
    cut = recording("GO LEFT", "WAV")[:-500]
    write_submission(
        archives, two, {"wav/b0000.wav": cut, "wav/b0009.wav": recording("GO LEFT", "WAV"), "wav/._b0000.wav": b"mac"}
    )
    write_archive(archives / f"{three}.tgz", {f"{three}/LICENSE": b"GPL"})
    whole = write_submission(archives, "a-20080501-cut")
    whole.write_bytes(whole.read_bytes()[:-200])
    write_archive(archives / "a-20080601-evil.tgz", {"../../stray": b"x"})
    folder = voxforge.prepare(tmp_path / "data", archives)
    assert left_out(folder) == {
        f"{one}/b0000.wav": "empty transcript",
        f"{one}/b0001": "unreadable transcript",
        f"{one}/b0002": "missing audio",
        f"{one}/b0003": "unreadable transcript",
        f"{two}/b0000.wav": "unreadable audio",
        f"{two}/b0009.wav": "missing transcript",
        three: "missing audio",
        "a-20080501-cut.tgz": "unreadable archive",
        "a-20080601-evil.tgz": "unreadable archive",
    }
    assert not list(tmp_path.rglob("stray"))
    assert whole.exists()  # it is the user's
    assert ".partial" not in (folder / "left_out.jsonl").read_text()
    error = capsys.readouterr().err
    assert "left out 7: 2 missing audio, 2 unreadable transcript, 1 " in error
    assert f"left out, of no split: 2: 2 unreadable archive; {folder}/left_out.jsonl names them\n" in error
    assert f"{two}/b0001.wav" in [name for rows in rows_of(folder).values() for name, _ in rows]


def test_prompts_and_speakers_as_they_come(tmp_path: Path) -> None:
    folder = tmp_path / "tgz"
    write_submission(folder, "x-20080101-a", {"etc/PROMPTS": None})
    write_submission(folder, "y-20080101-a", {"etc/PROMPTS": "\ufeffb0000\tÉté\r\nb0001 B\r\n".encode()})
    write_submission(folder, "Joe-Bloggs-20080101-a", {"etc/README": None})
    write_submission(folder, "odd", {"etc/README": b"User Name:\nGender: unknown\n"})
    flat = {name.removeprefix("z-20080101-a/"): data for name, data in submission("z-20080101-a", "Zoë").items()}
    write_archive(folder / "z-20080101-a.tgz", flat)  # without a folder of its own
    made = voxforge.prepare(tmp_path / "data", folder, (1, 0, 0))
    rows = {row.id: (row.speaker, row.transcript) for row in read_manifest(made / "train.jsonl")}
    assert {name: row for name, row in rows.items() if "b0000" in name} == {
        "x-20080101-a/b0000.wav": ("x", "Go left."),
        "y-20080101-a/b0000.wav": ("y", "Été"),
        "Joe-Bloggs-20080101-a/b0000.wav": ("joe-bloggs", "GO LEFT"),
        "odd/b0000.wav": ("odd", "GO LEFT"),
        "z-20080101-a/b0000.wav": ("zoë", "GO LEFT"),
    }


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (-0.1, 0.6, 0.5), (float("nan"), 0.5, 0.5)])
def test_wrong_shares(tmp_path: Path, shares: tuple[float, float, float]) -> None:
    message = f"--shares must be three shares that sum to 1, got {shares}. Try --shares 0.8 0.1 0.1."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        voxforge.prepare(tmp_path, tmp_path, shares)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^--archives must be a folder of submissions, got {tmp_path}/no\. Correct"):
        voxforge.prepare(tmp_path / "data", tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=rf"^{tmp_path}/empty must hold submissions \(\.tgz\), got none\. Correct the"):
        voxforge.prepare(tmp_path / "data", tmp_path / "empty")
    write_submission(tmp_path / "two", "a-20080101-xyz")
    write_submission(tmp_path / "two", "b-20080101-xyz")
    message = r"two must hold submissions that can be read of 3 speakers, for train, dev, test, got 2\. Add submissions"
    with pytest.raises(InputError, match=message):
        voxforge.prepare(tmp_path / "data", tmp_path / "two")
    assert list((tmp_path / "data").iterdir()) == []


class Server(http.server.ThreadingHTTPServer):
    """Serves the submissions of a folder, and their index as Apache writes it; the attributes say how it misbehaves."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, folder=folder))
        self.folder = folder
        self.links: list[str] = []  # more of the index
        self.cut: set[str] = set()  # whose connection breaks half way
        self.requested: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/Main/16kHz_16bit/"

    def index(self) -> bytes:
        names = sorted(path.name for path in self.folder.iterdir())
        links = [f'<a href="{name}">{name[:20]}..&gt;</a> 2008-01-01 10:00  2.1M' for name in names] + self.links
        order = '<a href="?C=N;O=D">Name</a> <a href="/Main/">Parent Directory</a>'
        return f"<html><body><pre>{order}\n{chr(10).join(links)}\n</pre></body></html>".encode()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def __init__(self, *args: Any, folder: Path) -> None:
        self.folder = folder
        super().__init__(*args)

    def do_GET(self) -> None:
        name = unquote(self.path.removeprefix("/Main/16kHz_16bit/"))
        wanted = self.headers["Range"]
        self.server.requested.append((name, wanted))
        path = self.folder / name
        if name and not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes() if name else self.server.index()
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : len(content) // 2 if name in self.server.cut else None])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(archives: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(archives) as server:
        monkeypatch.setattr(voxforge, "URL", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_download(server: Server, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare", "voxforge", "--root", str(tmp_path / "data")]) == 0
    folder = tmp_path / "data/voxforge"
    output = capsys.readouterr()
    assert output.out == f"{folder}\n"
    store = tmp_path / "data/voxforge-archives"
    assert output.err.startswith(
        f"{folder}: VoxForge, 12 submissions from {store}\n  train  0.00 h  20 utterances  8 speakers  50 words\n"
    )
    assert tree(store) == tree(archives)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "source.json",
        *(f"{s}.jsonl" for s in SPLITS),
    }
    assert rows_of(folder) == rows_of(voxforge.prepare(tmp_path / "local", archives))
    assert sorted(name for name, _ in server.requested) == ["", *sorted(path.name for path in archives.iterdir())]


def test_submissions_that_cannot_be_had_are_named(
    server: Server, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.links = ['<a href="lost-20080101-xyz.tgz">lost</a>']
    whole = (archives / "b-20080101-xyz.tgz").read_bytes()
    (archives / "b-20080101-xyz.tgz").write_bytes(whole[:-100])
    folder = voxforge.prepare(tmp_path / "data")
    assert left_out(folder) == {
        "lost-20080101-xyz.tgz": "missing archive",
        "b-20080101-xyz.tgz": "unreadable archive",
    }
    assert f"  delete {folder} and run again to fetch them; what was downloaded is kept\n" in capsys.readouterr().err
    (archives / "b-20080101-xyz.tgz").write_bytes(whole)
    server.requested.clear()
    folder.rename(tmp_path / "old")
    voxforge.prepare(tmp_path / "data")
    assert {name for name, _ in server.requested} == {"", "lost-20080101-xyz.tgz", "b-20080101-xyz.tgz"}
    assert left_out(folder) == {"lost-20080101-xyz.tgz": "missing archive"}


def test_a_network_that_fails_makes_no_corpus_and_is_resumed(
    server: Server, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cut = {"c-20080101-xyz.tgz", "d-20080101-xyz.tgz"}
    message = (
        rf"^{server.url} must give its submissions, got no 2 of 12: {server.url}c-20080101-xyz\.tgz must be "
        r"downloadable, got \d+ of \d+ bytes before the connection closed\. Run again to resume, or name a folder of"
    )
    with pytest.raises(InputError, match=message):
        voxforge.prepare(tmp_path / "data")
    assert not (tmp_path / "data/voxforge").exists()
    server.cut = set()
    server.requested.clear()
    voxforge.prepare(tmp_path / "data")
    half = len((archives / "c-20080101-xyz.tgz").read_bytes()) // 2
    assert ("c-20080101-xyz.tgz", f"bytes={half}-") in server.requested
    assert len(server.requested) == 3
    assert tree(tmp_path / "data/voxforge-archives") == tree(archives)


def test_an_index_without_submissions(server: Server, archives: Path, tmp_path: Path) -> None:
    for path in archives.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=rf"^{server.url} must list submissions \(\.tgz\), got none\. Run again to"):
        voxforge.prepare(tmp_path / "data")


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(voxforge, "URL", "http://127.0.0.1:9/")  # discard: nothing listens
    with pytest.raises(
        InputError, match=r"^http://127\.0\.0\.1:9/ must be downloadable, got .*refused.*--archives FOLD"
    ):
        voxforge.prepare(tmp_path / "data")


def test_links_of_an_index() -> None:
    url = voxforge.URL
    path = "/downloads/SpeechCorpus/Trunk/Audio/Main/16kHz_16bit"
    page = (
        "<A HREF='b.tgz'>x</A> <a href=a.tgz>x</a><a href='./e.tgz'>"
        f'<a href="{url}c.tgz"> <a href = "{path}/d.tgz"> <a href=\'f g.tgz\'>'
        "<a href='b.tgz'> <a href='../f.tgz'> <a href='http://elsewhere/g.tgz'> <a href='h.tgz?x'> <a href='.h.tgz'>"
        "<a href='i.txt'> <a href='/etc/j.tgz'> <a href='http://[k.tgz'>"
    )
    assert voxforge._linked(page) == ["a.tgz", "b.tgz", "c.tgz", "d.tgz", "e.tgz", "f g.tgz"]


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("a%20b.tgz", "a b.tgz"),
        ("Jos%C3%A9.tgz", "José.tgz"),
        ("Jos%E9.tgz", "Jos%E9.tgz"),
        ("..%2F..%2Fa.tgz", "..%2F..%2Fa.tgz"),
        ("%2Fetc%2Fa.tgz", "%2Fetc%2Fa.tgz"),
        ("%2Ea.tgz", "%2Ea.tgz"),
        ("a%00.tgz", "a%00.tgz"),
    ],
)
def test_a_link_names_a_file_of_the_folder(link: str, name: str) -> None:
    assert voxforge._file_name(link) == name


def test_odd_names_are_fetched(server: Server, archives: Path, tmp_path: Path) -> None:
    for name in ("José-20080101-a", "x y-20080101-a"):
        write_submission(archives, name)
    voxforge.prepare(tmp_path / "data")  # the index does not quote them
    assert {"José-20080101-a.tgz", "x y-20080101-a.tgz"} <= tree(tmp_path / "data/voxforge-archives").keys()

"""corpora/folder.py, on small folders in each layout, with speech in every format."""

import importlib
import json
import os
import re
from pathlib import Path

import pytest

from ds2_jax import cli
from ds2_jax.audio.reading import read_audio
from ds2_jax.corpora import folder as folder_lib
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError
from tests.speech import SENTENCES, recording, seconds, tree, write_files

LEFT, DOOR = SENTENCES[:2]
WAV = "WAV"


def beside() -> dict[str, bytes]:
    return {
        "anna/1.wav": recording(LEFT, WAV),
        "anna/1.txt": f"{LEFT}\n".encode(),
        "ben/b.c.WAV": recording(DOOR, WAV),
        "ben/b.c.txt": b"OPEN\r\nTHE  DOOR\r\n",
    }


def wav_txt() -> dict[str, bytes]:
    return {
        "wav/anna/1.wav": recording(LEFT, WAV),
        "txt/anna/1.txt": LEFT.encode(),
        "wav/ben/b.c.WAV": recording(DOOR, WAV),
        "txt/ben/b.c.txt": DOOR.encode(),
    }


def metadata() -> dict[str, bytes]:
    return {
        "wavs/anna/1.wav": recording(LEFT, WAV),
        "wavs/ben/b.c.WAV": recording(DOOR, WAV),
        "metadata.csv": f"anna/1|{LEFT}\r\n\r\nben/b.c|Open door no. 1!|{DOOR}\r\n".encode(),
    }


LAYOUTS = {"beside": beside, "wav-txt": wav_txt, "metadata": metadata}
"""The same two recordings in every layout."""


def left_out(folder: Path) -> dict[str, str]:
    """Gives the reasons by id."""
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return {row["id"]: row["reason"] for row in map(json.loads, lines)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("named", [True, False])
def test_layouts(layout: folder_lib.Layout, named: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_files(tmp_path / "source", LAYOUTS[layout]())
    words = ["--layout", layout] if named else []
    root = tmp_path / "data"
    assert cli.main(["prepare", "folder", str(source), "--name", "mine", "--root", str(root), *words]) == 0
    rows = read_manifest(root / "mine/all.jsonl")
    assert [(row.transcript, row.speaker, row.duration) for row in rows] == [
        (LEFT, "anna", seconds(LEFT)),
        (DOOR, "ben", seconds(DOOR)),
    ]
    below = {"beside": "", "wav-txt": "wav/", "metadata": "wavs/"}[layout]
    assert [row.id for row in rows] == [f"{below}anna/1.wav", f"{below}ben/b.c.WAV"]
    assert [row.audio for row in rows] == [source / row.id for row in rows]
    output = capsys.readouterr()
    assert output.out == f"{root}/mine\n"
    assert output.err == (
        f"{source}: layout {layout} ({folder_lib.LAYOUTS[layout]})\n"
        f"{root}/mine: from {source}\n  all  0.00 h  2 utterances  2 speakers  5 words\n"
        f"  split it by speaker: python main.py data split {root}/mine/all.jsonl --out FOLDER\n"
    )
    assert tree(source) == LAYOUTS[layout]()  # nothing is written there


@pytest.mark.parametrize(
    ("audio_format", "suffix"), [("WAV", "wave"), ("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mp3"), ("NIST", "sph")]
)
def test_every_format(tmp_path: Path, audio_format: str, suffix: str) -> None:
    source = write_files(tmp_path / "s", {f"a.{suffix}": recording(LEFT, audio_format), "a.txt": LEFT.encode()})
    folder = folder_lib.prepare(source, "mine", root=tmp_path)
    (row,) = read_manifest(folder / "all.jsonl")
    assert (row.id, row.speaker, row.transcript) == (f"a.{suffix}", "", LEFT)
    assert row.duration == pytest.approx(seconds(LEFT), abs=0.1)  # MP3 pads
    assert len(read_audio(row.audio, 16_000)) / 16_000 == pytest.approx(row.duration, abs=0.01)


def test_what_only_ffmpeg_reads_is_listed_too(tmp_path: Path) -> None:
    files = dict.fromkeys(("c.m4a", "d.mkv"), b"x") | dict.fromkeys(("c.txt", "d.txt"), b"GO")
    folder = folder_lib.prepare(write_files(tmp_path / "s", beside() | files), "mine", root=tmp_path)
    assert left_out(folder) == {"c.m4a": "unreadable audio", "d.mkv": "unreadable audio"}


def test_one_folder_is_no_speaker(tmp_path: Path) -> None:
    files = {f"recordings/{name}": content for name, content in beside().items()}
    folder = folder_lib.prepare(write_files(tmp_path / "s", files), "mine", root=tmp_path)
    assert [row.speaker for row in read_manifest(folder / "all.jsonl")] == ["", ""]


def test_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders as deepspeech.pytorch makes them of LibriSpeech, with stray recordings beside them."""
    tops = {"train": "train", "val": "dev", "test_clean": "test_clean", "test": "test"}
    files = {f"{top}/{name}": content for top in tops for name, content in wav_txt().items()}
    files |= {
        "tests/x.wav": b"",
        "y.wav": b"",
        "notes.txt": b"x",
        "labels.json": b"",
        "train/wav/.hidden.wav": b"",
        ".git/x.wav": b"",
    }
    source = write_files(tmp_path / "s", files)
    folder = folder_lib.prepare(source, "mine", root=tmp_path)
    assert {path.stem for path in folder.glob("*.jsonl")} == {*tops.values(), "left_out"}
    for top, split in tops.items():
        rows = read_manifest(folder / f"{split}.jsonl")
        assert [row.id for row in rows] == [f"{top}/wav/anna/1.wav", f"{top}/wav/ben/b.c.WAV"]
        assert [row.speaker for row in rows] == ["anna", "ben"]
    assert left_out(folder) == {"tests/x.wav": "outside the splits", "y.wav": "outside the splits"}
    error = capsys.readouterr().err
    assert f"{source}: other files ignored: 1 .json\n" in error
    assert f"  left out, in no split: 2: 2 outside the splits; {folder}/left_out.jsonl names them\n" in error
    assert re.findall(r"^  (\w+) +0\.00 h", error, flags=re.MULTILINE) == ["train", "dev", "test", "test_clean"]
    assert "data split" not in error


def test_speakers_are_those_of_all_splits(tmp_path: Path) -> None:
    """A single speaker of a split counts if another split has more; a folder that holds everything is no speaker."""
    files = {f"train/an4/{name}": content for name, content in wav_txt().items()}
    files |= {"dev/wav/cleo/1.wav": recording(LEFT, WAV), "dev/txt/cleo/1.txt": b"GO"}
    folder = folder_lib.prepare(write_files(tmp_path / "s", files), "mine", root=tmp_path)
    assert [row.speaker for row in read_manifest(folder / "dev.jsonl")] == ["cleo"]
    assert {row.speaker for row in read_manifest(folder / "train.jsonl")} == {"an4"}


def test_two_folders_for_a_split(tmp_path: Path) -> None:
    source = write_files(tmp_path / "s", {"val/a.wav": b"", "dev/a.wav": b""})
    with pytest.raises(InputError, match=f"^{source} must hold one folder for dev, got dev and val. Rename one.$"):
        folder_lib.prepare(source, "mine", root=tmp_path)


@pytest.mark.parametrize(
    ("layout", "changes", "expected"),
    [
        (
            "beside",
            {"c.wav": b"RIFF", "c.txt": b"A", "d.wav": b"x", "e.txt": b"A", "f.wav": b"x", "f.txt": b" \n"},
            {"c.wav": "unreadable", "d.wav": "missing transcript", "e": "missing audio", "f.wav": "empty transcript"},
        ),
        (
            "wav-txt",
            {"wav/d.wav": b"x", "txt/e.txt": b"A", "f.wav": b"x", "f.txt": b"no transcript of this layout"},
            {"wav/d.wav": "missing transcript", "e": "missing audio", "f.wav": "missing transcript"},
        ),
        (
            "metadata",
            {"wavs/d.wav": b"x", "f.wav": b"x", "metadata.csv": b"anna/1|A\nben/b.c|B\nf|A\nNone|A"},
            {
                "wavs/d.wav": "missing transcript",
                "f.wav": "unreadable",
                "None": "missing audio",
            },
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    layout: str, changes: dict[str, bytes], expected: dict[str, str], tmp_path: Path
) -> None:
    source = write_files(tmp_path / "s", LAYOUTS[layout]() | changes)
    folder = folder_lib.prepare(source, "mine", root=tmp_path)
    found = left_out(folder)
    assert {
        name: reason.removesuffix(" audio") if reason[:10] == "unreadable" else reason for name, reason in found.items()
    } == expected
    assert len(read_manifest(folder / "all.jsonl")) == 2


def test_names_that_are_not_utf8_and_linked_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_files(tmp_path / "s", beside())
    for suffix, content in ((b"wav", recording(LEFT, WAV)), (b"txt", b"GO")):
        Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9." + suffix)).write_bytes(content)
    (source / "loop").symlink_to(source)
    (source / "._a.wav").touch()
    write_files(tmp_path / "far", {"f.wav": recording(LEFT, WAV), "f.txt": b"GO"})
    (source / "linked").symlink_to(tmp_path / "far")
    folder = folder_lib.prepare(source, "mine", root=tmp_path)
    assert left_out(folder) == {"caf\\udce9.wav": "unreadable audio"}
    ids = [each.id for each in read_manifest(folder / "all.jsonl")]
    assert len(ids) == 3
    assert "linked/f.wav" in ids
    assert f"{source}: 1 hidden file ignored\n" in capsys.readouterr().err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_encodings(layout: str, tmp_path: Path) -> None:
    """UTF-8 with a byte order mark is read; another encoding is an error that names the file."""
    texts = {name: content for name, content in LAYOUTS[layout]().items() if name.endswith((".txt", ".csv"))}
    name, content = max(texts.items())
    source = write_files(tmp_path / "s", LAYOUTS[layout]() | {name: "\ufeff".encode() + content})
    rows = read_manifest(folder_lib.prepare(source, "mine", root=tmp_path) / "all.jsonl")
    assert [row.transcript for row in rows] == [LEFT, DOOR]
    write_files(source, {name: content + "É".encode("latin-1")})
    with pytest.raises(InputError, match=rf"^{source}/{name} must be UTF-8 text, got .* at byte \d+\. Convert it\.$"):
        folder_lib.prepare(source, "other", root=tmp_path)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("line", ["anna/1", "anna/1|A|B|C", "|A", "anna/1,A"])
def test_metadata_of_another_form(tmp_path: Path, line: str) -> None:
    source = write_files(tmp_path / "s", metadata() | {"metadata.csv": f"x|y\n{line}\n".encode()})
    message = f"{source}/metadata.csv, line 2, must be NAME|TRANSCRIPT or NAME|WRITTEN|SPOKEN, got {line!r}. Correct"
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        folder_lib.prepare(source, "mine", root=tmp_path)


def test_metadata_that_names_a_recording_twice(tmp_path: Path) -> None:
    source = write_files(tmp_path / "s", metadata() | {"metadata.csv": b"x|y\nx|z\n"})
    with pytest.raises(
        InputError, match=r"metadata\.csv, line 2, must name each recording once, got 'x' again\. Remove"
    ):
        folder_lib.prepare(source, "mine", root=tmp_path)


def test_metadata_of_something_else(tmp_path: Path) -> None:
    source = write_files(tmp_path / "s", beside() | {"metadata.csv": b"speaker,age\nanna,30\n"})
    assert len(read_manifest(folder_lib.prepare(source, "mine", root=tmp_path) / "all.jsonl")) == 2


def test_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_files(tmp_path / "s", beside())
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("ben"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(
        InputError, match=f"^{source}/ben must be readable, got: Permission denied. Correct the permissions and try"
    ):
        folder_lib.prepare(source, "mine", root=tmp_path)


def test_no_layout_fits(tmp_path: Path) -> None:
    source = write_files(tmp_path / "s", {"a.wav": b"", "b.wav": b"", "c.txt": b"", "d.json": b"", "README": b""})
    message = (
        f"{source} must have one of the layouts metadata: recordings, and a table of their transcripts such "
        "as metadata.csv; wav-txt: wav/a.wav, txt/a.txt; beside: a.wav, a.txt beside it; got 1 .json, 1 .txt, 2 .wav, "
        "1 without a suffix, and no audio with its transcript. Rearrange the files, or write a manifest yourself."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        folder_lib.prepare(source, "mine", root=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"^.*/empty must have one of the layouts .*; got no file, and no audio with"):
        folder_lib.prepare(tmp_path / "empty", "mine", root=tmp_path)


@pytest.mark.parametrize(
    ("files", "advice"), [(beside, r"--layout beside fits\.$"), (dict, r"None of the others fits either\.$")]
)
def test_named_layout_does_not_fit(tmp_path: Path, files: type[dict[str, bytes]], advice: str) -> None:
    source = write_files(tmp_path / "s", files())
    source.mkdir(exist_ok=True)
    message = rf"^{source} must have the layout wav-txt \(wav/a\.wav, txt/a\.txt\), got .*\. {advice}"
    with pytest.raises(InputError, match=message):
        folder_lib.prepare(source, "mine", "wav-txt", tmp_path)


def test_nothing_usable_in_a_split(tmp_path: Path) -> None:
    files = {f"train/{name}": content for name, content in beside().items()}
    source = write_files(tmp_path / "s", files | {"test/a.wav": b"x"})
    message = (
        f"{source}/test must hold at least one usable recording with its transcript, got 1 missing transcript. "
        "The first: test/a.wav (a.wav has no transcript). Correct or add files."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        folder_lib.prepare(source, "mine", root=tmp_path)
    assert not (tmp_path / "mine").exists()


def test_second_run_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_files(tmp_path / "s", beside())
    folder = folder_lib.prepare(source, "mine", root=tmp_path)
    before = tree(folder)
    capsys.readouterr()
    monkeypatch.setattr(folder_lib, "gather", None)
    monkeypatch.chdir(tmp_path)
    assert folder_lib.prepare(Path("s"), "mine", root=tmp_path) == folder
    assert folder_lib.prepare(source, "mine", "beside", tmp_path) == folder
    assert tree(folder) == before
    assert capsys.readouterr().err == ""


def test_another_source_is_not_taken_for_this(tmp_path: Path) -> None:
    source = write_files(tmp_path / "s", beside() | {"metadata.csv": b"x|A", "wavs/x.wav": recording(LEFT, WAV)})
    folder = folder_lib.prepare(source, "mine", "beside", tmp_path)
    end = "Choose another --name, or delete that folder: it holds manifests and no audio."
    with pytest.raises(InputError, match=f"^{folder} must be made from layout metadata, got beside. {end}$"):
        folder_lib.prepare(source, "mine", "metadata", tmp_path)
    other = write_files(tmp_path / "other", beside())
    with pytest.raises(InputError, match=f"^{folder} must be made from source {other}, got {source}. {end}$"):
        folder_lib.prepare(other, "mine", root=tmp_path)
    (folder / "all.jsonl").unlink()
    with pytest.raises(
        InputError, match=f"^{folder} must be made by preparing {source} under the name mine, got no all"
    ):
        folder_lib.prepare(source, "mine", root=tmp_path)
    status = (source / "anna/1.txt").stat()
    (source / "anna/1.txt").write_text("GO RIGHT NOW")
    os.utime(source / "anna/1.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(
        InputError, match=f"^{folder} must be made from {source} as it is, got an earlier state of it. "
    ):
        folder_lib.prepare(source, "mine", root=tmp_path)


@pytest.mark.parametrize("stage", ["build.audio_duration", "build.write_manifest", "build.write_text"])
def test_a_stop_in_the_middle_is_not_believed(tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_files(tmp_path / "s", beside())
    module, _, name = stage.partition(".")
    done = getattr(importlib.import_module(f"ds2_jax.corpora.{module}"), name)

    def stop_after(*args: object) -> None:
        done(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"ds2_jax.corpora.{stage}", stop_after)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as after a kill: nothing is tidied up
        with pytest.raises(KeyboardInterrupt):
            folder_lib.prepare(source, "mine", root=tmp_path)
    assert not (tmp_path / "mine").exists()
    folder = folder_lib.prepare(source, "mine", root=tmp_path)
    assert tree(folder) == tree(folder_lib.prepare(source, "again", root=tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", ".hidden", "\udce9", "a\0"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"^--name must be a folder name, without '/' and not hidden, got '.*'\. Try --name mine\.$"
    ):
        folder_lib.prepare(tmp_path, name, root=tmp_path)


def test_recordings_are_never_advised_to_be_deleted(tmp_path: Path) -> None:
    source = write_files(tmp_path / "data/mine", beside())
    message = f"--name must be new, or that of a corpus made from a folder, got mine: {source} holds something else. "
    with pytest.raises(InputError, match=f"^{message}Choose another name.$"):
        folder_lib.prepare(source, "mine", root=tmp_path / "data")
    folder_lib.prepare(source, "list", root=tmp_path / "data")  # inside the root it is allowed
    write_files(tmp_path / "data/an4", {"source.json": b"{}"})
    with pytest.raises(InputError, match=r"^--name must be new, or that of a corpus made from a folder, got an4: "):
        folder_lib.prepare(source, "an4", root=tmp_path / "data")


def test_source_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^SOURCE must be a folder, got {tmp_path}/no. Correct the path.$"):
        folder_lib.prepare(tmp_path / "no", "mine", root=tmp_path)


def test_manifest_inside_the_source_is_no_change_of_it(tmp_path: Path) -> None:
    source = write_files(tmp_path / "s", beside())
    for _ in range(2):
        folder = folder_lib.prepare(source, "mine", root=source / "datasets")
    assert len(read_manifest(folder / "all.jsonl")) == 2

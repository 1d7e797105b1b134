"""Tables of transcripts in the forms that people have, and the recordings that they name."""

import re
from pathlib import Path, PurePath

import pytest

from ds2_jax import cli
from ds2_jax.corpora import folder as folder_lib
from ds2_jax.corpora.table import Columns, Line, Recordings, read_table
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError
from tests.speech import SENTENCES, recording, write_files

LEFT, DOOR = SENTENCES[:2]


def write(folder: Path, content: str) -> Path:
    path = folder / "some.csv"
    path.write_text(content, encoding="utf-8", newline="")
    return path


def rows(path: Path, columns: Columns = Columns()) -> list[tuple[str, str]]:  # noqa: B008
    return [(line.name, line.text) for line in read_table(path, columns)]


@pytest.mark.parametrize("separator", ["\t", "|", ";", ","])
@pytest.mark.parametrize("header", ["", "path{}sentence\n", "id{}text\r\n", "File Name{}Transcript\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_separators_and_headers(tmp_path: Path, separator: str, header: str, mark: str) -> None:
    lines = "".join(f"{name}{separator}{text}\r\n" for name, text in (("a.wav", "go on"), ("b", "l’été"), ("", "")))
    path = write(tmp_path, mark + header.format(separator) + "\n" + lines.replace(f"{separator}\r\n", "\r\n"))
    path.write_text(path.read_text(encoding="utf-8").rstrip() + "\n", encoding="utf-8")
    assert rows(path) == [("a.wav", "go on"), ("b", "l’été")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('a,"go, then ""on"""\nb,"two\nlines"\n', [("a", 'go, then "on"'), ("b", "two lines")]),
        ("a|as 1|as one\nb|two\n", [("a", "as one"), ("b", "two")]),
        ('a|"go|"go\nb|he said "go"|and "on\n', [("a", '"go'), ("b", 'and "on')]),
        ('a\t"go\nb\ton"\n', [("a", '"go'), ("b", 'on"')]),
        ('"a"|"go"\n', [("a", "go")]),
        ("a.wav,Yes; I do\nb.wav,No\n", [("a.wav", "Yes; I do"), ("b.wav", "No")]),
        ("text,up_votes,path\ngo,2,a\n", [("a", "go")]),
        ("id|text|normalized_text\na|1|one\n", [("a", "one")]),
        ("path,speaker,phrase,text\na,ann,x,go\n", [("a", "go")]),
        ("file,phrase\na,go\n", [("a", "go")]),
    ],
)
def test_quotes_and_columns(tmp_path: Path, content: str, expected: list[tuple[str, str]]) -> None:
    assert rows(write(tmp_path, content)) == expected


@pytest.mark.parametrize("columns", [Columns("clip no", "what"), Columns("2", "3"), Columns("Clip No", "3")])
@pytest.mark.parametrize("header", ["path,clip_no,what\n", ""])
def test_columns_are_named_or_numbered(tmp_path: Path, columns: Columns, header: str) -> None:
    path = write(tmp_path, f"{header}x,a,go\n")
    if header or columns == Columns("2", "3"):
        assert rows(path, columns) == [("a", "go")]
    else:
        with pytest.raises(InputError, match=r"^--audio-column must name a column of .*, which has x, a, go, got "):
            rows(path, columns)


def test_speakers_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "path,sentence,client_id\na,go,ann\n")
    assert read_table(path) == [Line("a", "go", "ann", f"{path}, line 2")]


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("", Columns(), " must hold a line for each recording, got an empty table. Write it again."),
        (
            "a go\n",
            Columns(),
            " must hold recordings and transcripts with a comma, semicolon, tab or | between them, got 'a go'. Correct "
            "it, or give --metadata FILE.",
        ),
        (
            "a,go\n\nb,go, then on\n",
            Columns(),
            ", line 3, must have 2 columns as the first line, got 'b,go,then on'. Put a text with ',' in double "
            "quotes, and double the quotes in it.",
        ),
        ("a,go\n ,on\n", Columns(), ", line 2, must name a recording, got ',on'. Add the name, or remove the line."),
        ("a|go\n|on\n", Columns(), ", line 2, must be NAME|TRANSCRIPT or NAME|WRITTEN|SPOKEN, got '|on'. Correct it."),
        (
            "a,1,go\n",
            Columns(),
            " must have a column of recordings, such as path or file, and one of transcripts, such as text or "
            "sentence, got a, 1, go in its first line. Name them, or give their numbers, such as --audio-column path "
            "--text-column 3.",
        ),
        (
            "path,words\na,go\n",
            Columns(text="what"),
            "--text-column must name a column of PATH, which has path, words, got what. Correct it.",
        ),
        (
            "a,go\n",
            Columns(audio="3"),
            "--audio-column must name a column of PATH, which has a, go, got 3. Correct it.",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, columns: Columns, message: str) -> None:
    path = write(tmp_path, content)
    message = message.replace("PATH", str(path)) if message.startswith("--") else f"{path}{message}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_table(path, columns)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a", "wavs/a.wav"),
        ("a.mp3", "wavs/a.wav"),
        ("./wavs/a.wav", "wavs/a.wav"),
        ("wavs\\a", "wavs/a.wav"),
        ("/data/wavs/a.wav", "wavs/a.wav"),
        ("10.2", "wavs/10.2.wav"),
        ("b.flac", "b.flac"),
        ("b.wav", "b.wav"),
        ("deep/b", "deep/b.wav"),
        ("c", None),
        ("/else/a.wav", None),
    ],
)
def test_recordings_are_found_by_their_names(name: str, file: str | None) -> None:
    files = [PurePath(each) for each in ("wavs/a.wav", "wavs/10.2.wav", "b.flac", "b.wav", "deep/b.wav")]
    found = Recordings(Path("/data"), files).find(Line(name, "go", "", "t.csv, line 1"))
    assert (None if found is None else found.as_posix()) == file


def test_a_name_of_two_recordings_is_refused() -> None:
    recordings = Recordings(Path("/data"), [PurePath("x/a.wav"), PurePath("y/a.wav")])
    message = "t.csv, line 1, must name one recording, got 'a': x/a.wav or y/a.wav? Write its path."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        recordings.find(Line("a", "go", "", "t.csv, line 1"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("transcript.csv", []),
        ("metadata.csv", []),
        ("mine.tsv", []),
        ("mine.tsv", ["--metadata", "mine.tsv"]),
        ("../far.csv", ["--metadata", "SOURCE/../far.csv", "--audio-column", "1", "--text-column", "2"]),
    ],
)
def test_a_folder_with_a_table(tmp_path: Path, name: str, words: list[str]) -> None:
    separator = "\t" if name.endswith("tsv") else ","
    table = f"a.wav{separator}{LEFT}\nclips/b{separator}{DOOR}\nc{separator}GO\n".encode()
    sounds = {"clips/a.wav": recording(LEFT, "WAV"), "clips/b.wav": recording(DOOR, "WAV")}
    source = write_files(tmp_path / "s", sounds | {name: table})
    words = [word.replace("SOURCE", str(source)) for word in words]
    command = ["prepare", "folder", str(source), "--name", "mine", "--root", str(tmp_path / "data"), *words]
    assert cli.main(command) == 0
    assert [row.transcript for row in read_manifest(tmp_path / "data/mine/all.jsonl")] == [LEFT, DOOR]
    assert cli.main(command) == 0  # nothing is left to do
    (source / name).write_bytes(table.replace(b"GO", b"ON NOW"))
    assert cli.main(command) == 1  # it is another table now


def test_one_table_for_all_splits(tmp_path: Path) -> None:
    files = {f"{split}/{name}.wav": recording(LEFT, "WAV") for split, name in (("train", "a"), ("test", "b"))}
    table = b"file,text,speaker\na,GO,ann\ntest/b.wav,ON,ben\nc,NO,ann\n"
    source = write_files(tmp_path / "s", files | {"metadata.csv": table})
    folder = folder_lib.prepare(source, "mine", root=tmp_path)
    found = {name: read_manifest(folder / f"{name}.jsonl") for name in ("train", "test")}
    assert {name: [(row.id, row.transcript, row.speaker) for row in rows] for name, rows in found.items()} == {
        "train": [("train/a.wav", "GO", "ann")],
        "test": [("test/b.wav", "ON", "ben")],
    }
    assert (folder / "left_out.jsonl").read_text().count("missing audio") == 1


def test_texts_beside_the_audio_come_first(tmp_path: Path) -> None:
    files = {"a.wav": recording(LEFT, "WAV"), "a.txt": LEFT.encode(), "transcripts.csv": b"a,NO\n"}
    source = write_files(tmp_path / "s", files)
    for name, table, expected in (("one", None, LEFT), ("two", Path("transcripts.csv"), "NO")):
        [row] = read_manifest(folder_lib.prepare(source, name, root=tmp_path, metadata=table) / "all.jsonl")
        assert row.transcript == expected


def test_tables_that_are_named_wrongly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_files(tmp_path / "s", {"a.wav": recording(LEFT, "WAV"), "x.csv": b"a,GO\n", "y.csv": b"a,NO\n"})
    for words, message in (
        ([], "must have one of the layouts"),
        (["--metadata", "z.csv"], "--metadata must be a file, got z.csv, which does not exist. Correct the path."),
        (
            ["--metadata", "x.csv", "--layout", "beside"],
            "--layout must be metadata if a table or its columns are named",
        ),
    ):
        assert cli.main(["prepare", "folder", str(source), "--name", "n", "--root", str(tmp_path / "r"), *words]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()

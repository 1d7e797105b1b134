"""Every result has its own file, and none is overwritten."""

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ds2_jax.recognition.formats import Format, render
from ds2_jax.recognition.inputs import AudioFile
from ds2_jax.recognition.outputs import Output
from ds2_jax.system.errors import InputError
from tests.spoken import evenly_spoken, transcript_of

FILES = [AudioFile(Path("in/a.wav"), "a"), AudioFile(Path("in/x/a.wav"), "x/a"), AudioFile(Path("in/b c.mp3"), "b c")]
TRANSCRIPT = transcript_of(evenly_spoken("TURN ON THE LIGHTS"), audio="in/a.wav")


def write_all(folder: Path, formats: Sequence[Format] = ("txt",), files: Sequence[AudioFile] = FILES) -> None:
    output = Output(tuple(formats), folder)
    for file in output.plan(files, resume=False):
        output.write(file, TRANSCRIPT, with_path=True)


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_for_each_recording_and_format(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    write_all(out, ("txt", "json", "srt", "vtt", "tsv", "ctm"))
    assert len(names_in(out)) == 18
    assert "x/a.srt" in names_in(out)
    for path in out.rglob("*.*"):
        name = path.relative_to(out).with_suffix("").as_posix()
        output_format: Format = path.suffix.removeprefix(".")  # type: ignore[assignment]
        assert path.read_bytes().decode() == render(TRANSCRIPT, output_format, name)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_all(tmp_path, files=FILES[1:])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    message = (
        f"--output-dir must not hold results of these recordings yet, got 2 of them, such as {tmp_path}/x/a.txt. "
        "Add --resume to keep them and do the rest, or name another folder."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        write_all(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_else_lies_in_the_folder_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "a.srt").touch()
    write_all(tmp_path)
    assert names_in(tmp_path) == ["a.srt", "a.txt", "a.wav", "b c.txt", "x/a.txt"]


def test_resume_leaves_out_what_has_all_its_files(tmp_path: Path) -> None:
    write_all(tmp_path, ("txt",), FILES[:2])
    write_all(tmp_path, ("srt",), FILES[1:2])
    assert Output(("txt",), tmp_path).plan(FILES, resume=True) == FILES[2:]
    assert Output(("txt", "srt"), tmp_path).plan(FILES, resume=True) == [FILES[0], FILES[2]]
    assert Output(("vtt",), tmp_path).plan(FILES, resume=True) == FILES


def test_a_pipe_gets_each_transcript_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(pipe)))
    for number, file in enumerate(FILES, start=1):
        Output(("txt",), None).write(file, TRANSCRIPT, with_path=True)
        assert pipe.getvalue().count(b"TURN ON THE LIGHTS\n") == number


def test_two_recordings_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [AudioFile(Path("x/a.wav"), "a"), AudioFile(Path("y/a.wav"), "a")]
    message = (
        "AUDIO must give each result a name of its own, got a for x/a.wav and y/a.wav. "
        "Give the folder above them or a quoted pattern, so that names include folders; or rename one."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Output(("txt",), tmp_path / "out").plan(files, resume=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"^AUDIO must give each result a name of its own, got a for x/a\.wav and y"):
        Output(("ctm",), None).plan(files, resume=False)
    assert Output(("txt",), None).plan(files, resume=False) == files


@pytest.mark.parametrize("name", ["a//b", "./a", "a/", "a/./b"])
def test_two_ids_are_not_one_file(tmp_path: Path, name: str) -> None:
    message = f"^id must be a name inside --output-dir, got {re.escape(name)}. Rename it in the manifest.$"
    with pytest.raises(InputError, match=message):
        Output(("txt",), tmp_path / "out").plan([AudioFile(Path("a.wav"), name)], resume=False)


def test_an_id_that_is_too_long_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be writable, got: File name too long"):
        Output(("txt",), tmp_path / "out").plan([AudioFile(Path("a.wav"), "a" * 300)], resume=False)


def test_ctm_on_standard_output_is_sorted_and_its_names_differ() -> None:
    files = [AudioFile(Path(f"{name}.wav"), name) for name in ("b", "a_", "B", "é", "a")]
    assert [file.name for file in Output(("ctm",), None).plan(files, resume=False)] == ["B", "a", "a_", "b", "é"]
    files = [AudioFile(Path(f"{name}.wav"), name) for name in ("a b", "a_b")]
    with pytest.raises(InputError, match=r"got a_b for a b\.wav and a_b\.wav"):
        Output(("ctm",), None).plan(files, resume=False)


@pytest.mark.parametrize("output_format", ["srt", "vtt", "tsv"])
def test_formats_that_cannot_follow_one_another(output_format: Format) -> None:
    message = (
        "--format must be txt, json or ctm for several recordings on standard output, "
        f"got {output_format} for 3. Add --output-dir FOLDER."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Output((output_format,), None).plan(FILES, resume=False)
    assert Output((output_format,), None).plan(FILES[:1], resume=False) == FILES[:1]


def test_several_formats_or_resuming_need_a_folder() -> None:
    message = "--format must be a single format on standard output, got txt, json. Add --output-dir FOLDER."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Output(("txt", "json"), None).plan(FILES, resume=False)
    message = "--resume must be used with --output-dir, got none. Add --output-dir FOLDER."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Output(("txt",), None).plan(FILES, resume=True)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = f"--output-dir must be a folder, got the file {tmp_path}/file. Give another."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        write_all(tmp_path / "file")
    with pytest.raises(InputError, match=rf"^{tmp_path}/file/out must be writable, got: Not a directory\."):
        write_all(tmp_path / "file" / "out")
    with pytest.raises(InputError, match=r"a{300} must be writable, got: File name too long\."):
        write_all(tmp_path / ("a" * 300))


def test_a_line_begins_with_the_path_where_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    file = AudioFile(Path("in/tab\tand\nline.wav"), "tab\tand\nline")
    output = Output(("txt",), None)
    output.write(file, TRANSCRIPT, with_path=True)
    output.write(file, TRANSCRIPT, with_path=False)
    assert capsys.readouterr().out == "in/tab\\tand\\nline.wav\tTURN ON THE LIGHTS\nTURN ON THE LIGHTS\n"

"""Files, folders, patterns and standard input on a command line."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.audio.reading import read_audio
from ds2_jax.audio.timeline import Timeline
from ds2_jax.recognition.inputs import STANDARD_INPUT, AudioFile, find_audio, read_input_blocks, save_standard_input
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, write_noise


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*paths: Path | str) -> list[tuple[str, str]]:
    return [(file.path.name, file.name) for file in find_audio([Path(path) for path in paths])]


def test_folders_are_searched_and_files_taken_as_named(tmp_path: Path) -> None:
    make(tmp_path, "b.WAV", "a.flac", "deep/c.sph", "notes.txt", "film.mp4")
    assert found(tmp_path / "notes.txt", tmp_path) == [
        ("notes.txt", "notes"),
        ("a.flac", "a"),
        ("b.WAV", "b"),
        ("c.sph", "deep/c"),
        ("film.mp4", "film"),
    ]


def test_hidden_files_are_taken_only_as_named(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "._a.wav", ".DS_Store", ".cache/b.wav", "deep/.c.wav")
    assert found(tmp_path) == found(tmp_path / "*.wav") == [("a.wav", "a")]
    assert found(tmp_path / "._a.wav", tmp_path / ".cache") == [("._a.wav", "._a"), ("b.wav", "b")]


def test_a_recording_is_taken_once(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "b.wav")
    assert found(tmp_path / "b.wav", tmp_path, tmp_path / "b.wav") == [("b.wav", "b"), ("a.wav", "a")]


def test_a_folder_that_links_lead_to_is_read_once(tmp_path: Path) -> None:
    make(tmp_path, "real/a.wav", "in/b.wav")
    (tmp_path / "in/linked").symlink_to(tmp_path / "real")
    (tmp_path / "real/back").symlink_to(tmp_path / "in")
    once = [("b.wav", "b"), ("a.wav", "linked/a")]
    assert found(tmp_path / "in") == found(tmp_path / "in/**/*.wav") == once
    assert found(tmp_path / "in", tmp_path / "real") == once


def test_the_first_name_of_a_recording_holds(tmp_path: Path) -> None:
    make(tmp_path, "deep/a.wav")
    assert found(tmp_path / "deep/a.wav", tmp_path) == [("a.wav", "a")]
    assert found(tmp_path, tmp_path / "deep") == [("a.wav", "deep/a")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", [("a.wav", "a"), ("b.wav", "b")]),
        ("[b-z].wav", [("b.wav", "b")]),
        ("?.wav", [("a.wav", "a"), ("b.wav", "b")]),
        ("*/*.wav", [("a.wav", "x/a"), ("a.wav", "y/a")]),
        ("x/*.wav", [("a.wav", "a")]),
        ("**/a.wav", [("a.wav", "a"), ("a.wav", "x/a"), ("a.wav", "y/a")]),
        ("[xy]", [("a.wav", "x/a"), ("a.wav", "y/a")]),
    ],
)
def test_patterns(
    tmp_path: Path, pattern: str, expected: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "b.wav", "a.wav", "x/a.wav", "y/a.wav")
    assert found(tmp_path / pattern) == expected
    monkeypatch.chdir(tmp_path)
    assert found(pattern) == expected


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    make(tmp_path, "talk [1].wav", "talk 1.wav")
    assert found(tmp_path / "talk [1].wav") == [("talk [1].wav", "talk [1]")]


def test_names_with_suffix_only_where_two_are_alike(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "a.mp3", "b.c.wav", ".wav")
    assert sorted(name for _, name in found(tmp_path / "a.wav", tmp_path)) == ["a.mp3", "a.wav", "b.c"]


@pytest.mark.parametrize("name", ["set.json", "set.JSONL"])
def test_a_folder_is_no_manifest_whatever_its_name(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name}/a.wav")
    assert found(tmp_path / name) == [("a.wav", "a")]


def test_standard_input_has_a_name() -> None:
    assert found("-") == [("-", "stdin")]


def test_missing_and_empty_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"AUDIO must be a file or folder, got {tmp_path / 'no.wav'}, which does not"):
        find_audio([tmp_path / "no.wav"])
    for name in ("a\0.wav", "a" * 300):
        with pytest.raises(InputError, match=r"^AUDIO must be a file or folder, got .*, which does not exist"):
            find_audio([tmp_path / name])
    with pytest.raises(InputError, match=rf"{tmp_path} must hold audio files \(.*\.wav.*\), got none\."):
        find_audio([tmp_path])
    with pytest.raises(InputError, match="AUDIO must name at least one file or folder, got none"):
        find_audio([])
    message = f"AUDIO must name files, got the pattern {tmp_path}/*.wav, which matches none. Correct it."
    with pytest.raises(InputError, match=re.escape(message)):
        find_audio([tmp_path / "*.wav"])


class Pipe(io.TextIOWrapper):
    """Makes a standard input that gives `data`."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


def piped(data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(sys, "stdin", Pipe(data))
    saved = save_standard_input(folder)
    return np.concatenate(list(read_input_blocks(AudioFile(STANDARD_INPUT, "stdin"), RATE, saved, Timeline())))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_standard_input_is_read_as_a_file_is(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_noise(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(piped(path.read_bytes(), tmp_path, monkeypatch), read_audio(path, RATE))


def test_mp3_with_an_empty_tag_needs_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = b"ID3\3\0\0" + bytes(4)  # libsndfile recognises such a file only by its suffix
    path = write_noise(tmp_path / "a.mp3")
    path.write_bytes(tag + path.read_bytes())
    np.testing.assert_array_equal(piped(path.read_bytes(), tmp_path, monkeypatch), read_audio(path, RATE))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000 + 24])
def test_wav_of_unknown_length_is_read_to_its_end(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_noise(tmp_path / "a.wav")
    data = path.read_bytes()
    unknown = data[:4] + b"\xff" * 4 + data[8:40] + size.to_bytes(4, "little") + data[44:]
    np.testing.assert_array_equal(piped(unknown, tmp_path, monkeypatch), read_audio(path, RATE))


def test_what_is_wrong_with_standard_input_does_not_name_a_hidden_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"^Standard input must hold audio, got an empty file\. Replace the recording\.$"
    ):
        piped(b"", tmp_path, monkeypatch)
    data = write_noise(tmp_path / "a.wav").read_bytes()[:1000]
    with pytest.raises(InputError, match=r"^Standard input must hold the 16000 bytes of audio that its header states"):
        piped(data, tmp_path, monkeypatch)


def test_a_terminal_is_no_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Pipe(b"")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for standard_input, got in ((terminal, "a terminal"), (None, "a closed standard input")):
        monkeypatch.setattr(sys, "stdin", standard_input)
        with pytest.raises(InputError, match=rf"^AUDIO - must be a recording on standard input, got {got}\. Pipe"):
            save_standard_input(tmp_path)

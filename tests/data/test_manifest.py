"""Manifests in three formats, and the error for each fault."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.data import manifest
from ds2_jax.data.manifest import TimedWord, Utterance, read_manifest, write_manifest
from ds2_jax.system.errors import InputError

Write = Callable[..., Path]
ROW = {"audio": "a.wav", "duration": 1.5, "transcript": "YES"}
ONE_LINE = "Write each object on a line of its own: jq -c . OLD > NEW."


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a manifest of JSON values and raw strings, one a line."""

    def write(*lines: Any) -> Path:
        path = tmp_path / "set.jsonl"
        path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
        return path

    return write


def fails(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_manifest(path)


def test_own_format_resolves_paths_and_keeps_ids_and_speakers(write: Write, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / "b.flac"
    path = write(
        {"audio": "wav/a.wav", "duration": 1, "transcript": "YES", "id": "x", "speaker": "fash"},
        "",
        {"audio": str(elsewhere), "duration": 0.25, "transcript": "", "speaker": 84},
    )
    assert read_manifest(path) == [
        Utterance(tmp_path / "wav/a.wav", 1.0, "YES", "x", "fash"),
        Utterance(elsewhere, 0.25, "", "b", "84"),
    ]


def test_word_times_are_read_and_written_where_they_are_known(write: Write, tmp_path: Path) -> None:
    path = write(ROW | {"transcript": "GO  LEFT", "words": [["GO", 0, 0.5], ["LEFT", 0.5, 1.5]]}, ROW | {"words": []})
    timed, untimed = read_manifest(path)
    assert timed.words == (TimedWord("GO", 0, 0.5), TimedWord("LEFT", 0.5, 1.5))
    assert untimed.words == ()
    write_manifest(tmp_path / "again.jsonl", [timed, untimed])
    assert read_manifest(tmp_path / "again.jsonl") == [timed, untimed]
    assert ["words" in json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()] == [
        True,
        False,
    ]


def test_nemo_format(write: Write, tmp_path: Path) -> None:
    path = write({"audio_filepath": "a.wav", "duration": 1.5, "text": "yes", "offset": 0, "lang": "en"})
    assert read_manifest(path) == [Utterance(tmp_path / "a.wav", 1.5, "yes", "a", offset=0.0)]


def test_segments_are_read_from_their_files(write: Write, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (24_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 8_000, subtype="FLOAT")
    rows = [(0.0, 0.5), (0.5, 1.25), (1.75, 1.25)]
    lines = [{"audio_filepath": "a.wav", "offset": at, "duration": seconds, "text": "go"} for at, seconds in rows]
    utterances = read_manifest(write(*lines))
    assert [each.place for each in utterances] == ["line 1", "line 2", "line 3"]
    for (at, seconds), utterance in zip(rows, utterances, strict=True):
        own, rate = utterance.samples()
        np.testing.assert_array_equal(own, samples[round(at * rate) : round((at + seconds) * rate)])
        np.testing.assert_array_equal(utterance.read(rate), own.mean(axis=1))
        assert len(utterance.read(16_000)) == 16_000 * seconds
    write_manifest(tmp_path / "copy.jsonl", utterances)
    assert read_manifest(tmp_path / "copy.jsonl") == utterances


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_a_segment_of_a_compressed_file_is_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    times = np.arange(48_000) / 16_000
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 300 * times**2), 16_000)
    whole = Utterance(path, 3.0, "GO", "a").read(16_000)
    segment = Utterance(path, 1.25, "GO", "a", offset=1.1).read(16_000)
    np.testing.assert_allclose(segment, whole[17_600:37_600], atol=1e-6)


def test_a_segment_after_the_end_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8_000), 8_000)
    message = f"{tmp_path}/a.wav must be longer than 1.5 s, got 1 s. Correct the offset."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Utterance(tmp_path / "a.wav", 1.0, "GO", "a", offset=1.5).read(8_000)


def test_durations_that_are_missing_are_read(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(12_000), 8_000)
    rows = [{"audio": "a.wav", "transcript": "go"}, {"audio": "a.wav", "transcript": "go", "offset": 0.5}]
    gone = {"audio": "gone.wav", "transcript": "go", "duration": None}
    path = write(*rows, gone, ROW)
    assert [each.duration for each in read_manifest(path)] == [1.5, 1.0, 0.0, ROW["duration"]]
    assert capsys.readouterr().err == (
        f"{path}: 2 durations are read from the audio each time; data merge stores them\n"
    )
    copy = tmp_path / "copy.jsonl"
    write_manifest(copy, read_manifest(path))
    stored = [json.loads(line).get("duration") for line in copy.read_text().splitlines()]
    assert stored == [1.5, 1.0, None, ROW["duration"]]  # the third may be there later


def test_a_recording_that_is_too_long_is_named(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "audio_duration", lambda path: 3601.0)
    path = write({"audio": "a.wav", "transcript": "go"})
    message = f"{path}, line 1: duration of {tmp_path}/a.wav must be 0 to 3600 seconds, got 3601.0. Cut the recording."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_manifest(path)


@pytest.mark.parametrize("indent", [None, 2])
def test_deepspeech_pytorch_format(tmp_path: Path, indent: int | None) -> None:
    root = tmp_path / "data"
    root.mkdir()
    soundfile.write(root / "a.wav", np.zeros(12_000), 8_000)
    (root / "a.txt").write_text("SEVEN É\n", encoding="utf-8")
    (root / "gone.txt").write_text("NO")
    samples = [{"wav_path": f"{name}.wav", "transcript_path": f"{name}.txt"} for name in ("a", "gone")]
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"root_path": "data", "samples": samples}, indent=indent))
    assert read_manifest(path) == [
        Utterance(root / "a.wav", 1.5, "SEVEN É", "a"),
        Utterance(root / "gone.wav", 0.0, "NO", "gone"),  # counted by check_utterances
    ]


def test_missing_ids_are_made_unlike_all_others(write: Write) -> None:
    rows = [ROW, ROW | {"audio": "b/a.wav"}, ROW | {"id": "a-2"}, ROW | {"audio": "c/a.wav"}]
    assert [utterance.id for utterance in read_manifest(write(*rows))] == ["a", "a-3", "a-2", "a-4"]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n" + json.dumps(ROW).encode())
    assert len(read_manifest(path)) == 2


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(texts, st.floats(0, 3600), texts), min_size=1, max_size=5))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    utterances = [
        Utterance(folder / "wav" / f"{i}.wav", duration, transcript, f"{i}", speaker)
        for i, (transcript, duration, speaker) in enumerate(rows)
    ]
    write_manifest(folder / "set.jsonl", utterances)
    assert read_manifest(folder / "set.jsonl") == utterances


def test_audio_inside_the_folder_is_written_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    inside, outside = Path("set/wav/a.wav"), Path("b.wav")
    write_manifest(Path("set/train.jsonl"), [Utterance(inside, 1.0, "É", "a"), Utterance(outside, 1.0, "", "b")])
    first, second = (tmp_path / "set/train.jsonl").read_text(encoding="utf-8").splitlines()
    assert first == '{"audio": "wav/a.wav", "duration": 1.0, "transcript": "É", "id": "a", "speaker": ""}'
    assert json.loads(second)["audio"] == (tmp_path / "b.wav").as_posix()


def test_missing_manifest(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    fails(path, f"{path} must be a readable file, got: No such file or directory. Correct the path.")


@pytest.mark.parametrize("text", ["", " \n\n", '{"root_path": "", "samples": []}'])
def test_empty_manifest(write: Write, text: str) -> None:
    path = write(text)
    fails(path, f"{path} must hold at least one utterance, got 'an empty manifest'. Write it again.")


def test_manifest_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"RIFF\xff")
    fails(path, f"{path} must be UTF-8 text, got invalid start byte at byte 4. Convert it.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.wav,a.txt", " must be a JSON object, got 'a.wav,a.txt'. Expecting value: line 1 column 1 (char 0)."),
        ([1], " must be a JSON object, got [1]."),
        ({"duration": 1.0}, ": audio must be present, got 'duration'. Add it."),
        ({"audio": "a.wav", "duration": 1.0}, ": transcript must be present, got 'audio, duration'. Add it."),
        (
            {"audio": "tfds:x#train[1]", "transcript": ""},
            ": duration must be present, got 'audio, transcript'. Add it.",
        ),
        ('{"audio": "a.wav",', ' must be a JSON object, got \'{"audio": "a.wav",\'. ' + ONE_LINE),
        ("{", " must be a JSON object, got '{'. " + ONE_LINE),
        ({"audio_filepath": "a.wav"}, ": text must be present, got 'audio_filepath'. Add it."),
        (ROW | {"audio": None}, ": audio must be a string, got None. Write what is meant, or remove the line."),
        (ROW | {"transcript": ["A"]}, ": transcript must be a string, got ['A']. Put it in quotes."),
        (ROW | {"id": 1.5}, ": id must be a string, got 1.5. Put it in quotes."),
        (ROW | {"speaker": True}, ": speaker must be a string, got True. Put it in quotes."),
        (ROW | {"duration": -1}, ": duration must be 0 to 3600 seconds, got -1. Correct it."),
        (ROW | {"duration": "1"}, ": duration must be 0 to 3600 seconds, got '1'. Correct it."),
        (ROW | {"duration": True}, ": duration must be 0 to 3600 seconds, got True. Correct it."),
        (ROW | {"duration": float("nan")}, ": duration must be 0 to 3600 seconds, got nan. Correct it."),
        (ROW | {"duration": float("inf")}, ": duration must be 0 to 3600 seconds, got inf. Correct it."),
        (ROW | {"duration": 3601}, ": duration must be 0 to 3600 seconds, got 3601. Correct it."),
        (ROW | {"duration": 10**400}, f": duration must be 0 to 3600 seconds, got 1{'0' * 79} .... Correct it."),
        (
            ROW | {"transcript": "GO \ud800"},
            r": transcript must have no null character and no unpaired surrogate, got 'GO \ud800'. Correct it.",
        ),
        (
            ROW | {"audio": "a\0.wav"},
            r": audio must have no null character and no unpaired surrogate, got 'a\x00.wav'. Correct it.",
        ),
        (ROW | {"text": "NO"}, " must have one of transcript and text, got 'both'. Remove one."),
        (
            ROW | {"audio_filepath": "b", "text": "NO"},
            " must have one of audio and audio_filepath, got 'both'. Remove one.",
        ),
        (
            "[" * 100_000,
            f" must be a JSON object, got '{'[' * 79} .... "
            "maximum recursion depth exceeded while decoding a JSON array from a unicode string.",
        ),
        (
            '{"duration": ' + "1" * 5000 + "}",
            f' must be a JSON object, got \'{{"duration": {"1" * 66} .... '
            "Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; "
            "use sys.set_int_max_str_digits() to increase the limit.",
        ),
        (ROW | {"offset": -1}, ": offset must be a number of seconds, 0 or more, got -1. Correct it."),
        (ROW | {"offset": "1"}, ": offset must be a number of seconds, 0 or more, got '1'. Correct it."),
        *(
            (ROW | {"words": words}, f": words must {rule}, got {got}. Correct them, or leave them out.")
            for words, rule, got in [
                ("YES", "be a list of [word, start, end]", "'YES'"),
                ([["YES", 0]], "be a list of [word, start, end]", "[['YES', 0]]"),
                ([["NO", 0, 1]], "be those of the transcript, ['YES']", "[['NO', 0, 1]]"),
                *(
                    (
                        [["YES", *span]],
                        "have times in order, within the 1.5 s of the recording",
                        f"TimedWord(text='YES', start={span[0]!r}, end={span[1]!r})",
                    )
                    for span in [(1, 1), (-1, 1), (0, 2), (0, "1"), (0, float("nan")), (False, True)]
                ),
            ]
        ),
        (
            ROW | {"transcript": "A B", "words": [["A", 0, 1], ["B", 0.5, 1.5]]},
            ": words must have times in order, within the 1.5 s of the recording, "
            "got TimedWord(text='B', start=0.5, end=1.5). Correct them, or leave them out.",
        ),
        (ROW | {"id": "x"}, ": id must differ from the id of line 1, got 'x'. Rename one."),
    ],
)
def test_faulty_line_is_named(write: Write, line: Any, message: str) -> None:
    path = write(ROW | {"id": "x"}, line)
    fails(path, f"{path}, line 2{message}")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"samples": []}, ": root_path must be present, got 'samples'. Add it."),
        ({"root_path": "", "samples": {}}, ": samples must be a list, got {}."),
        ({"root_path": "", "samples": ["a"]}, ": samples[0] must be a JSON object, got 'a'."),
        ({"root_path": "", "samples": [{}]}, ": samples[0]: wav_path must be present, got ''. Add it."),
    ],
)
def test_faulty_deepspeech_pytorch_manifest_is_named(write: Write, document: Any, message: str) -> None:
    path = write(document)
    fails(path, f"{path}{message}")


def test_missing_transcript_file_is_named(write: Write, tmp_path: Path) -> None:
    path = write({"root_path": "", "samples": [{"wav_path": "a.wav", "transcript_path": "a.txt"}]})
    missing = f"{tmp_path / 'a.txt'} must be a readable file, got: No such file or directory. Correct the path."
    message = f"{path}: samples[0]: {missing}"
    fails(path, message)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(160), 16_000)
    return path


@pytest.mark.timeout(60)
def test_a_transcript_that_is_no_file(write: Write, tmp_path: Path) -> None:
    """Reading an endless device, or a pipe that nobody writes to, would never end."""
    deep = tmp_path / ("x" * 100)  # the whole of a long path is told
    deep.mkdir()
    os.mkfifo(deep / "pipe")
    for name in ("/dev/zero", f"{deep.name}/pipe", "."):
        path = write({"root_path": "", "samples": [{"wav_path": "a.wav", "transcript_path": name}]})
        fails(path, f"{path}: samples[0]: transcript_path must name a file, got {tmp_path / name}. Correct the path.")

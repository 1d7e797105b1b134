"""The process that speaks, started as `synthetic.py` starts it."""

import itertools
import json
import subprocess
import sys
import time
from typing import Any

import espeakng_loader
import numpy as np
import pytest

from ds2_jax.corpora import espeak, synthetic

SENTENCE = "start the music and open door seven"


def run(voice: str, *requests: tuple[str, int, int], **changed: Any) -> subprocess.CompletedProcess[bytes]:
    job = {"library": espeakng_loader.get_library_path(), "data": espeakng_loader.get_data_path()}
    job |= {"voice": voice, "requests": requests, **changed}
    command = [sys.executable, "-I", espeak.__file__]
    return subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, check=False)


def answer(voice: str, *requests: tuple[str, int, int]) -> tuple[list[np.ndarray], list[list[list[int]]]]:
    child = run(voice, *requests)
    assert child.returncode == 0, child.stderr
    line, _, samples = child.stdout.partition(b"\n")
    header = json.loads(line)
    assert header["sample_rate"] == 22_050
    return np.split(np.frombuffer(samples, np.int16), np.cumsum(header["num_samples"]))[:-1], header["words"]


def spoken(voice: str, *requests: tuple[str, int, int]) -> list[np.ndarray]:
    return answer(voice, *requests)[0]


def test_answer_holds_the_samples_of_each_request() -> None:
    short, long = spoken("en-us", ("stop", 140, 50), (SENTENCE, 140, 50))
    assert 0.2 < len(short) / 22_050 < 0.8
    assert 1.5 < len(long) / 22_050 < 4


WORD, PHONEME = espeak.WORD, espeak.PHONEME


def test_words_lie_between_their_events_and_pauses() -> None:
    marks = [
        (WORD, 0, 0, ""),
        (PHONEME, 0, 9, "g"),
        (WORD, 3, 100, ""),
        (PHONEME, 3, 180, "_:"),
        (PHONEME, 3, 190, "_:"),
    ]
    marks += [(WORD, 6, 200, ""), (WORD, 6, 250, ""), (PHONEME, 6, 280, "_")]
    assert espeak.word_spans("go up now", marks, 300) == [(0, 100), (100, 180), (200, 280)]
    assert espeak.word_spans("go up now", marks[:-1], 300) == [(0, 100), (100, 180), (200, 300)]


def test_word_that_is_joined_to_the_one_before_starts_at_its_phoneme() -> None:
    marks = [(WORD, 0, 0, ""), (PHONEME, 0, 20, "D"), (PHONEME, 0, 60, "D"), (WORD, 7, 100, ""), (PHONEME, 7, 120, "D")]
    assert espeak.word_spans("on the door", marks, 200) == [(0, 60), (60, 100), (100, 200)]
    assert espeak.word_spans("on any door", marks, 200) == []  # its first phoneme is unknown


@pytest.mark.parametrize("voice", ["en-us", "en-gb-scotland+f3", "en-029+Mike"])
def test_words_are_heard_where_they_are_said_to_be(voice: str) -> None:
    text = "start the music and turn on the radio"
    [samples], [words] = answer(voice, (text, 140, 50))
    assert len(words) == len(text.split())
    power = np.convolve(samples.astype(float) ** 2, np.ones(441) / 441, "same")  # over 20 ms
    spans = [tuple(span) for span in words]
    loud = [power[start:end].max() for start, end in spans]
    assert all(start < end <= following for (start, end), (following, _) in itertools.pairwise(spans))
    assert min(loud) > 0.02 * max(loud)
    assert spans[3][0] - spans[2][1] > 0.05 * 22_050, "a pause before AND"
    pause = power[spans[2][1] + 441 : spans[3][0] - 441]
    assert pause.max() < 0.001 * max(loud)
    assert 0.15 < (spans[6][0] - spans[5][0]) / 22_050 < 0.35, "ON, which THE is joined to"


def test_rate_and_pitch_are_obeyed() -> None:
    slow, fast, high = spoken("en-us", (SENTENCE, 115, 35), (SENTENCE, 165, 35), (SENTENCE, 165, 65))
    assert len(slow) > 1.2 * len(fast)

    def pitch(samples: np.ndarray) -> float:  # Hz, at the peak of the autocorrelation of the whole sentence
        power = np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2
        shortest = 22_050 // 300
        period = shortest + int(np.fft.irfft(power)[shortest : 22_050 // 50].argmax())
        return 22_050 / period

    assert pitch(high) > 1.2 * pitch(fast)


@pytest.mark.parametrize("voice", ["en-gb-x-rp+f5", "en-us"])
def test_fresh_processes_repeat_the_same_bytes(voice: str) -> None:
    """f5 breathes: its noise is random, and the library would seed it with the time."""
    requests = (("go up", 150, 50), (SENTENCE, 120, 60))
    first = run(voice, *requests)
    time.sleep(1.01)
    assert first.stdout == run(voice, *requests).stdout


@pytest.mark.parametrize(
    ("voice", "finding"),
    [
        ("en-gb", "espeak_SetVoiceByName returned 2"),  # British English is named en
        ("tlh-qo-nos", "espeak_SetVoiceByName returned 2"),
        ("en-us+nobody", "no variant 'nobody'"),
        ("en-us+", "no variant ''"),
    ],
)
def test_unknown_voice_stops(voice: str, finding: str) -> None:
    child = run(voice, ("stop", 140, 50))
    assert child.returncode == 1
    assert child.stderr.decode().strip() == finding
    assert child.stdout == b""


def test_library_that_does_not_start_stops() -> None:
    child = run("en-us", ("stop", 140, 50), data="/nowhere")
    assert child.returncode == 1
    assert b"espeak_Initialize returned 0" in child.stderr


def test_no_voice_of_the_corpus_is_clipped_by_the_library() -> None:
    loudest = {
        voice: np.abs(spoken(voice, (SENTENCE, 140, 50))[0].astype(int)).max()
        for voices in synthetic.VOICES.values()
        for voice in voices
    }
    assert max(loudest.values()) < 0.5 * 2**15, loudest


def test_script_imports_nothing_but_the_standard_library() -> None:
    code = f"import runpy, sys; runpy.run_path({espeak.__file__!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert {name.partition(".")[0] for name in loaded.split()} <= sys.stdlib_module_names | {"__main__"}

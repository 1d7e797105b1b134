"""Batches follow the plan, and files that cannot be used are reported."""

import dataclasses
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.reading import read_audio
from ds2_jax.config.settings import ENGLISH
from ds2_jax.data import manifest, pipeline
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.plan import PlannedBatch, plan_epoch
from ds2_jax.data.splits import Split
from ds2_jax.data.tensorflow import load_tensorflow
from ds2_jax.parallel.rows import ONE_DEVICE, RowLayout
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

RATE = 16_000
HOP = 160
ALPHABET = Alphabet(ENGLISH)
NUM_UTTERANCES = 10


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(NUM_UTTERANCES):
        waveform = rng.uniform(-0.5, 0.5, int(rng.integers(400, 4_000)))
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, waveform, RATE)
        made.append(Utterance(path, len(waveform) / RATE, "YES " * (index % 3) + "NO", f"u{index}"))
    return made


def plan_of(utterances: Sequence[Utterance], batch_size: int = 3) -> list[PlannedBatch]:
    num_samples = np.array([utterance.num_samples(RATE) for utterance in utterances])
    return plan_epoch(num_samples, batch_size=batch_size, num_buckets=2, hop_length=HOP, seed=0, epoch=0)


def batches(
    plan: Sequence[PlannedBatch],
    utterances: Sequence[Utterance],
    *,
    layout: RowLayout = ONE_DEVICE,
    num_workers: int = 2,
    time_reduction: int | None = None,
    on_problem: Callable[[Problem], None] | None = None,
) -> pipeline.Batches:
    return pipeline.batches(
        plan,
        Split(utterances, ALPHABET),
        sample_rate=RATE,
        hop_length=HOP,
        layout=layout,
        num_workers=num_workers,
        time_reduction=time_reduction,
        on_problem=on_problem,
    )


def test_rows_hold_waveform_and_labels_and_zeros_after_them(utterances: list[Utterance]) -> None:
    plan = plan_of(utterances)
    seen = list(batches(plan, utterances))
    assert len(seen) == 4
    for planned, batch in zip(plan, seen, strict=True):
        assert {name: (array.dtype.name, array.shape) for name, array in batch.items()} == {
            "waveforms": ("float32", (3, planned.padded_samples)),
            "num_samples": ("int32", (3,)),
            "labels": ("int32", (3, len("YES YES NO"))),
            "num_labels": ("int32", (3,)),
            "indices": ("int32", (3,)),
        }
        np.testing.assert_array_equal(batch["indices"], planned.indices)
        for row, index in enumerate(planned.indices.tolist()):
            num_samples, num_labels = batch["num_samples"][row], batch["num_labels"][row]
            waveform, transcript = np.zeros(0), ""
            if index >= 0:
                waveform, transcript = read_audio(utterances[index].audio, RATE), utterances[index].transcript
            np.testing.assert_array_equal(batch["waveforms"][row, :num_samples], waveform)
            assert ALPHABET.decode(batch["labels"][row, :num_labels].tolist()) == transcript
            assert not batch["waveforms"][row, num_samples:].any()
            assert not batch["labels"][row, num_labels:].any()


def test_batches_keep_the_order_of_the_plan_however_long_each_takes(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_slowly(path: Path, sample_rate: int) -> np.ndarray:
        time.sleep(0.05 * (int(path.stem) % 3))
        return read_audio(path, sample_rate)

    monkeypatch.setattr(manifest, "read_audio", read_slowly)
    plan = plan_of(utterances, batch_size=1)
    seen = [batch["indices"].tolist() for batch in batches(plan, utterances, num_workers=4)]
    assert seen == [batch.indices.tolist() for batch in plan]


def test_rest_of_a_plan_reads_no_audio_of_what_came_before(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def read_counted(path: Path, sample_rate: int) -> np.ndarray:
        read.append(int(path.stem))
        return read_audio(path, sample_rate)

    plan = plan_of(utterances)
    whole = list(batches(plan, utterances))
    monkeypatch.setattr(manifest, "read_audio", read_counted)
    rest = list(batches(plan[2:], utterances))
    assert sorted(read) == sorted(i for batch in plan[2:] for i in batch.indices.tolist() if i >= 0)
    for one, other in zip(whole[2:], rest, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


def test_empty_rows_fill_up_to_a_multiple_of_the_devices(utterances: list[Utterance]) -> None:
    plan = plan_of(utterances, batch_size=5)
    for planned, batch in zip(plan, batches(plan, utterances, layout=RowLayout(4)), strict=True):
        assert {len(array) for array in batch.values()} == {8}
        assert batch["indices"].tolist() == [*planned.indices.tolist(), -1, -1, -1]
        assert not batch["num_samples"][5:].any()
        assert not batch["num_labels"][5:].any()


def spoil(utterances: list[Utterance], kind: str) -> str:
    """Makes utterance 4 unusable and returns the start of the message."""
    utterance = utterances[4]
    if kind == "unreadable audio":
        utterance.audio.unlink()
        return f"{utterance.audio} must be a readable file, got: No such file or directory."
    utterances[4] = Utterance(utterance.audio, 0.02, utterance.transcript, "u4")
    seconds = f"{utterance.duration:.3f}"
    return (
        f"{utterance.audio} must last the 0.02 s that its manifest says, got {seconds} s. "
        "Correct the duration in the manifest."
    )


def test_segments_give_the_batches_of_their_own_files(utterances: list[Utterance], tmp_path: Path) -> None:
    waveforms = [read_audio(each.audio, RATE) for each in utterances]
    ends = np.cumsum([len(waveform) for waveform in waveforms]) / RATE
    soundfile.write(tmp_path / "all.flac", np.concatenate(waveforms), RATE, subtype="PCM_16")
    segments = [
        dataclasses.replace(each, audio=tmp_path / "all.flac", offset=end - each.duration)
        for each, end in zip(utterances, ends.tolist(), strict=True)
    ]
    plan = plan_of(utterances)
    for whole, part in zip(batches(plan, utterances), batches(plan, segments), strict=True):
        for name, array in whole.items():
            np.testing.assert_array_equal(part[name], array)


def test_recording_shorter_than_its_manifest_says(utterances: list[Utterance]) -> None:
    plan = plan_of(utterances)
    short = utterances[4]
    for share, passes in ((0.95, True), (0.5, False)):
        soundfile.write(short.audio, np.full(int(short.num_samples(RATE) * share), 0.1), RATE)
        if passes:
            list(batches(plan, utterances))
        else:
            with pytest.raises(InputError, match=r"^Utterance u4: .*4\.wav must last the .* s that its manifest says"):
                list(batches(plan, utterances))


def test_recording_too_short_for_its_transcript(utterances: list[Utterance]) -> None:
    utterances[:] = [dataclasses.replace(utterance, transcript="A") for utterance in utterances]
    utterances[4] = Utterance(utterances[4].audio, 0.37, "IT'S FOURS", "u4")  # 38 frames: 10 of 40 ms, one a letter
    plan = plan_of(utterances)
    soundfile.write(utterances[4].audio, np.full(round(0.355 * RATE), 0.1), RATE)
    list(batches(plan, utterances))  # an evaluation
    message = r"^Utterance u4: \"IT'S FOURS\" must have 10 output frames, got 9$"
    with pytest.raises(InputError, match=message):
        list(batches(plan, utterances, time_reduction=4))
    problems: list[Problem] = []
    seen = list(batches(plan, utterances, time_reduction=4, on_problem=problems.append))
    assert [(problem.id, problem.reason) for problem in problems] == [("u4", "too few output frames")]
    assert 4 not in np.concatenate([batch["indices"] for batch in seen])


@pytest.mark.parametrize("skips", [False, True])
def test_defect_in_a_worker_names_the_utterance_and_is_never_skipped(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch, skips: bool
) -> None:
    def fail(path: Path, sample_rate: int) -> np.ndarray:
        if path.stem == "4":
            raise ZeroDivisionError("a defect")
        return read_audio(path, sample_rate)

    monkeypatch.setattr(manifest, "read_audio", fail)
    with pytest.raises(RuntimeError, match=r"^Utterance u4, .*4\.wav: (?s:.*)ZeroDivisionError: a defect") as caught:
        list(batches(plan_of(utterances), utterances, on_problem=(lambda _: None) if skips else None))
    assert "PyFunc" not in str(caught.value)


KINDS = ["unreadable audio", "wrong duration"]


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_utterance_stops_with_the_original_message(utterances: list[Utterance], kind: str) -> None:
    plan = plan_of(utterances)
    message = spoil(utterances, kind)
    with pytest.raises(InputError, match=f"^{re.escape(f'Utterance u4: {message}')}") as caught:
        list(batches(plan, utterances))
    assert type(caught.value) is InputError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_utterance_becomes_a_named_empty_row_on_request(utterances: list[Utterance], kind: str) -> None:
    plan = plan_of(utterances)
    message = spoil(utterances, kind)
    problems: list[Problem] = []
    seen = list(batches(plan, utterances, on_problem=problems.append))
    assert [(p.id, p.audio, p.reason) for p in problems] == [("u4", str(utterances[4].audio), kind)]
    assert problems[0].detail.startswith(message)
    for planned, batch in zip(plan, seen, strict=True):
        expected = np.where(planned.indices == 4, -1, planned.indices)
        np.testing.assert_array_equal(batch["indices"], expected)
        np.testing.assert_array_equal(batch["num_samples"] > 0, expected >= 0)
        np.testing.assert_array_equal(batch["num_labels"] > 0, expected >= 0)
        np.testing.assert_array_equal(batch["waveforms"].any(1), expected >= 0)


def test_problems_are_told_in_the_order_of_the_plan(utterances: list[Utterance]) -> None:
    for utterance in utterances:
        utterance.audio.unlink()
    plan = plan_of(utterances)
    problems: list[Problem] = []
    list(batches(plan, utterances, on_problem=problems.append))
    assert [p.id for p in problems] == [f"u{i}" for batch in plan for i in batch.indices.tolist() if i >= 0]


@pytest.mark.parametrize(("excess", "fits"), [(HOP - 1, True), (HOP, False)])
def test_a_file_may_be_less_than_one_hop_longer_than_its_manifest_says(tmp_path: Path, excess: int, fits: bool) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(1_600 + excess), RATE)
    problems: list[Problem] = []
    utterance = Utterance(path, 0.1, "YES", "a")
    (batch,) = batches(plan_of([utterance], batch_size=1), [utterance], on_problem=problems.append)
    assert batch["num_samples"].tolist() == [1_600 + excess if fits else 0]
    assert [p.reason for p in problems] == ([] if fits else ["wrong duration"])


def test_batches_are_decoded_side_by_side(utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=10)

    def read_together(path: Path, sample_rate: int) -> np.ndarray:
        together.wait()
        return read_audio(path, sample_rate)

    monkeypatch.setattr(manifest, "read_audio", read_together)
    assert len(list(batches(plan_of(utterances[:9], batch_size=1), utterances, num_workers=3))) == 9


def test_end_is_not_waited_for(utterances: list[Utterance]) -> None:
    """tf.data's tuner would sleep until 5.1 s after the first batch."""
    for _ in batches(4 * plan_of(utterances, batch_size=1), utterances):  # with a few batches it would not
        time.sleep(0.08)
        last = time.monotonic()
    assert time.monotonic() - last < 1


def test_closing_early_stops_the_decoding(utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def read_slowly(path: Path, sample_rate: int) -> np.ndarray:
        read.append(path)
        time.sleep(0.1)
        return read_audio(path, sample_rate)

    monkeypatch.setattr(manifest, "read_audio", read_slowly)
    running = batches(plan_of(utterances, batch_size=1), utterances, num_workers=1)
    next(running)
    start = time.monotonic()
    running.close()
    assert time.monotonic() - start < 5
    num_read = len(read)
    time.sleep(0.3)
    assert len(read) == num_read < NUM_UTTERANCES


def test_tensorflow_sees_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    hidden: list[tuple[list[str], str]] = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: hidden.append((devices, kind)))
    load_tensorflow.__wrapped__()
    assert hidden == [([], "GPU"), ([], "TPU")]


SCRIPT = """
import pathlib, sys, time
import numpy as np
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.data import manifest, pipeline
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.plan import PlannedBatch
from ds2_jax.data.splits import Split
from ds2_jax.system.errors import InputError

assert "tensorflow" not in sys.modules

def read_slowly(path, sample_rate):
    time.sleep(int(path.name) > 3)  # still at it when the process ends
    if path.name == "2":
        raise InputError("broken")
    return np.ones(160, np.float32)

manifest.read_audio = read_slowly
split = Split([Utterance(pathlib.Path(str(i)), 0.01, "A", str(i)) for i in range(50)], Alphabet("A"))
plan = [PlannedBatch(319, np.array([i], np.int32)) for i in range(50)]
settings = dict(sample_rate=16_000, hop_length=160, num_workers=4)
left_open = pipeline.batches(plan[3:], split, **settings)
print(next(left_open)["indices"])
try:
    list(pipeline.batches(plan, split, **settings))
except InputError as error:
    kept = error
    print(error)
import tensorflow as tf
print({device.device_type for device in tf.config.get_visible_devices()})
"""


def test_a_process_ends_in_silence_with_batches_left_open() -> None:
    """Without the exit handler it would hang: decoders wait for the GIL, and the process waits for them."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[3]\nUtterance 2: broken\n{'CPU'}\n", "")
    assert done.returncode == 0

"""A batch is read as it was written, and any other content is refused."""

import dataclasses
import errno
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ds2_jax.data.manifest import Utterance
from ds2_jax.system.errors import InputError
from ds2_jax.training.replay.batch_file import FailedStep, read_batch, replay_hint, write_batch

Arrays = dict[str, np.ndarray]


def make_step(num_rows: int = 4, **changes: Any) -> FailedStep:
    generator = np.random.default_rng(num_rows)
    num_samples = np.array([700, 650, 600, 0][:num_rows], np.int32)
    waveforms = generator.normal(size=(num_rows, 700)).astype(np.float32)
    waveforms[0, :3] = np.nan, np.inf, -np.inf
    failed = FailedStep(
        step=812,
        epoch=2,
        loss=float("nan"),
        grad_norm=float("inf"),
        steps_per_epoch=300,
        num_devices=2,
        num_processes=1,
        process_index=0,
        made_on="2 x cpu, jax 0.10.1",
        ids=["a", "b \u00e9", "c", ""][:num_rows],
        audio=["/data/a.wav", "/data/\ud800.wav", "c.wav", ""][:num_rows],
        batch={
            "waveforms": waveforms,
            "num_samples": num_samples,
            "labels": generator.integers(0, 20, (num_rows, 5)).astype(np.int32),
            "num_labels": np.array([5, 3, 1, 0][:num_rows], np.int32),
            "indices": np.array([3, 9, 100_000, -1][:num_rows], np.int32),
        },
    )
    return dataclasses.replace(failed, **changes)


def assert_same(actual: FailedStep, expected: FailedStep) -> None:
    assert str({**vars(actual), "batch": None}) == str({**vars(expected), "batch": None})  # as text, NaN equals NaN
    assert actual.batch.keys() == expected.batch.keys()
    for name, value in expected.batch.items():
        np.testing.assert_array_equal(actual.batch[name], value)
        assert actual.batch[name].dtype == value.dtype


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = write_batch(tmp_path, make_step())
    assert path == tmp_path / "replay/step-812.npz"
    assert [each.name for each in path.parent.iterdir()] == ["step-812.npz"]
    assert_same(read_batch(path), make_step())
    write_batch(tmp_path, make_step(loss=1.5))  # the step failed again
    assert read_batch(path).loss == 1.5
    with np.load(path, allow_pickle=False) as arrays:  # NumPy can read the file
        np.testing.assert_array_equal(arrays["waveforms"], make_step().batch["waveforms"])


def test_step_knows_its_utterances_and_its_devices(tmp_path: Path) -> None:
    batch = make_step().batch
    utterances = [Utterance(Path(f"/data/{i}.wav"), 1.0, "", f"utterance {i}") for i in range(100_001)]
    metrics = {"loss": np.float32("inf"), "grad_norm": np.float32("nan"), "alignable": np.int32(3)}
    failed = FailedStep.met(812, 2, metrics, batch, utterances, steps_per_epoch=300)
    expected = make_step(
        loss=float("inf"),
        grad_norm=float("nan"),
        num_devices=8,
        made_on=f"8 x cpu, jax {jax.__version__}",
        ids=["utterance 3", "utterance 9", "utterance 100000", ""],
        audio=["/data/3.wav", "/data/9.wav", "/data/100000.wav", ""],
    )
    assert_same(failed, expected)
    hint = replay_hint(write_batch(tmp_path / "a run", failed))
    path = f"{tmp_path}/a run/replay/step-812.npz"
    assert hint == f"{path} holds the batch (0.0 MiB): python main.py replay '{path}' shows the cause."


def test_rows_of_all_processes_come_together(tmp_path: Path) -> None:
    whole = make_step()
    for i, rows in enumerate((slice(0, 2), slice(2, 4))):
        batch = {name: value[rows] for name, value in whole.batch.items()}
        ids, audio = whole.ids[rows], whole.audio[rows]
        part = make_step(num_processes=2, process_index=i, batch=batch, ids=ids, audio=audio)
        assert write_batch(tmp_path, part).name == f"step-812.{i + 1}-of-2.npz"
    for path in sorted((tmp_path / "replay").iterdir()):
        read = read_batch(path)
        assert_same(dataclasses.replace(read, process_index=0), dataclasses.replace(whole, num_processes=2))
    write_batch(tmp_path, dataclasses.replace(part, epoch=5))
    other = r"step-812\.2-of-2\.npz must be part 2 of the step in .*1-of-2\.npz, got another step or part"
    with pytest.raises(InputError, match=other):
        read_batch(tmp_path / "replay/step-812.1-of-2.npz")
    (tmp_path / "replay/step-812.2-of-2.npz").unlink()
    with pytest.raises(InputError, match=r"got .*step-812\.2-of-2\.npz, which is not a file"):
        read_batch(tmp_path / "replay/step-812.1-of-2.npz")


def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "replay").write_text("in the way")
    with pytest.raises(InputError, match=r"replay/step-812\.npz must be writable, got: "):
        write_batch(tmp_path, make_step())


def save(path: Path, arrays: Arrays, compressed: bool = False) -> None:
    (np.savez_compressed if compressed else np.savez)(path, allow_pickle=True, **arrays)


def test_write_that_fails_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def savez(file: Any, **_: Any) -> None:
        file.write(b"PK")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = write_batch(tmp_path, make_step(loss=1.5))
    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(InputError, match=r"step-812\.npz must be writable, got: No space left on device\."):
        write_batch(tmp_path, make_step(loss=2.5))
    assert [each.name for each in path.parent.iterdir()] == ["step-812.npz"]
    assert read_batch(path).loss == 1.5


def arrays_of(path: Path) -> Arrays:
    with np.load(path) as arrays:
        return dict(arrays)


def about_with(**changes: Any) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        about = json.loads(arrays["about"].tobytes()) | changes
        return arrays | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}

    return change


def with_array(name: str, value: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: np.asarray(value)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda arrays: {name: value for name, value in arrays.items() if name != "labels"}, "other arrays"),
        (with_array("more", 1), "other arrays"),
        (with_array("about", np.frombuffer(b"{}", np.uint8)), "no description of the step"),
        (with_array("about", np.frombuffer(b"[" * 100_000, np.uint8)), "maximum recursion depth"),
        (with_array("about", np.frombuffer(b"\xff", np.uint8)), "utf-8"),
        (with_array("waveforms", np.zeros((4, 700))), "waveforms float64 (4, 700)"),
        (with_array("waveforms", np.zeros((700, 4), np.float32).T), "another format"),  # in Fortran order
        (with_array("waveforms", np.zeros((3, 700), np.float32)), "waveforms float32 (3, 700)"),
        (with_array("labels", np.zeros(4, np.int32)), "labels int32 (4,)"),
        (with_array("labels", np.array(["a"] * 4)), "another format"),
        (with_array("labels", np.zeros(4, "i4,f4")), "another format"),
        (with_array("indices", np.int32(3)), "0 rows"),
        (with_array("num_samples", np.array([701, 0, 0, 0], np.int32)), "num_samples outside 0 to 700"),
        (with_array("num_labels", np.array([-1, 0, 0, 0], np.int32)), "num_labels outside 0 to 5"),
        (about_with(step=0), "step 0"),
        (about_with(step=True), "step True"),
        (about_with(step=10**400), "step 1000"),
        (about_with(epoch="2"), "epoch '2'"),
        (about_with(loss="nan"), "loss 'nan'"),
        (about_with(ids=["a"]), "ids that are not one string per row"),
        (about_with(audio=[1, 2, 3, 4]), "audio that are not one string per row"),
        (about_with(made_on=None), "made_on that is not a string"),
        (about_with(num_devices=3), "4 rows for 3 devices of 1 processes"),
        (about_with(process_index=1), "process_index 1 of 1"),
        (about_with(num_processes=4), "2 devices of 4 processes"),
        (about_with(more=1), "no description of the step"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, change: Callable[[Arrays], Arrays], reason: str) -> None:
    path = write_batch(tmp_path, make_step())
    save(path, change(arrays_of(path)))
    with pytest.raises(InputError) as caught:
        read_batch(path)
    start, end = str(caught.value).split(", got: ")
    assert start == f"{path} must be an undamaged batch that training has saved"
    assert reason in end
    assert end.endswith(". Copy it again, or continue the run without --overwrite, until this step fails again.")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = write_batch(tmp_path, make_step())
    save(path, arrays_of(path) | {"labels": np.array([print, None], object)})
    with pytest.raises(InputError, match="another format"):
        read_batch(path)


@pytest.mark.parametrize(
    "shape", ["(4, 1000000000000)", "(99999999999999999999,)", "(4, 700, 0, 10000000000)", "(-4, -700)"]
)
def test_no_memory_is_taken_for_what_a_header_claims(tmp_path: Path, shape: str) -> None:
    path = write_batch(tmp_path, make_step())
    with zipfile.ZipFile(path) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    honest = arrays["waveforms.npy"]
    arrays["waveforms.npy"] = honest.replace(b"(4, 700), }" + b" " * (len(shape) - 8), shape.encode() + b", }")
    assert len(arrays["waveforms.npy"]) == len(honest)
    assert arrays["waveforms.npy"] != honest
    with zipfile.ZipFile(path, "w") as new:  # with a valid checksum
        for name, array in arrays.items():
            new.writestr(name, array)
    with pytest.raises(InputError, match=r"an array of another (size than|format)"):
        read_batch(path)


def test_compressed_arrays_are_refused(tmp_path: Path) -> None:
    path = write_batch(tmp_path, make_step())
    save(path, arrays_of(path), compressed=True)  # 1 GB of zeros takes 1 MB
    with pytest.raises(InputError, match="arrays that are compressed"):
        read_batch(path)


def test_damaged_files_are_refused_or_read_as_they_were(tmp_path: Path) -> None:
    """Files are truncated, or have changed bytes, most of them in the structure of the archive."""
    path = write_batch(tmp_path, make_step())
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    structure = [i for found in re.finditer(rb"PK..|NUMPY.{120}", whole, re.DOTALL) for i in range(*found.span())]
    places = np.array([*structure, *range(len(whole) - 700, len(whole))])
    messages = []
    for trial in range(1_000):
        content = bytearray(whole)
        for _ in range(generator.integers(1, 4)):
            place = generator.choice(places) if generator.random() < 0.8 else generator.integers(len(whole))
            content[place] = generator.choice([0, 1, 255, int(generator.integers(256))])
        if trial % 4 == 0:
            del content[generator.integers(len(whole)) :]
        path.write_bytes(content)
        try:
            assert_same(read_batch(path), make_step())
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 500
    start = f"{path} must be an undamaged batch that training has saved, got: "
    assert [message for message in messages if not message.startswith(start)] == []


@pytest.mark.parametrize("name", ["no.npz", ".", "x" * 5000])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"FILE must be a batch that training has saved, got .*, which is not a file"):
        read_batch(tmp_path / name)

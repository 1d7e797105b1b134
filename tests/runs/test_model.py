"""Folders and files of exported models: what is damaged, foreign or hostile is refused by name."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ds2_jax import config as config_lib
from ds2_jax.engines import onnx as engine
from ds2_jax.recognition.stream_steps import StepInput, StreamSteps
from ds2_jax.runs.model import open_model
from ds2_jax.system.errors import InputError
from tests.engines import hostile

FILES: dict[str, Callable[[], bytes]] = {
    "config.json": lambda: config_lib.to_json(hostile.CONFIG).encode(),
    "model.onnx": hostile.whole,
    "streaming.onnx": hostile.step,
    "model.safetensors": hostile.weights,
}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder that `export` could have written."""
    folder = tmp_path / "exported"
    folder.mkdir()
    for name, make in FILES.items():
        (folder / name).write_bytes(make())
    return folder


def use(path: Path) -> None:
    """Opens a model, recognises whole recordings, and a stream if it can."""
    model = open_model(path, "onnx")
    samples = np.sin(np.arange(2000, dtype=np.float32))
    model.log_probs(samples[None], np.array([2000], np.int32))
    if model.can_stream:
        steps = StreamSteps(model, hostile.STEP_FRAMES)
        steps.run([StepInput(steps.open(), samples[: steps.samples], -1, True)])


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        use(path)
    return str(error.value)


def test_a_whole_folder_is_accepted(exported: Path) -> None:
    use(exported)


@pytest.mark.parametrize("name", hostile.other_settings())
@pytest.mark.parametrize("place", ["config.json", "model.onnx", "model.safetensors"])
def test_other_settings_are_refused(name: str, place: str, exported: Path) -> None:
    settings = hostile.other_settings()[name]
    files = {"config.json": (settings or "").encode()}
    files["model.onnx"], files["model.safetensors"] = hostile.with_settings(settings)
    (exported / place).write_bytes(files[place])
    found = refusal(exported if place == "config.json" else exported / place)
    assert str(exported) in found
    assert len(found) < 1000


LINKS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a broken link": lambda path: path.symlink_to("gone"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_refused_unread(kind: str, name: str, exported: Path) -> None:
    if name == "model.onnx":
        (exported / "model.safetensors").unlink()  # which would take its place
    if name == "model.safetensors":
        (exported / "model.onnx").unlink()
    (exported / name).unlink()
    LINKS[kind](exported / name)
    assert str(exported) in refusal(exported)
    assert str(exported / name) in refusal(exported / name)


def test_settings_that_are_too_long_are_refused(exported: Path) -> None:
    with (exported / "config.json").open("r+b") as file:
        file.truncate(2**40)
    assert f"{exported / 'config.json'} must hold settings of at most 4194304 bytes, got 1099511627776." in refusal(
        exported
    )


def test_a_step_of_another_model_is_refused(exported: Path) -> None:
    (exported / "streaming.onnx").write_bytes(hostile.whole())
    assert f"{exported / 'streaming.onnx'} must have the inputs and outputs that `export` writes" in refusal(exported)


@pytest.mark.parametrize(
    ("name", "value"), [("lookahead_context", 60_000), ("lookahead_context", 3), ("hidden_size", 4)]
)
def test_a_state_of_other_settings_is_refused(name: str, value: int, exported: Path) -> None:
    tree = json.loads(config_lib.to_json(hostile.CONFIG))
    tree["model"][name] = value
    (exported / "config.json").write_text(json.dumps(tree))
    assert str(exported / "streaming.onnx") in refusal(exported)


def test_a_step_of_other_frames_is_refused(exported: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"streaming\.onnx must have the inputs and outputs that `export` writes .*, got samp",
    ):
        StreamSteps(open_model(exported, "onnx"), 3)


@pytest.mark.parametrize(("output", "by"), [("next_steps", 0), ("next_sums", 0), ("log_probs", np.nan)])
def test_a_step_with_other_results_is_refused(output: str, by: float, exported: Path) -> None:
    (exported / "streaming.onnx").write_bytes(hostile.step_with(output, by))
    found = refusal(exported)
    assert str(exported) in found
    assert (f"got {output}" in found) == (output != "log_probs")


def test_memory_is_that_of_each_model(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is opened later leaves the first one its memory."""
    large = open_model(exported, "onnx")
    waveforms = np.ones((1, 2_000_000), np.float32)
    counts = np.array([2_000_000], np.int32)
    large.log_probs(waveforms[:, :2000], counts // 1000)
    monkeypatch.setattr(engine, "MEMORY", 2**20)
    small = open_model(exported, "onnx")
    small.log_probs(waveforms[:, :2000], counts // 1000)
    with pytest.raises(InputError, match=r"model\.onnx must run in 0\.0 GiB, half of this machine's memory"):
        small.log_probs(waveforms, counts)
    large.log_probs(waveforms, counts)

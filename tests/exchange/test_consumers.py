"""Installs other programs, unmodified, and runs the examples of docs/export.md on what `export` writes for them.

The model has drawn weights, so that its texts have double letters and spaces anywhere, and is small.
"""

import dataclasses
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
import pytest
import soundfile

import ds2_jax
from ds2_jax.audio import made_speech
from ds2_jax.config import Config
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.engines import onnx_graph
from ds2_jax.exchange import card
from ds2_jax.exchange.export import export
from ds2_jax.exchange.layouts import LayoutEngine
from ds2_jax.exchange.target import Target
from ds2_jax.runs.model import jax_engine, read_variables
from tests import environments
from tests.conftest import ROOT
from tests.environments import called
from tests.small_runs import RATE, SMALL_CONFIG, some_state, write_untrained_run

pytestmark = pytest.mark.slow

examples = functools.partial(environments.examples, "export.md")
NUM_RECORDINGS = 4
# So many channels go through Fourier transforms.
CONFIG = dataclasses.replace(
    SMALL_CONFIG, model=dataclasses.replace(SMALL_CONFIG.model, hidden_size=32, channels=(16, 16))
)
CLOSE = 1e-4
"""Largest difference in log-probability, as a share of the largest of them."""
LIVE = dataclasses.replace(
    CONFIG,
    model=dataclasses.replace(CONFIG.model, bidirectional=False, lookahead_context=3),
    features=dataclasses.replace(CONFIG.features, normalisation="running"),
)

Environment = Callable[..., Path]


def write_run(folder: Path, config: Config, waveforms: list[np.ndarray], *, extra: float) -> Path:
    """Writes a run of drawn weights that are large enough for its texts to be varied.

    Before the head, a shift makes all labels equally likely in the mean; `extra` is for blank and space, in nats.
    """
    state = some_state(config)
    params: dict[str, Any] = jax.tree.map(lambda leaf: 2 * leaf, state.params)
    params["head"] *= 8
    drawn = onnx_graph.whole(config, {"params": params, "batch_stats": state.batch_stats}).SerializeToString()
    session = onnxruntime.InferenceSession(drawn)
    outputs = [session.run(None, {"waveforms": each[None], "num_samples": [len(each)]})[0][0] for each in waveforms]
    means = np.concatenate(outputs).mean(axis=0)
    means -= means.mean()
    means[[0, -1]] -= extra
    params["head_norm"]["bias"] -= np.linalg.lstsq(params["head"].T, means)[0].astype(np.float32)
    return write_untrained_run(folder, config, dataclasses.replace(state, params=params))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= CLOSE * np.abs(expected).max()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, waveforms: list[np.ndarray]) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "small", CONFIG, waveforms, extra=2)


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    """Made speech, as 16 bits hold it."""
    made = [made_speech.utterance(1.5 + 0.37 * seed, seed) for seed in range(NUM_RECORDINGS)]
    return [(np.round(each * 32767) / 32768).astype(np.float32) for each in made]


@pytest.fixture(scope="module")
def log_probs(run: Path, waveforms: list[np.ndarray]) -> list[np.ndarray]:
    """The run's log-probabilities."""
    engine = jax_engine(CONFIG, jax.device_get(read_variables(run, CONFIG)))
    return [engine.log_probs(each[None], np.array([len(each)], np.int32))[0][0] for each in waveforms]


@pytest.fixture(scope="module")
def texts(log_probs: list[np.ndarray]) -> list[str]:
    decode = make_decoder(CONFIG)
    found = [decode(each)[0].text for each in log_probs]
    assert re.search(r"([A-Z'])\1", "".join(found)), "no text has double letters"
    assert " " in "".join(found)
    return found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Callable[..., Path]:
    """Makes a folder in which `model` is what `export` writes."""

    def make(target: Target | None = None, *, stablehlo: bool = False, of: Path = run) -> Path:
        folder = tmp_path_factory.mktemp("work")
        assert export(of, folder / "model", int8=False, stablehlo=stablehlo, target=target, manifest=None) == 0
        return folder

    return make


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Makes an environment of its own and returns its interpreter."""
    folders = []

    def install(*packages: str) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        folders.append(folder)
        return environments.install_python(folder, *packages)

    yield install
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Installs Node and its packages."""
    folder = tmp_path_factory.mktemp("node")
    packages = "node@26.10.0", "onnxruntime-web@1.30.0", "@huggingface/transformers@4.3.2"
    os.environ["ONNXRUNTIME_NODE_INSTALL"] = "skip"  # it would fetch CUDA's libraries
    yield environments.install_node(folder, *packages)
    shutil.rmtree(folder)


def heard(program: Path, code: str, folder: Path, waveforms: list[np.ndarray], name: str = "example.py") -> list[str]:
    """Runs an example on each recording and returns what it prints."""
    (folder / name).write_text(code, encoding="utf-8")
    found = []
    for waveform in waveforms:
        soundfile.write(folder / "recording.wav", waveform, RATE, subtype="PCM_16")
        found.append(called(program, name, cwd=folder))
    return found


@pytest.mark.parametrize("kind", ["sherpa-onnx", "onnx-asr", "transformers.js", "stablehlo"])
def test_docs_have_the_example_of_the_model_card(kind: card.Kind) -> None:
    heading = "StableHLO" if kind == "stablehlo" else str(kind)
    config = dataclasses.replace(CONFIG, features=dataclasses.replace(CONFIG.features, sample_rate=RATE))
    assert examples(heading)[0] == card.example(kind, config, "model") + "\n"


def test_onnx_runtime(work: Callable[..., Path], waveforms: list[np.ndarray], texts: list[str]) -> None:
    (code,) = examples("ONNX Runtime")
    assert heard(Path(sys.executable), code, work(), waveforms) == texts


def test_stream_with_numpy_and_onnx_runtime_alone(
    tmp_path: Path, work: Callable[..., Path], python: Environment, waveforms: list[np.ndarray]
) -> None:
    (code,) = examples("Streams")
    run = write_run(tmp_path / "live", LIVE, waveforms, extra=0)
    expected = []
    for waveform in waveforms:
        stream = ds2_jax.load(run).stream(sample_rate=RATE)
        events = [*stream.feed(waveform), *stream.finish()]
        expected.append(" ".join(event.text for event in events if isinstance(event, ds2_jax.FinalText)))
    assert all(expected)
    assert heard(python("onnxruntime==1.32.0"), code, work(of=run), waveforms) == expected


def test_openvino(
    work: Callable[..., Path], python: Environment, waveforms: list[np.ndarray], texts: list[str]
) -> None:
    (code,) = examples("OpenVINO")
    assert heard(python("openvino==2026.4.1", "soundfile"), code, work(), waveforms) == texts


def test_onnxruntime_web(
    work: Callable[..., Path], node_modules: Path, waveforms: list[np.ndarray], texts: list[str]
) -> None:
    (code,) = examples("onnxruntime-web")
    folder = work()
    (folder / "node_modules").symlink_to(node_modules)
    assert heard(node_modules / ".bin/node", code, folder, waveforms, "example.mjs") == texts


def test_transformers_js(
    work: Callable[..., Path], node_modules: Path, waveforms: list[np.ndarray], texts: list[str]
) -> None:
    (code,) = examples("transformers.js")
    folder = work("transformers.js")
    (folder / "node_modules").symlink_to(node_modules)
    assert heard(node_modules / ".bin/node", code, folder, waveforms, "example.mjs") == texts


def test_sherpa_onnx(work: Callable[..., Path], python: Environment, waveforms: list[np.ndarray]) -> None:
    (code,) = examples("sherpa-onnx")
    folder = work("sherpa-onnx")
    engine, decode = LayoutEngine("sherpa-onnx", folder / "model", CONFIG), make_decoder(CONFIG)
    own = [engine.log_probs(each[None], np.array([len(each)]))[0][0] for each in waveforms]
    found = heard(python("sherpa-onnx==2.0.1", "soundfile"), code, folder, waveforms)
    assert found == [decode(each)[0].text for each in own]


def test_stablehlo_in_jax_without_this_package(
    work: Callable[..., Path], waveforms: list[np.ndarray], log_probs: list[np.ndarray]
) -> None:
    code = examples("StableHLO")[0] + 'np.save("log_probs.npy", log_probs[0, : num_frames[0]])\n'
    folder = work(stablehlo=True)
    for waveform, expected in zip(waveforms, log_probs, strict=True):
        heard(Path(sys.executable), code, folder, [waveform])
        assert_close(np.load(folder / "log_probs.npy"), expected)


def test_iree(
    work: Callable[..., Path], python: Environment, waveforms: list[np.ndarray], log_probs: list[np.ndarray]
) -> None:
    _, compilation, code = examples("StableHLO")
    folder = work(stablehlo=True)
    program = python("iree-base-compiler==3.13.0", "iree-base-runtime==3.13.0", "soundfile")
    called("sh", "-c", f"PATH={program.parent}:$PATH; {compilation}", cwd=folder)
    for waveform, expected in zip(waveforms, log_probs, strict=True):
        heard(program, code, folder, [waveform])
        assert_close(np.load(folder / "log_probs.npy"), expected)


def test_stablehlo_tells_nothing_of_this_machine(work: Callable[..., Path]) -> None:
    files = [path for path in (work(stablehlo=True) / "model").iterdir() if path.suffix != ".md"]
    assert len(files) == 2
    assert [path.name for path in files if str(ROOT).encode() in path.read_bytes()] == []

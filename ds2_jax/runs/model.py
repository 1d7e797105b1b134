"""Opens a trained model for recognition: a run, the folder that `export` wrote, or one of its files.

With the engine "onnx" this loads neither JAX nor Orbax, except when the graph of a run is made for the first time.
"""

import contextlib
import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.config.live import can_stream
from ds2_jax.decoding.decoder import Decoder, make_decoder
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.engines import safetensors
from ds2_jax.engines.engine import Engine, EngineName, Steps
from ds2_jax.engines.metadata import read_metadata
from ds2_jax.engines.onnx_file import read_graph
from ds2_jax.engines.shapes import weight_shapes
from ds2_jax.runs import run_folder
from ds2_jax.runs.fitted import run_decoder
from ds2_jax.runs.named import told
from ds2_jax.runs.run_folder import STREAMING, WEIGHTS, WHOLE
from ds2_jax.runs.weights import weights_of
from ds2_jax.system import packages
from ds2_jax.system.caches import cache_folder
from ds2_jax.system.cores import num_cores
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import write_bytes
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import check_names_no_file

if TYPE_CHECKING:
    from jax.sharding import Mesh

logger = logging.getLogger(__package__)

GRAPH_VERSION = 1
"""Changes if `engines.onnx_graph` writes another graph for the same weights, so that kept graphs are made again."""
GRAPHS_IN_CACHE = 8
"""Graphs of a kind that are kept for .safetensors files. Those of a run lie in its folder."""


class Model:
    """A trained model that is ready to recognise speech; see `open_model`.

    Args:
        config: settings of the run.
        engine: runs the model.
        path: where calibration and tuned weights lie.
        has_step: whether the engine can run a step.

    Attributes:
        can_stream: whether the model can recognise a stream step by step.
        compiles: see `engines.engine.Engine`.
    """

    def __init__(self, config: Config, engine: Engine, path: Path | None = None, *, has_step: bool = True) -> None:
        self.config, self.path = config, path
        self.alphabet = Alphabet.of(config.data)
        self.can_stream = has_step and can_stream(config)
        self._engine = engine
        self.compiles = engine.compiles
        self.batches_at_once = num_cores() if engine.one_core else 1

    def decoder(self, options: DecodingOptions = GREEDY) -> Decoder:
        """Makes the decoder of this model, with its calibration and tuned weights.

        Raises:
            InputError: see `run_decoder`.
        """
        return run_decoder(self.config, self.path, options) if self.path else make_decoder(self.config, options)

    def log_probs(
        self, waveforms: np.ndarray, num_samples: np.ndarray, *, on_one_core: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes log-probabilities; see `engines.engine.Engine`.

        Raises:
            InputError: the model gives none, or of another alphabet or number of frames than its settings say.
        """
        engine = self._engine.one_core if on_one_core else None
        log_probs, output_lengths = (engine or self._engine).log_probs(waveforms, num_samples)
        frames = count_frames(num_samples, self.config.features.hop_length)
        frames = conv_output_lengths(frames, self.config.model.time_reduction)
        if output_lengths.shape != frames.shape or (output_lengths != frames).any():
            raise self._refused(f"other numbers of frames than {frames[:3].tolist()}")
        self.check(log_probs, len(waveforms), max(frames, default=0))
        return log_probs, output_lengths

    def steps(self, num_frames: int) -> Steps:
        """Prepares steps of so many output frames; see `engines.engine.Engine`."""
        return self._engine.steps(num_frames)

    def check(self, log_probs: np.ndarray, rows: int, frames: int) -> None:
        """Checks what an engine gives.

        Raises:
            InputError: these are no log-probabilities of so many rows, at least so many frames, and this alphabet.
        """
        shape, labels = log_probs.shape, self.alphabet.size
        if len(shape) != 3 or shape[0] != rows or shape[1] < frames or shape[2] != labels:
            raise self._refused(f"the shape {list(shape)} instead of {[rows, frames, labels]}")
        highest = np.max(log_probs, initial=-np.inf)
        if not highest <= 1e-3:  # NaN is not either
            raise self._refused(f"{highest}")

    def _refused(self, got: str) -> InputError:
        return InputError(
            f"{self.path or 'The model'} must give log-probabilities of its settings and its alphabet, got {got}. "
            "Export it again, or use another model."
        )


def open_model(path: Path, engine: EngineName | None = None) -> Model:
    """Opens a trained model.

    Args:
        path: a run, an exported folder, or a .onnx or .safetensors file.
        engine: what runs it; by default `default_engine`.

    Raises:
        InputError: there is no model at this path, it is damaged, or the engine cannot run it.
    """
    config = read_config(path)
    if (engine or default_engine()) == "jax":
        return Model(config, jax_engine(config, read_variables(path, config)), path)
    has_step = not (path.is_file() and path.suffix == ".onnx")
    return Model(config, _onnx_engine(path, config), path, has_step=has_step)


def default_engine() -> EngineName:
    """Returns "jax" if JAX is installed with support of an accelerator and may use it, otherwise "onnx"."""
    accelerated = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    return "jax" if accelerated and os.environ.get("JAX_PLATFORMS", "") != "cpu" else "onnx"


def read_config(path: Path) -> Config:
    """Reads the settings of the model at a path; see `Model`.

    Raises:
        InputError: there is no model at this path, or its settings are damaged.
    """
    try:
        config = config_lib.from_json(_settings(path)) if path.is_file() else run_folder.load_config(path)
        check_names_no_file(config.data.units)
        Alphabet.of(config.data)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error
    return config


def _settings(path: Path) -> str:
    """Reads the settings, as JSON, from the metadata of a file."""
    metadata = read_metadata(path)
    if "config" not in metadata:
        raise InputError(f"{path} must be a model that `export` wrote, got a file without its settings.")
    run_folder.check_length(path, len(metadata["config"]))
    return metadata["config"]


def read_variables(path: Path, config: Config, mesh: "Mesh | None" = None) -> Any:
    """Reads params and batch_stats of the model at a path onto every device of a mesh, by default one.

    Raises:
        InputError: there are no weights at this path, or they are damaged or of other shapes.
    """
    import jax  # the reader of checkpoints and the shapes of a model need it

    from ds2_jax.parallel.mesh import data_mesh, replicate
    from ds2_jax.runs.checkpoints import load_variables

    mesh = mesh or data_mesh(jax.local_devices()[:1])
    if not run_folder.is_exported(path):
        return load_variables(path, config, mesh)
    if path.suffix == ".onnx":
        raise InputError(f"--engine must be onnx for {path}, got jax. Give the folder that holds its {WEIGHTS}.")
    return replicate(_exported_variables(path, config), mesh)


def _exported_variables(path: Path, config: Config) -> Any:
    file = path / WEIGHTS if path.is_dir() else path
    return safetensors.read(file, weight_shapes(config, Alphabet.of(config.data).size))


def jax_engine(config: Config, variables: Any) -> Engine:
    """Makes an engine of weights, params and batch_stats."""
    from ds2_jax.engines.jax import JaxEngine  # this import loads JAX

    return JaxEngine(config, variables, Alphabet.of(config.data).size)


def onnx_engine(config: Config, variables: Any) -> Engine:
    """Makes an engine of weights, params and batch_stats as NumPy arrays."""
    from ds2_jax.engines import onnx_graph
    from ds2_jax.engines.onnx import OnnxEngine

    return OnnxEngine(
        "The model",
        config,
        Alphabet.of(config.data).size,
        lambda: onnx_graph.whole(config, variables).SerializeToString(),
        lambda output_frames: onnx_graph.streaming(config, variables, output_frames).SerializeToString(),
    )


def _onnx_engine(path: Path, config: Config) -> Engine:
    from ds2_jax.engines.onnx import OnnxEngine

    def streaming_file(output_frames: int) -> bytes:  # noqa: ARG001 - the file is for the usual number
        return read_graph(path / STREAMING)

    num_labels = Alphabet.of(config.data).size
    if path.suffix == ".onnx" and path.is_file():
        return OnnxEngine(str(path), config, num_labels, lambda: read_graph(path), streaming_file)
    if run_folder.is_exported(path) and (path / WHOLE).is_file():
        names = str(path / WHOLE), str(path / STREAMING)
        return OnnxEngine(names[0], config, num_labels, lambda: read_graph(path / WHOLE), streaming_file, names[1])
    graphs = _Graphs(path, config)
    return OnnxEngine(str(path), config, num_labels, graphs.whole, graphs.streaming)


class _Graphs:
    """Makes the graphs of a run or of weights, and keeps them beside its checkpoints or in the user's cache."""

    def __init__(self, path: Path, config: Config) -> None:
        self._path, self._config = path, config
        self._digest = self._sum()

    def whole(self) -> bytes:
        return self._kept("whole", None)

    def streaming(self, output_frames: int) -> bytes:
        return self._kept(f"step{output_frames}", output_frames)

    def _kept(self, kind: str, output_frames: int | None) -> bytes:
        """Reads a graph that was kept, or makes it.

        A sum behind the graph tells whether it is whole.
        """
        if not self._digest:
            return self._make(output_frames)
        try:
            folder, others = self._folder()
            file = folder / f"{kind}-{self._digest}.onnx"
            if file.is_file() and (graph := _whole_graph(file)):
                return graph
        except (InputError, OSError, RuntimeError) as error:  # there is no cache
            logger.warning(f"the model is converted again at each start: {error}")
            return self._make(output_frames)
        graph = self._make(output_frames)
        if self._digest != self._sum():
            return graph  # the weights were replaced since they were opened
        try:
            write_bytes(file, graph + hashlib.sha256(graph).digest())
        except InputError as error:
            logger.warning(f"the model is converted again at each start: {error}")
        else:
            for older in _newest_first(each for each in folder.glob(f"{kind}-*.onnx") if each != file)[others:]:
                older.unlink(missing_ok=True)
        return graph

    def _sum(self) -> str:
        """Identifies the weights and what else decides the graph; "" if the weights have no sum."""
        weights = weights_of(self._path, self._config)[1]
        settings = f"{GRAPH_VERSION} {weights} {config_lib.to_json(self._config)}"
        return hashlib.sha256(settings.encode()).hexdigest()[:16] if weights else ""

    def _folder(self) -> tuple[Path, int]:
        """Returns where the graphs are kept, and how many others of a kind stay there."""
        if run_folder.is_exported(self._path):
            return cache_folder(run_folder.GRAPHS), GRAPHS_IN_CACHE - 1
        return self._path / run_folder.GRAPHS, 0

    @packages.explained()
    def _make(self, output_frames: int | None) -> bytes:
        from ds2_jax.engines import onnx_graph

        logger.info(f"{told(self._path)}: converting for ONNX Runtime, once")
        if run_folder.is_exported(self._path):
            variables: Any = _exported_variables(self._path, self._config)
        else:
            variables = read_variables(self._path, self._config)
        try:
            with np.errstate(all="ignore"):  # `Model.check` finds what comes of numbers that are too large
                if output_frames is None:
                    model = onnx_graph.whole(self._config, variables)
                else:
                    model = onnx_graph.streaming(self._config, variables, output_frames)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise InputError(f"{self._path} must hold the weights of its settings, got others: {error}.") from error
        return bytes(model.SerializeToString())


def _whole_graph(file: Path) -> bytes:
    """Reads a kept graph, and notes that it was used; b"" if it is damaged or gone."""
    try:
        content = read_graph(file)
    except InputError:  # another process deleted it
        return b""
    graph, found = content[:-32], content[-32:]
    if hashlib.sha256(graph).digest() != found:
        logger.warning(f"{file} is damaged and made again")
        return b""
    with contextlib.suppress(OSError):  # a folder that cannot be written
        os.utime(file)
    return graph


def _newest_first(files: Iterable[Path]) -> list[Path]:
    times = {}
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # another process deleted it
            times[file] = file.stat().st_mtime_ns
    return sorted(times, key=times.__getitem__, reverse=True)

"""This project's side: a child process that runs training steps or forward passes, like training and transcribing."""

import functools
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

from ds2_jax.audio import made_speech
from ds2_jax.bench import child
from ds2_jax.bench.compile_counts import Programs
from ds2_jax.bench.options import Forward
from ds2_jax.bench.size import Size
from ds2_jax.config import Config
from ds2_jax.engines import onnx_graph
from ds2_jax.engines.onnx import OnnxEngine
from ds2_jax.model import features
from ds2_jax.model.inference import infer, init_variables
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import init_state, train_step
from ds2_jax.parallel.mesh import data_mesh, parallel_train_step, replicate
from ds2_jax.system.compilation import compiler_options
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training.memory import held_bytes

LABELS_PER_SECOND = 14
"""Labels per second in the synthetic transcripts, as in read English."""


class Step:
    """A training step or a forward pass, compiled by `compile` and timed by `run`.

    Args:
        kind: train calls `update.train_step` through `parallel.parallel_train_step` and donates the state, like
            training. forward calls `inference.infer`, like transcribing, or an engine of ONNX Runtime.
        size: the sizes of model and batch.
        engine: what runs a forward pass.
    """

    def __init__(self, kind: Literal["train", "forward"], size: Size, engine: Forward = "jax") -> None:
        self._kind, self._config, self._engine = kind, size.config, engine
        self._batch = make_batch(size)
        num_labels = Alphabet(self._config.data.alphabet).size
        tx = make_optimizer(self._config, steps_per_epoch=1000, total_steps=70_000)
        if kind == "train":
            mesh = data_mesh()
            step = functools.partial(train_step, config=self._config, num_labels=num_labels, tx=tx)
            self._state: Any = replicate(init_state(self._config, num_labels, tx), mesh)
            self._function: Any = parallel_train_step(step, mesh, self._config.parallel)
        else:
            self._state = make_variables(self._config, num_labels)
            forward = functools.partial(infer, config=self._config, num_labels=num_labels)
            self._function = jax.jit(forward, compiler_options=compiler_options())

    def _arguments(self) -> tuple[Any, ...]:
        if self._kind == "train":
            return self._state, self._batch, jnp.int32(0)
        return self._state, self._batch["waveforms"], self._batch["num_samples"]

    def compile(self) -> float:
        """Traces, lowers and compiles, and returns the seconds that this takes. Later calls reuse the program."""
        started = time.perf_counter()
        if self._engine == "jax":
            self._compiled = self._function.lower(*self._arguments()).compile()
        else:
            model = onnx_graph.whole(self._config, jax.tree.map(np.asarray, self._state))
            content = (onnx_graph.quantised(model) if self._engine == "onnx int8" else model).SerializeToString()
            num_labels = Alphabet(self._config.data.alphabet).size
            onnx = OnnxEngine("The model", self._config, num_labels, lambda: content, lambda _: b"")
            onnx.log_probs(np.zeros((1, 1), np.float32), np.ones(1, np.int32))
            self._function = lambda _, *arguments: onnx.log_probs(*arguments)
        return time.perf_counter() - started

    def arrays_memory(self) -> float:
        """Returns the MiB of the compiled program's arguments, results and temporary arrays on each device."""
        return held_bytes(self._compiled) / 2**20

    def run(self) -> float:
        """Makes one call and returns its seconds, from NumPy arrays to results."""
        jax.block_until_ready(self._state)
        started = time.perf_counter()
        results = jax.block_until_ready(self._function(*self._arguments()))
        elapsed = time.perf_counter() - started
        if self._kind == "train":
            self._state = results[0]
        return elapsed

    def write_inputs(self, path: Path) -> None:
        """Writes the peer's inputs: the spectrograms and labels of the same batch."""
        extract = jax.jit(
            functools.partial(features.extract_features, config=features.without_statistics(self._config.features))
        )
        spectrograms, num_frames = extract(self._batch["waveforms"], self._batch["num_samples"])
        labels, num_labels = self._batch["labels"], self._batch["num_labels"]
        np.savez(path, spectrograms=spectrograms, num_frames=num_frames, labels=labels, num_labels=num_labels)


def make_variables(config: Config, num_labels: int) -> Any:
    """Draws random weights one array at a time. Drawing all at once takes more memory than a forward pass."""
    shapes = jax.eval_shape(lambda: init_variables(config, num_labels))
    rng, bound = np.random.default_rng(0), config.model.hidden_size**-0.5

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(bound * (2 * rng.random(leaf.shape, np.float32) - 1))

    return {
        "params": jax.tree.map(draw, shapes["params"]),
        "batch_stats": jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes["batch_stats"]),
    }


def make_batch(size: Size) -> dict[str, np.ndarray]:
    """Makes rows of falling length with as many letters per second as in read English."""
    config = size.config
    rate, hop = config.features.sample_rate, config.features.hop_length
    num_samples = np.array(size.frames_of_rows, np.int32) * hop - 1  # the largest number that gives these frames
    waveforms = np.zeros((len(num_samples), num_samples.max()), np.float32)
    for row, count in enumerate(num_samples.tolist()):
        waveforms[row, :count] = made_speech.utterance(count / rate, seed=row)
    num_labels = np.maximum(1, num_samples * LABELS_PER_SECOND // rate).astype(np.int32)
    rng = np.random.default_rng(0)
    labels = rng.integers(1, Alphabet(config.data.alphabet).size, (len(num_samples), num_labels.max()), np.int32)
    labels = np.where(np.arange(labels.shape[1]) < num_labels[:, None], labels, 0).astype(np.int32)
    return {
        "waveforms": waveforms,
        "num_samples": num_samples,
        "labels": labels,
        "num_labels": num_labels,
        "indices": np.arange(len(num_samples), dtype=np.int32),
    }


def matrix_product(side: int, repeats: int = 5) -> float:
    """Returns the Gflop/s of the fastest of `repeats` products of two float32 matrices of `side` rows and columns."""
    matrix = jnp.asarray(np.random.default_rng(0).standard_normal((side, side)), jnp.float32)
    product = jax.jit(functools.partial(jnp.matmul, precision="highest"))
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds[1:]) / 1e9


def main() -> None:
    """Serves requests for one `Step`: load, then compile, run, arrays_memory, write_inputs and others."""
    loaded: list[Step] = []
    programs = Programs()

    def compile_program() -> dict[str, float]:
        programs.take()
        return {"seconds": loaded[0].compile(), **programs.take()}

    def load(kind: Literal["train", "forward"], size: dict[str, int], engine: Forward = "jax") -> float:
        loaded.append(Step(kind, Size(**size), engine))
        return child.peak_memory()

    child.serve(
        {
            "load": load,
            "compile": compile_program,
            "run": lambda: loaded[0].run(),
            "arrays_memory": lambda: loaded[0].arrays_memory(),
            "write_inputs": lambda path: loaded[0].write_inputs(Path(path)),
            "peak_memory": child.peak_memory,
            "matrix_product": matrix_product,
            "describe": lambda: (
                f"jax {jax.__version__}, {jax.local_device_count()} x {jax.devices()[0].device_kind}, onnxruntime "
                f"{onnxruntime.__version__}"
            ),
        }
    )


if __name__ == "__main__":
    main()

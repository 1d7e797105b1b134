"""Makes updates of a small model with uneven rows, on any devices of any processes, for tests to compare.

`python -m tests.updates STEM OPTIMIZER DTYPE STEPS --distributed ...` makes them in one of several processes
and writes STEM<index>.npz.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Any, Literal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh

from ds2_jax.config import AugmentConfig, Config
from ds2_jax.model import update as update_lib
from ds2_jax.model.inference import eval_step
from ds2_jax.model.network import DeepSpeech2
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.parallel.cluster import ClusterOptions
from ds2_jax.parallel.mesh import data_mesh, fetch_rows, parallel_eval_step, parallel_train_step, replicate, row_layout
from ds2_jax.parallel.processes import joined
from ds2_jax.parallel.rows import ONE_DEVICE, RowLayout
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import SMALL_CONFIG, noise, some_state

NUM_SAMPLES, LABEL_WIDTH, UNALIGNABLE = 8000, 4, 3
PLAN = (np.arange(9), np.array([9, 10, *[-1] * 7]))
"""Utterances of the batches in turn. The second batch leaves most devices, and processes, without a row."""
Optimizer = Literal["sgd", "adamw"]


def make_config(optimizer: Optimizer) -> Config:
    """Makes the configuration of a small model with random draws: SpecAugment and dropout are on."""
    return dataclasses.replace(
        SMALL_CONFIG,
        augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1, time_mask_width=10),
        model=dataclasses.replace(SMALL_CONFIG.model, channels=(4, 4), dropout=0.3),
        optim=dataclasses.replace(
            SMALL_CONFIG.optim,
            optimizer=optimizer,
            learning_rate={"sgd": 0.01, "adamw": 1.5e-4}[optimizer],
            weight_decay={"sgd": 0.0, "adamw": 0.01}[optimizer],
            epsilon=1e-7,  # AdamW divides the rounding error of a zero gradient by it
        ),
    )


def make_rows(indices: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """Makes the arrays of a batch from utterance indices [B]; -1 is an empty row."""
    rows = len(indices)
    batch: dict[str, np.ndarray] = {
        "waveforms": np.zeros((rows, NUM_SAMPLES), dtype),
        "num_samples": np.zeros(rows, np.int32),
        "labels": np.zeros((rows, LABEL_WIDTH), np.int32),
        "num_labels": np.zeros(rows, np.int32),
        "indices": indices.astype(np.int32),
    }
    for row, index in enumerate(indices.tolist()):
        if index < 0:
            continue
        generator = np.random.default_rng(index)
        size = 700 if index == UNALIGNABLE else int(generator.integers(4000, NUM_SAMPLES + 1))
        count = LABEL_WIDTH if index == UNALIGNABLE else int(generator.integers(1, LABEL_WIDTH + 1))
        batch["waveforms"][row, :size] = noise(NUM_SAMPLES / 16_000, index)[:size]
        batch["labels"][row, :count] = generator.integers(1, 20, count)
        batch["num_samples"][row], batch["num_labels"][row] = size, count
    return batch


@contextlib.contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Sets the type of the model; no setting exists for float64."""

    def make_model(config: Config, num_labels: int, axis_name: str | None = None) -> DeepSpeech2:
        return DeepSpeech2(config.model, num_labels, axis_name, dtype=jnp.dtype(dtype))

    with jax.enable_x64(dtype == "float64"), mock.patch.object(update_lib, "make_model", make_model):
        yield


def update(mesh: Mesh | None, optimizer: Optimizer, dtype: str, num_steps: int) -> dict[str, np.ndarray]:
    """Makes one update with each batch of `PLAN`, then `num_steps` in turn.

    Args:
        mesh: the devices; None: `update.train_step` on one device, without the package `parallel`.
        optimizer: sgd or adamw.
        dtype: type of the model.
        num_steps: number of updates in turn.

    Returns:
        first..., second...: state and metrics after one update with that batch; SGD's momentum is then the gradient.
        many...: weights, statistics and metrics after all updates.
    """
    config = make_config(optimizer)
    num_labels = Alphabet(config.data.alphabet).size
    tx = make_optimizer(config, 1, num_steps)
    step = functools.partial(update_lib.train_step, config=config, num_labels=num_labels, tx=tx)
    layout = ONE_DEVICE if mesh is None else row_layout(mesh)
    batches = [make_rows(layout.rows(indices), dtype) for indices in PLAN]
    found: dict[str, np.ndarray] = {}
    with computing_in(dtype):
        train_step: Any = jax.jit(step) if mesh is None else parallel_train_step(step, mesh)
        signal = () if mesh is None else (jax.process_index(),)

        def start() -> Any:
            # With seed 0 the gradient of conv_norm_0's scale nearly cancels; rounding in float32 is then 1.2e-5 of it.
            state = jax.tree.map(
                lambda leaf: leaf.astype(dtype) if leaf.dtype == np.float32 else leaf, some_state(config, seed=1)
            )
            return state if mesh is None else replicate(state, mesh)

        for name, batch in zip(("first", "second"), batches, strict=True):
            state, metrics, *largest = train_step(start(), batch, jnp.int32(2), *signal)
            found |= flatten(name, (state, metrics)) | {f"{name}_signal": np.asarray(each) for each in largest}
        state = start()
        for number in range(num_steps):
            state, metrics, *_ = train_step(state, batches[number % 2], jnp.int32(number // 2))
        found |= flatten("many", (state, metrics))
    return {name: value for name, value in found.items() if not name.startswith("many['opt_state']")}


def flatten(name: str, results: tuple[Any, dict[str, Any]]) -> dict[str, np.ndarray]:
    """Maps the path of every array of state and metrics to the array."""
    state, metrics = results
    tree = {**vars(state), "metrics": {**metrics}}
    tree["metrics"].pop("empty")  # it counts the rows that pad to a multiple of the devices
    return {name + jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def assert_close(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Compares each tensor, relative to the largest entry of `expected`.

    Batch norm cancels the bias of a convolution. The bias's gradient, and its optimiser state, is therefore rounding
    error, and is compared relative to that of the kernel.
    """
    for name, reference in expected.items():
        rounding = "opt_state" in name and "['conv_" in name and "norm" not in name and "bias" in name
        scale = np.abs(expected[name.replace("bias", "kernel")] if rounding else reference).max()
        difference = np.abs(np.float64(actual[name]) - np.float64(reference)).max()
        assert difference <= tolerance * scale, f"{name}: {difference / scale:.1e}"


def evaluate(mesh: Mesh | None) -> dict[str, np.ndarray]:
    """Runs `inference.eval_step` on the first batch of `PLAN` and returns the results in the order of its rows."""
    config = make_config("sgd")
    step = functools.partial(eval_step, config=config, num_labels=Alphabet(config.data.alphabet).size)
    layout: RowLayout = ONE_DEVICE if mesh is None else row_layout(mesh)
    batch = make_rows(layout.rows(PLAN[0]), "float32")
    state = some_state(config)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if mesh is None:
        return dict(jax.device_get(jax.jit(step)(variables, batch)))
    outputs = parallel_eval_step(step, mesh)(replicate(variables, mesh), batch)
    return dict(fetch_rows({**outputs, "num_labels": batch["num_labels"]}))


def main() -> None:
    path, name, dtype, num_steps = sys.argv[1:5]
    optimizer: Optimizer = "sgd" if name == "sgd" else "adamw"
    with joined(tyro.cli(ClusterOptions, args=sys.argv[5:]), lambda: ""):
        mesh = data_mesh()
        found = update(mesh, optimizer, dtype, int(num_steps))
        found |= {f"evaluated_{name}": value for name, value in evaluate(mesh).items()}
        save: Any = np.savez
        save(f"{path}{jax.process_index()}.npz", **found)


if __name__ == "__main__":
    main()

"""Many devices, in one process or several, give the same results as one device."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ds2_jax.config import AugmentConfig, Config
from ds2_jax.model.inference import eval_step
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, train_step
from ds2_jax.parallel.mesh import AXIS, data_mesh, parallel_eval_step, parallel_train_step, replicate, row_layout
from ds2_jax.parallel.rows import RowLayout
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests import processes, updates
from tests.small_runs import SMALL_CONFIG, noise, some_state

ROWS, NUM_SAMPLES, LABEL_WIDTH = 16, 8000, 4
EMPTY_ROWS = (3, 6, 7)  # rows 6 and 7 are all rows of the fourth device
UNALIGNABLE_ROW = 9
CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1, time_mask_width=10, time_warp_frames=8),
    model=dataclasses.replace(SMALL_CONFIG.model, channels=(4, 4), dropout=0.3),
    # A step as large as the weights, so that a wrong gradient cannot hide behind them.
    optim=dataclasses.replace(SMALL_CONFIG.optim, learning_rate=0.1),
)
NUM_LABELS = Alphabet(CONFIG.data.alphabet).size
TX = make_optimizer(CONFIG, 1, 1)
TRAIN_STEP = functools.partial(train_step, config=CONFIG, num_labels=NUM_LABELS, tx=TX)
EVAL_STEP = functools.partial(eval_step, config=CONFIG, num_labels=NUM_LABELS)
EPOCH = jnp.int32(3)
NO_SIGNALS = np.zeros(8, np.int32)


def make_batch() -> dict[str, np.ndarray]:
    """Makes rows of many lengths. Some are empty and one is too short for its labels."""
    generator = np.random.default_rng(0)
    num_samples = generator.integers(4000, NUM_SAMPLES + 1, ROWS).astype(np.int32)
    num_labels = generator.integers(1, LABEL_WIDTH + 1, ROWS).astype(np.int32)
    num_samples[UNALIGNABLE_ROW], num_labels[UNALIGNABLE_ROW] = 700, LABEL_WIDTH
    num_samples[[*EMPTY_ROWS]] = num_labels[[*EMPTY_ROWS]] = 0
    waveforms = np.stack([noise(NUM_SAMPLES / 16_000, seed) for seed in range(ROWS)])
    waveforms *= np.arange(NUM_SAMPLES) < num_samples[:, None]
    labels = generator.integers(1, NUM_LABELS, (ROWS, LABEL_WIDTH)).astype(np.int32)
    labels *= np.arange(LABEL_WIDTH) < num_labels[:, None]
    indices = np.where(num_samples > 0, 100 + np.arange(ROWS), -1).astype(np.int32)
    return {
        "waveforms": waveforms,
        "num_samples": num_samples,
        "labels": labels,
        "num_labels": num_labels,
        "indices": indices,
    }


def largest_difference(actual: Any, expected: Any) -> float:
    """Returns the largest difference over all tensors, each relative to its largest entry."""

    def one(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        return float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30))

    return max(jax.tree.leaves(jax.tree.map(one, actual, expected)), default=0.0)


@pytest.fixture(scope="module")
def state() -> TrainState:
    return some_state(CONFIG)


@pytest.fixture(scope="module")
def single(state: TrainState) -> tuple[TrainState, dict[str, Any]]:
    return jax.device_get(jax.jit(TRAIN_STEP)(state, make_batch(), EPOCH))


@pytest.fixture(scope="module")
def program() -> Any:
    """Compiles a step for eight devices."""
    return compiled_step(CONFIG)


@pytest.mark.parametrize("mode", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)])
def test_eight_devices_train_as_one(
    mode: Literal["shard_map", "pmap"], program: Any, state: TrainState, single: tuple[TrainState, dict[str, Any]]
) -> None:
    mesh = data_mesh()
    assert mesh.size == 8
    if mode == "shard_map":
        actual, metrics, signals = jax.device_get(program(replicate(state, mesh), make_batch(), EPOCH, {}, NO_SIGNALS))
        assert not signals.any()
    else:
        step = parallel_train_step(TRAIN_STEP, mesh, mode)
        actual, metrics, signal = jax.device_get(step(replicate(state, mesh), make_batch(), EPOCH))
        assert signal == 0
    expected, expected_metrics = single
    assert metrics.keys() == expected_metrics.keys()
    assert int(metrics["empty"]) == len(EMPTY_ROWS)
    assert int(metrics["unalignable"]) == 1
    assert largest_difference(metrics, expected_metrics) <= 1e-5
    assert largest_difference(actual.params, expected.params) <= 1e-5
    assert largest_difference(actual.batch_stats, expected.batch_stats) <= 1e-5
    assert int(actual.step) == 1
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max() / np.abs(old).max(), expected.params, state.params)
    assert max(jax.tree.leaves(moved)) > 0.05  # otherwise the comparison would prove nothing


NUM_MICRO_BATCHES = 2
ACCUMULATING = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, accumulate=NUM_MICRO_BATCHES))


@pytest.fixture(scope="module")
def accumulating_program() -> Any:
    """Compiles a step for eight devices, two micro-batches and rematerialised recurrent layers."""
    return compiled_step(dataclasses.replace(ACCUMULATING, rematerialise=True))


@pytest.fixture
def accumulating_step(accumulating_program: Any) -> Any:
    """Wraps the program as `parallel.TrainStep` calls it."""

    def call(state: Any, batch: dict[str, np.ndarray]) -> Any:
        return accumulating_program(state, batch, EPOCH, {}, NO_SIGNALS)[:2]

    return call


def rows_of(layout: RowLayout) -> dict[str, np.ndarray]:
    """Orders the batch's rows by a layout."""
    rows = layout.rows(np.arange(ROWS, dtype=np.int32))
    assert sorted(rows) == list(range(ROWS))
    return {name: value[rows] for name, value in make_batch().items()}


def test_eight_devices_accumulate_as_one(accumulating_step: Any, state: TrainState) -> None:
    mesh = data_mesh()
    batch = rows_of(row_layout(mesh, NUM_MICRO_BATCHES))
    actual, metrics = jax.device_get(accumulating_step(replicate(state, mesh), batch))
    one_device = jax.jit(functools.partial(TRAIN_STEP, config=ACCUMULATING))
    expected, expected_metrics = jax.device_get(one_device(state, rows_of(RowLayout(1, NUM_MICRO_BATCHES)), EPOCH))
    assert largest_difference(metrics, expected_metrics) <= 1e-5
    assert largest_difference(actual.params, expected.params) <= 1e-5
    assert largest_difference(actual.batch_stats, expected.batch_stats) <= 1e-5
    assert int(actual.step) == 1


def test_what_one_device_hears_stops_all(accumulating_step: Any, state: TrainState) -> None:
    mesh = data_mesh()
    poisoned = make_batch()
    poisoned["waveforms"][2, 100] = np.nan  # of the second device
    kept, metrics = accumulating_step(replicate(state, mesh), poisoned)
    assert not np.isfinite(metrics["loss"])
    for device in range(mesh.size):
        own = jax.tree.map(lambda leaf, device=device: np.asarray(leaf.addressable_shards[device].data), kept)
        assert own.stopped
        jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(own, stopped=state.stopped), state)
    kept, metrics = accumulating_step(kept, make_batch())
    assert np.isfinite(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(kept, stopped=state.stopped), state)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_every_device_gets_the_new_state(mode: Literal["shard_map", "pmap"]) -> None:
    mesh = data_mesh()

    def step(state: dict[str, Any], batch: dict[str, Any], epoch: jax.Array, axis_name: str) -> Any:
        total = jax.lax.psum(batch["indices"].sum(), axis_name)
        return {"total": state["total"] + total}, {"epoch": epoch}

    mapped = parallel_train_step(step, mesh, mode)
    new, *_ = mapped(replicate({"total": jnp.int32(1)}, mesh), {"indices": np.arange(16)}, EPOCH)
    new, metrics, _ = mapped(new, {"indices": np.arange(16)}, EPOCH)
    assert int(new["total"]) == 1 + 2 * 120
    assert int(metrics["epoch"]) == 3
    assert len(new["total"].sharding.device_set) == 8


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_eight_devices_evaluate_as_one_in_row_order(mode: Literal["shard_map", "pmap"], state: TrainState) -> None:
    mesh = data_mesh()
    batch = make_batch()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    expected = jax.device_get(jax.jit(EVAL_STEP)(variables, batch))
    step = parallel_eval_step(EVAL_STEP, mesh, mode)
    actual = jax.device_get(step(replicate(variables, mesh), batch))
    assert actual.keys() == expected.keys()
    for name in ("indices", "output_lengths", "alignable"):
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
    np.testing.assert_array_equal(actual["log_probs"].argmax(-1), expected["log_probs"].argmax(-1))
    assert largest_difference(actual["log_probs"], expected["log_probs"]) <= 1e-4
    np.testing.assert_array_equal(actual["indices"], batch["indices"])
    assert largest_difference(actual["losses"], expected["losses"]) <= 1e-5
    assert len(np.unique(expected["losses"])) > 8  # the rows are distinguishable


COLLECTIVE = re.compile(r" (?:all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")


def computations(program: str) -> dict[str, list[str]]:
    """Returns the instructions of each computation of a compiled program."""
    found: dict[str, list[str]] = {}
    for line in program.splitlines():
        if line.endswith("{") and (start := re.match(r"(?:ENTRY )?%([\w.-]+) \(", line)):
            instructions = found.setdefault(start[1], [])
        elif line.startswith("  "):
            instructions.append(line)
    return found


def num_collectives(program: str) -> list[int]:
    """Counts collectives by depth of loops: outside of loops, inside loops, inside loops of loops, and so on."""
    bodies = computations(program)
    found: list[int] = []

    def visit(name: str, depth: int) -> None:
        found.extend([0] * (depth + 1 - len(found)))
        for line in bodies[name]:
            found[depth] += bool(COLLECTIVE.search(line))
            for kind, others in re.findall(r"(body|calls|to_apply|branch_computations)=\{?(%[^=}]+)", line):
                for other in re.findall(r"%([\w.-]+)", others):
                    visit(other, depth + (kind == "body"))

    [entry] = re.findall(r"^ENTRY %([\w.-]+) \(", program, re.MULTILINE)
    visit(entry, 0)
    return found


def test_the_collective_that_plain_jit_puts_into_a_time_loop_is_found() -> None:
    mesh = data_mesh()

    def loss(kernel: jax.Array, inputs: jax.Array) -> jax.Array:
        def step(state: jax.Array, frame: jax.Array) -> tuple[jax.Array, jax.Array]:
            state = jnp.tanh(frame + state @ kernel)
            return state, state

        return jax.lax.scan(step, jnp.zeros_like(inputs[0]), inputs)[1].sum()

    replicated = NamedSharding(mesh, P())
    kernel = jax.device_put(np.eye(4, dtype=np.float32), replicated)
    inputs = jax.device_put(np.ones((5, ROWS, 4), np.float32), NamedSharding(mesh, P(None, AXIS)))
    program: Any = jax.jit(jax.grad(loss), out_shardings=replicated).lower(kernel, inputs).compile().as_text()
    assert num_collectives(program) == [0, 1]


def compiled_step(config: Config, num_samples: int = NUM_SAMPLES) -> Any:
    """Compiles the training step for eight devices and waveforms of `num_samples`."""
    batch = make_batch()
    batch["waveforms"] = np.resize(batch["waveforms"], (ROWS, num_samples))
    mesh = data_mesh()
    step: Any = parallel_train_step(functools.partial(TRAIN_STEP, config=config), mesh)
    return step.lower(replicate(some_state(config), mesh), batch, EPOCH).compile()


def num_reductions_of_norms(config: Config) -> int:
    """Counts the reductions of all normalisations: each has a mean and a variance, and their gradients."""
    return 4 * (2 + config.model.num_layers)


def test_a_step_reduces_outside_its_loops_and_no_oftener_than_it_must(program: Any) -> None:
    deeper = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, num_layers=3))
    for compiled, config in ((program, CONFIG), (compiled_step(deeper, 2 * NUM_SAMPLES), deeper)):
        outside, *inside = num_collectives(compiled.as_text())
        # Once: the counts, loss and gradients together, and the signal.
        assert outside == num_reductions_of_norms(config) + 3
        assert not any(inside)


def test_accumulation_reduces_gradients_once_and_rematerialisation_reduces_nothing_again(
    accumulating_program: Any,
) -> None:
    once, of_micro_batch, *inside = num_collectives(accumulating_program.as_text())
    assert once == 3
    assert of_micro_batch == num_reductions_of_norms(ACCUMULATING)
    assert inside
    assert not any(inside)


TOLERANCES: dict[updates.Optimizer, tuple[str, float]] = {"sgd": ("float32", 1e-5), "adamw": ("float64", 1e-9)}
"""Adam turns the rounding error of a gradient that is exactly zero into a full step, so it is compared in float64."""
NUM_STEPS = 20


@functools.cache
def of_one_device(optimizer: updates.Optimizer) -> dict[str, np.ndarray]:
    return updates.update(None, optimizer, TOLERANCES[optimizer][0], NUM_STEPS)


def assert_as_of_one_device(actual: dict[str, np.ndarray], optimizer: updates.Optimizer) -> None:
    """Compares one update to 1e-5 in float32, and many updates as closely as `TOLERANCES` says."""
    expected = of_one_device(optimizer)
    moved = "many['params']['rnn_0']['hidden_bias'][0]"
    assert np.abs(expected[moved] - expected[moved.replace("many", "first")]).max() > 1e-3
    updates.assert_close(actual, expected, TOLERANCES[optimizer][1])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_devices_update_as_one(num_devices: int, optimizer: updates.Optimizer) -> None:
    mesh = data_mesh(jax.devices()[:num_devices])
    assert_as_of_one_device(updates.update(mesh, optimizer, TOLERANCES[optimizer][0], NUM_STEPS), optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_update_and_evaluate_as_one_device(
    num_processes: int, optimizer: updates.Optimizer, tmp_path: Path
) -> None:
    dtype = TOLERANCES[optimizer][0]
    started = processes.start(["-m", "tests.updates", tmp_path / "of", optimizer, dtype, NUM_STEPS], num_processes)
    expected = updates.evaluate(None)
    of_one_device(optimizer)  # meanwhile, compute the reference here
    assert [code for code, _ in processes.finish(started)] == [0] * num_processes
    for index in range(num_processes):
        with np.load(tmp_path / f"of{index}.npz") as found:
            actual = {name: found[name] for name in found.files}
        assert_as_of_one_device(actual, optimizer)
        assert actual["first_signal"] == num_processes - 1  # the largest of their indices
        for name, value in expected.items():  # each process has the rows of all, in order
            got = actual[f"evaluated_{name}"][: len(value)]
            if name in ("log_probs", "losses"):
                updates.assert_close({name: got}, {name: value}, 1e-5)
            else:
                np.testing.assert_array_equal(got, value, err_msg=name)
        assert set(actual["evaluated_indices"][len(expected["indices"]) :]) <= {-1}


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_the_largest_signal_reaches_all(mode: Literal["shard_map", "pmap"]) -> None:
    mesh = data_mesh()

    def step(state: jax.Array, batch: dict[str, Any], epoch: jax.Array, axis_name: str) -> Any:
        return state, {}

    mapped = parallel_train_step(step, mesh, mode)
    for given in (0, 15):
        state = replicate(jnp.int32(0), mesh)
        _, _, signal = mapped(state, {"indices": np.arange(16)}, EPOCH, given)
        assert int(signal) == given


@pytest.mark.parametrize("compile_step", [parallel_train_step, parallel_eval_step])
def test_pmap_is_for_one_process(compile_step: Any) -> None:
    class Mesh:
        is_multi_process = True

    with pytest.raises(InputError, match=r"^parallel must be shard_map in several processes, got 'pmap'\. Leave it at"):
        compile_step(lambda: None, Mesh(), "pmap")

"""Weights are kept bit for bit; damaged, foreign and hostile .safetensors files are refused by name."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from ds2_jax.config.load import load_config, recipes
from ds2_jax.engines import safetensors
from ds2_jax.engines.shapes import weight_shapes
from ds2_jax.model.inference import init_variables
from ds2_jax.runs.model import open_model, read_config, read_variables
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.engines import hostile, hostile_weights

SHAPES = functools.partial(weight_shapes, hostile.CONFIG, Alphabet.of(hostile.CONFIG.data).size)


def refusal(path: Path, content: bytes) -> str:
    """Returns the message with which a file is refused, without its path."""
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        safetensors.read(path, SHAPES())
    assert str(error.value).startswith(str(path))
    return str(error.value).removeprefix(str(path))


def test_a_tree_is_kept_bit_for_bit(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(hostile.weights())
    found = safetensors.read(tmp_path / "a.safetensors", SHAPES())
    jax.tree.map(np.testing.assert_array_equal, found, hostile.variables())
    assert read_config(tmp_path / "a.safetensors") == hostile.CONFIG


@pytest.mark.parametrize("recipe", recipes())
def test_shapes_are_those_of_the_model(recipe: str) -> None:
    config = load_config(Path(recipe))
    num_labels = Alphabet.of_characters(config.data).size
    tree = jax.eval_shape(functools.partial(init_variables, config, num_labels))
    wanted = {
        ".".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): each.shape
        for path, each in jax.tree_util.tree_leaves_with_path(tree)
    }
    assert dict(weight_shapes(config, num_labels)) == wanted
    assert {each.dtype for each in jax.tree.leaves(tree)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", hostile_weights.other_weights())
def test_other_weights_are_refused(name: str, tmp_path: Path) -> None:
    if name != "too large to compute":
        refusal(tmp_path / "a.safetensors", hostile_weights.other_weights()[name])


@pytest.mark.parametrize("engine", ["onnx", "jax"])
def test_weights_that_give_no_probabilities_are_refused(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(hostile_weights.other_weights()["too large to compute"])
    model = open_model(path, engine)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must give log-probabilities of its settings and its alphabet, got nan"):
        model.log_probs(np.ones((1, 2000), np.float32), np.array([2000], np.int32))


def test_errors_name_the_array(tmp_path: Path) -> None:
    found = {
        name: refusal(tmp_path / "a.safetensors", content)
        for name, content in hostile_weights.other_weights().items()
        if name != "too large to compute"
    }
    assert "must hold params.head as [3, 4] F32 or F16, got [4, 3] F32." in found["another shape"]
    assert "must hold params.head as [3, 4] F32 or F16, got none." in found["an array less"]
    assert "and no others, got params.more." in found["an array more"]
    assert "must hold finite numbers in params.head" in found["NaN"]
    assert "must hold numbers of 0 or more in batch_stats.head_norm.var" in found["a negative variance"]
    assert f"got: a header of {2**60} bytes." in found["a header of exabytes"]


def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    for length in range(0, len(hostile.weights()), 50):
        refusal(tmp_path / "a.safetensors", hostile.weights()[:length])


def test_a_file_of_a_terabyte_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    size = 2**40
    path.write_bytes(
        hostile_weights.made_file(
            {"__metadata__": {}, "params.head": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
        )
    )
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
    with pytest.raises(InputError, match="must hold"):
        safetensors.read(path, SHAPES())


@pytest.mark.parametrize("settings", hostile.other_sizes())
def test_settings_of_another_model_are_refused(settings: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(hostile.with_settings(hostile.other_sizes()[settings])[1])
    with pytest.raises(InputError) as error:
        read_variables(path, read_config(path))
    assert str(error.value).startswith(str(path))

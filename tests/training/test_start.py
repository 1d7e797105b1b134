"""A training can begin with the weights of another model, and reads them once."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.config import Config, OptimConfig
from ds2_jax.model.optimizer import layer_factors, make_optimizer
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.runs import run_folder
from ds2_jax.runs.run_folder import ORIGIN
from ds2_jax.runs.weights import weights_of
from ds2_jax.system.errors import InputError
from ds2_jax.training import start
from ds2_jax.training import train as train_lib
from ds2_jax.training.train import train
from tests.small_runs import SMALL_CONFIG, some_state, with_manifests, write_noise_manifest, write_untrained_run
from tests.training.test_train import final_state, without_times


def with_alphabet(config: Config, alphabet: str) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, alphabet=alphabet))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("source") / "old", SMALL_CONFIG, some_state(SMALL_CONFIG, 3))


def begun(config: Config, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    start.check(config, folder)
    return jax.device_get(start.with_weights(some_state(config), config, data_mesh(), folder))


@pytest.mark.parametrize("alphabet", [SMALL_CONFIG.data.alphabet, "ÄEN O"])
def test_weights_are_kept_but_those_of_new_characters(source: Path, alphabet: str, tmp_path: Path) -> None:
    optim = dataclasses.replace(SMALL_CONFIG.optim, ema_decay=0.9)
    config = dataclasses.replace(with_alphabet(SMALL_CONFIG, alphabet), init_from=source, optim=optim)
    drawn, old, state = some_state(config), some_state(SMALL_CONFIG, 3), begun(config, tmp_path)
    assert int(state.step) == 0
    for section in ("params", "batch_stats"):
        for layer, expected in getattr(old, section).items():
            if layer != "head":
                jax.tree.map(np.testing.assert_array_equal, getattr(state, section)[layer], expected)
    jax.tree.map(np.testing.assert_array_equal, state.average, state.variables)
    for place, character in enumerate(alphabet, start=1):
        there = SMALL_CONFIG.data.alphabet.find(character)
        expected = np.asarray(old.params["head"])[:, there + 1] if there >= 0 else drawn.params["head"][:, place]
        np.testing.assert_array_equal(state.params["head"][:, place], expected)
    np.testing.assert_array_equal(state.params["head"][:, 0], old.params["head"][:, 0])
    origin = json.loads((tmp_path / ORIGIN).read_text())
    assert (origin["init_from"], origin["weights"]) == (str(source), weights_of(source, SMALL_CONFIG)[1])


def test_other_sizes_and_features_are_named(source: Path) -> None:
    config = dataclasses.replace(
        SMALL_CONFIG,
        init_from=source,
        model=dataclasses.replace(SMALL_CONFIG.model, hidden_size=9, dropout=0.3, lookahead_context=3),
        features=dataclasses.replace(SMALL_CONFIG.features, normalisation="bins"),
    )
    with pytest.raises(InputError) as caught:
        start.check(config, source.parent / "new")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"--init-from {source} must have the features and sizes of this training, got others:"
    assert lines[1:3] == [
        f"  --features.normalisation must be {SMALL_CONFIG.features.normalisation!r}, got 'bins'",
        f"  --model.hidden-size must be {SMALL_CONFIG.model.hidden_size}, got 9",
    ]
    assert len(lines) == 4


def test_a_missing_model_is_told_before_the_folder_is_made(tmp_path: Path) -> None:
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path))
    config = dataclasses.replace(config, init_from=tmp_path / "none")
    with pytest.raises(InputError, match=str(tmp_path / "none")):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_model_is_not_replaced_by_the_training_that_begins_with_it(
    source: Path, tmp_path: Path, overwrite: bool
) -> None:
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path))
    run = shutil.copytree(source, tmp_path / "run")
    if not overwrite:
        assert cli.main(["export", str(run), "--out", str(tmp_path / "exported")]) == 0
        run = tmp_path / "exported"
    (tmp_path / "link").symlink_to(run)
    before = contents(run)
    with pytest.raises(InputError, match=r"--init-from must be no model in --workdir, got \S+ for both\."):
        train(dataclasses.replace(config, init_from=tmp_path / "link"), run, overwrite)
    assert contents(run) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_without_weights_is_told_before_the_folder_is_made(source: Path, tmp_path: Path) -> None:
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path))
    assert cli.main(["export", str(source), "--out", str(tmp_path / "exported")]) == 0
    empty = tmp_path / "empty"
    run_folder.open_run(empty, SMALL_CONFIG, overwrite=False)
    for path in (tmp_path / "exported/model.onnx", empty):
        with pytest.raises(InputError, match=f"^--init-from must be a run with a checkpoint, .*, got {path}"):
            train(dataclasses.replace(config, init_from=path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_reads_the_weights_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that is interrupted, and whose source is gone, ends as one that was not interrupted."""
    old = shutil.copytree(source, tmp_path / "old")
    config = dataclasses.replace(
        with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path)), init_from=old, epochs=2, freeze="conv"
    )
    train(config, tmp_path / "whole")
    assert "weights of" in caplog.text
    assert "the head's are copied for 28 of 28 characters" in caplog.text
    assert "before the first step; dev loss" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(train_lib, "evaluate_split", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts")
    shutil.rmtree(old)
    caplog.clear()
    train(config, tmp_path / "parts")
    assert "weights of" not in caplog.text
    whole, parts = (final_state(tmp_path / name, config) for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    logs = [
        [without_times(json.loads(line)) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]
    before = some_state(SMALL_CONFIG, 3).params
    for layer, values in whole.params.items():
        same = jax.tree.map(np.array_equal, values, jax.device_get(before[layer]))
        assert all(jax.tree.leaves(same)) == layer.startswith("conv"), layer


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        ("none", {"conv_0": 1 / 16, "conv_norm_1": 1 / 16, "rnn_0": 1 / 8, "rnn_2": 1 / 2, "lookahead": 1 / 2}),
        ("conv", {"conv_0": 0, "conv_norm_1": 0, "rnn_0": 1 / 8, "rnn_2": 1 / 2, "lookahead": 1 / 2}),
        ("recurrent", {"conv_0": 0, "conv_norm_1": 0, "rnn_0": 0, "rnn_2": 0, "lookahead": 0}),
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_lower_layers_learn_less_or_nothing(freeze: str, expected: dict[str, float], optimizer: str) -> None:
    layers = ["conv_0", "conv_norm_1", "rnn_0", "rnn_1", "rnn_2", "lookahead", "head_norm", "head"]
    params = {layer: {"kernel": jnp.ones(3)} for layer in layers}
    factors = layer_factors(params, 0.5, freeze)
    assert {layer: factors[layer]["kernel"] for layer in expected} == expected
    assert factors["head"]["kernel"] == factors["head_norm"]["kernel"] == 1
    grads = {layer: {"kernel": jnp.full(3, 0.1 * (1 + place))} for place, layer in enumerate(layers)}
    optim = OptimConfig(optimizer=optimizer, layer_decay=0.5, weight_decay=0.1, clip_norm=0)  # type: ignore[arg-type]
    config = Config(optim=optim, freeze=freeze)  # type: ignore[arg-type]
    plain = Config(optim=dataclasses.replace(optim, layer_decay=1.0))
    scaled, usual = (
        tx.update(grads, tx.init(params), params)[0] for tx in (make_optimizer(each, 1, 1) for each in (config, plain))
    )
    for layer in layers:
        wanted = factors[layer]["kernel"] * np.asarray(usual[layer]["kernel"])
        np.testing.assert_allclose(scaled[layer]["kernel"], wanted, rtol=1e-6, atol=0, err_msg=layer)


def test_frozen_layers_do_not_count_in_the_norm() -> None:
    params = {"conv_0": jnp.ones(2), "head": jnp.ones(2)}
    grads = {"conv_0": jnp.full(2, 100.0), "head": jnp.full(2, 0.5)}
    optim = OptimConfig(optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_norm=1.0, learning_rate=1.0)
    tx = make_optimizer(Config(optim=optim, freeze="conv"), 1, 1)
    updates = tx.update(grads, tx.init(params), params)[0]
    np.testing.assert_allclose(updates["head"], -0.5 * np.ones(2), rtol=1e-6)

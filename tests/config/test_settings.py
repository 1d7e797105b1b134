import dataclasses
import json
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax import config as config_lib
from ds2_jax.config import (
    AugmentConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    FeatureConfig,
    ModelConfig,
    OptimConfig,
    PerturbConfig,
    load,
)
from ds2_jax.system.errors import InputError

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
odd = st.integers(0, 30).map(lambda half: 2 * half + 1)
ranges = st.tuples(st.floats(0.5, 1.0), st.floats(1.0, 2.0))
BOUND_BY_RULES: dict[tuple[type, str], st.SearchStrategy[Any]] = {
    (FeatureConfig, "sample_rate"): st.sampled_from([8_000, 16_000, 48_000]),
    (FeatureConfig, "window_size"): st.sampled_from([0.02, 0.025]),
    (FeatureConfig, "window_stride"): st.sampled_from([0.01, 0.005]),
    (FeatureConfig, "num_mels"): st.integers(0, 80),
    (FeatureConfig, "normalisation"): st.sampled_from(["utterance", "bins"]),  # the others allow one kind of edges only
    (CheckpointConfig, "average"): st.integers(1, 1000),
    (DataConfig, "max_duration"): st.floats(1.0),  # infinity too
    (DataConfig, "num_workers"): st.integers(0, 1024),
    **{(DataConfig, split): st.none() for split in ("train", "dev", "test")},  # must be None with a corpus
    **{(PerturbConfig, name): ranges for name in ("speed", "tempo", "noise_snr", "gain")},
    (ModelConfig, "frequency_kernels"): st.tuples(odd, odd),
    (ModelConfig, "time_kernels"): st.tuples(odd, odd),
}


def settings_of(kind: Any) -> st.SearchStrategy[Any]:
    """Draws values of the annotation `kind`. For a dataclass it draws all fields."""
    arguments = typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        fields = {
            name: BOUND_BY_RULES[kind, name] if (kind, name) in BOUND_BY_RULES else settings_of(hint)
            for name, hint in typing.get_type_hints(kind).items()
        }
        return st.builds(kind, **fields)
    if typing.get_origin(kind) is Literal:
        return st.sampled_from(arguments)
    if typing.get_origin(kind) is tuple:
        return st.tuples(*map(settings_of, arguments))
    if arguments:  # X | None
        return st.one_of(*map(settings_of, arguments))
    plain = {
        bool: st.booleans(),
        int: st.integers(1, 10_000),
        float: st.floats(1e-9, 0.999),
        str: text,
        Path: text.map(Path),
        type(None): st.none(),
    }
    return plain[kind]


@given(settings_of(Config))
def test_json_and_back(config: Config) -> None:
    assert config_lib.from_json(config_lib.to_json(config)) == config


def test_json_without_a_field_takes_its_default() -> None:
    assert config_lib.from_json('{"model": {"hidden_size": 7}}') == Config(model=ModelConfig(hidden_size=7))


def test_json_takes_whole_numbers_for_floats() -> None:
    assert repr(config_lib.from_json('{"optim": {"clip_norm": 5}}').optim.clip_norm) == "5.0"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(seed=-1), "seed must be 0 or more, got -1."),
        (lambda: Config(seed=2**31), "seed must be at most 2147483647, got 2147483648."),
        (lambda: Config(epochs=0), "epochs must be at least 1, got 0."),
        (lambda: Config(patience=-1), "patience must be 0 (never stop early) or more, got -1."),
        (lambda: FeatureConfig(sample_rate=3_999), "features.sample_rate must be 4000 to 48000 Hz, got 3999."),
        (lambda: FeatureConfig(sample_rate=48_001), "features.sample_rate must be 4000 to 48000 Hz, got 48001."),
        (lambda: FeatureConfig(window_stride=0.0), "features.window_stride must be positive (seconds), got 0.0."),
        (
            lambda: FeatureConfig(window_size=0.005),
            "features.window_size must be between features.window_stride and 0.1 seconds, got 0.005.",
        ),
        (
            lambda: FeatureConfig(window_size=0.2),
            "features.window_size must be between features.window_stride and 0.1 seconds, got 0.2.",
        ),
        (
            lambda: FeatureConfig(window_size=0.02001),
            "features.window_size must be a whole number of samples at 16000 Hz, got 0.02001.",
        ),
        (
            lambda: FeatureConfig(window_stride=1e-12),
            "features.window_stride must be a whole number of samples at 16000 Hz, got 1e-12.",
        ),
        (lambda: FeatureConfig(scale=0.0), "features.scale must be positive and at most 2^31, got 0.0."),
        (lambda: FeatureConfig(num_mels=-1), "features.num_mels must be 0 (off) to 114, got -1."),
        (lambda: CheckpointConfig(average=0), "checkpoint.average must be 1 to 1000, got 0."),
        (lambda: OptimConfig(ema_decay=1.0), "optim.ema_decay must be in [0, 1), got 1.0."),
        (lambda: DataConfig(batch_size=0), "data.batch_size must be at least 1, got 0."),
        (
            lambda: DataConfig(batch_seconds=-1.0),
            "data.batch_seconds must be 0 (off) or a number of seconds, got -1.0.",
        ),
        (lambda: DataConfig(num_buckets=0), "data.num_buckets must be at least 1, got 0."),
        (lambda: DataConfig(num_workers=-1), "data.num_workers must be 0 (one per core) to 1024, got -1."),
        (lambda: DataConfig(min_duration=-0.5), "data.min_duration must be 0 seconds or more, got -0.5."),
        (
            lambda: DataConfig(max_duration=0.1),
            "data.max_duration must be longer than data.min_duration (0.1 s), got 0.1.",
        ),
        (
            lambda: DataConfig(corpus="an4", test=Path("a.jsonl")),
            "data.test must be left out if data.corpus is 'an4', got 'a.jsonl'. "
            "Add --data.corpus None to use manifests of your own for all splits.",
        ),
        (lambda: AugmentConfig(num_frequency_masks=-1), "augment.num_frequency_masks must be 0 or more, got -1."),
        (lambda: AugmentConfig(frequency_mask_width=-1), "augment.frequency_mask_width must be 0 or more, got -1."),
        (lambda: AugmentConfig(num_time_masks=-1), "augment.num_time_masks must be 0 or more, got -1."),
        (lambda: AugmentConfig(time_mask_width=-1), "augment.time_mask_width must be 0 or more, got -1."),
        (lambda: AugmentConfig(time_mask_share=1.5), "augment.time_mask_share must be in [0, 1], got 1.5."),
        (
            lambda: AugmentConfig(time_warp_probability=-0.1),
            "augment.time_warp_probability must be in [0, 1], got -0.1.",
        ),
        (lambda: AugmentConfig(time_warp_frames=-1), "augment.time_warp_frames must be 0 or more, got -1."),
        (lambda: AugmentConfig(frames_per_time_mask=-1), "augment.frames_per_time_mask must be 0 or more, got -1."),
        (lambda: ModelConfig(hidden_size=0), "model.hidden_size must be at least 1, got 0."),
        (lambda: ModelConfig(num_layers=0), "model.num_layers must be at least 1, got 0."),
        (lambda: ModelConfig(lookahead_context=0), "model.lookahead_context must be at least 1, got 0."),
        (lambda: ModelConfig(dropout=1.0), "model.dropout must be in [0, 1), got 1.0."),
        (lambda: ModelConfig(channels=(32, 0)), "model.channels must be at least 1 each, got (32, 0)."),
        (lambda: ModelConfig(frequency_strides=(0, 2)), "model.frequency_strides must be at least 1 each, got (0, 2)."),
        (
            lambda: ModelConfig(frequency_kernels=(41, 20)),
            "model.frequency_kernels must be odd and positive, got (41, 20).",
        ),
        (lambda: ModelConfig(time_kernels=(-1, 11)), "model.time_kernels must be odd and positive, got (-1, 11)."),
        (lambda: OptimConfig(learning_rate=0.0), "optim.learning_rate must be positive, got 0.0."),
        (lambda: OptimConfig(learning_rate=float("nan")), "optim.learning_rate must be finite, got nan."),
        (lambda: OptimConfig(anneal=1.1), "optim.anneal must be in (0, 1], got 1.1."),
        (lambda: OptimConfig(warmup_steps=-1), "optim.warmup_steps must be 0 or more, got -1."),
        (lambda: OptimConfig(weight_decay=-1.0), "optim.weight_decay must be 0 or more, got -1.0."),
        (lambda: OptimConfig(clip_norm=-1.0), "optim.clip_norm must be 0 or more, got -1.0."),
        (lambda: OptimConfig(momentum=1.0), "optim.momentum must be in [0, 1), got 1.0."),
        (lambda: OptimConfig(beta1=-0.1), "optim.beta1 must be in [0, 1), got -0.1."),
        (lambda: OptimConfig(beta2=1.0), "optim.beta2 must be in [0, 1), got 1.0."),
        (lambda: OptimConfig(learning_rate=float("inf")), "optim.learning_rate must be finite, got inf."),
        (lambda: OptimConfig(clip_norm=float("nan")), "optim.clip_norm must be 0 or more, got nan."),
        (lambda: Config(epochs=2**31), "epochs must be at most 2147483647, got 2147483648."),
        (lambda: DataConfig(num_workers=1025), "data.num_workers must be 0 (one per core) to 1024, got 1025."),
        (lambda: DataConfig(batch_size=2**16 + 1), "data.batch_size must be at most 65536, got 65537."),
        (lambda: ModelConfig(hidden_size=10**20), f"model.hidden_size must be at most 65536, got {10**20}."),
        (lambda: ModelConfig(channels=(2, 2**17)), "model.channels must be at most 65536, got (2, 131072)."),
        (lambda: ModelConfig(channels=()), "model.channels must be a list of 2, got ()."),  # type: ignore[arg-type]
        (lambda: ModelConfig(channels=2), "model.channels must be a list of 2, got 2."),  # type: ignore[arg-type]
        (lambda: ModelConfig(dropout=False), "model.dropout must be of type float, got False."),
        (lambda: Config(epochs="3"), "epochs must be of type int, got '3'."),  # type: ignore[arg-type]
        (lambda: Config(epochs=np.int64(3)), "epochs must be of type int, got np.int64(3)."),  # type: ignore[arg-type]
        (
            lambda: OptimConfig(learning_rate=np.float32(0.1)),  # type: ignore[arg-type]
            "optim.learning_rate must be of type float, got np.float32(0.1).",
        ),
        (
            lambda: Config(model=OptimConfig()),  # type: ignore[arg-type]
            "model must be an object (ModelConfig), got OptimConfig(optimizer='adamw', learning_rate=0.00015, "
            "schedule='exponential', an ....",
        ),
        (lambda: DataConfig(train=b"x"), "data.train must be a path, got b'x'."),  # type: ignore[arg-type]
        (
            lambda: DataConfig(train=Path("caf\udce9")),
            r"data.train must be a path in UTF-8 without null characters, got 'caf\udce9'.",
        ),
        (
            lambda: DataConfig(train=Path("a\0")),
            r"data.train must be a path in UTF-8 without null characters, got 'a\x00'.",
        ),
        (lambda: OptimConfig(epsilon=0.0), "optim.epsilon must be positive, got 0.0."),
    ],
)
def test_rules(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "The configuration must be an object (Config), got []."),
        ({"model": 3}, "model must be an object (ModelConfig), got 3."),
        (
            {"model": {"hiden_size": 3}},
            "model.hiden_size must be a known setting, got 'hiden_size'. Was the run made by a newer version?",
        ),
        ({"epochs": 1.5}, "epochs must be of type int, got 1.5."),
        ({"epochs": True}, "epochs must be of type int, got True."),
        ({"optim": {"anneal": "0.9"}}, "optim.anneal must be of type float, got '0.9'."),
        ({"optim": {"anneal": True}}, "optim.anneal must be of type float, got True."),
        ({"data": {"sortagrad": 1}}, "data.sortagrad must be of type bool, got 1."),
        ({"data": {"train": 1}}, "data.train must be a path, got 1."),
        ({"data": {"root": None}}, "data.root must be a path, got None."),
        ({"model": {"rnn_type": "LSTM"}}, "model.rnn_type must be one of lstm, gru, rnn, got 'LSTM'."),
        ({"model": {"time_reduction": 2.0}}, "model.time_reduction must be one of 2, 4, got 2.0."),
        ({"model": {"channels": [1, 2, 3]}}, "model.channels must be a list of 2, got [1, 2, 3]."),
        ({"model": {"channels": [1, "2"]}}, "model.channels must be of type int, got '2'."),
        ({"model": {"dropout": 2.0}}, "model.dropout must be in [0, 1), got 2.0."),
    ],
)
def test_json_that_is_no_configuration(tree: object, message: str) -> None:
    with pytest.raises(InputError) as error:
        config_lib.from_json(json.dumps(tree))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("model: {}", "Expecting value: line 1 column 1"),
        ("[" * 100_000, "maximum recursion depth exceeded"),
        ('{"epochs": ' + "1" * 5000 + "}", r"Exceeds the limit \(4300 digits\)"),
    ],
    ids=["text", "brackets", "digits"],
)
def test_text_that_is_no_json(text: str, finding: str) -> None:
    with pytest.raises(InputError, match=f"^The configuration must be JSON, got {finding}"):
        config_lib.from_json(text)


def test_values_are_brought_to_their_types() -> None:
    model = ModelConfig(channels=[2, 3])  # type: ignore[arg-type]
    data = DataConfig(train="a.jsonl")  # type: ignore[arg-type]
    assert (model.channels, data.train) == ((2, 3), Path("a.jsonl"))
    assert type(OptimConfig(learning_rate=1).learning_rate) is float


def test_load_config_runs_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.py"
    file.write_text(
        "from pathlib import Path\nfrom ds2_jax.config import *\n"
        "config = Config(epochs=3, data=DataConfig(train=Path('a.jsonl')))"
    )
    assert config_lib.load_config(file) == Config(epochs=3, data=DataConfig(train=Path("a.jsonl")))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("config = Config(epochs=0)", "epochs must be at least 1, got 0."),
        ("config = 3", "`config` must be a ds2_jax.config.Config, got 3. Define it in this file."),
        ("recipe = Config()", "`config` must be a ds2_jax.config.Config, got None. Define it in this file."),
        (
            "config = Config(model=ModelConfig(rnn_type='LSTM'))",
            "model.rnn_type must be one of lstm, gru, rnn, got 'LSTM'.",
        ),
        ("config = Config(epochs=2.5)", "epochs must be of type int, got 2.5."),
    ],
)
def test_load_config_names_the_file_and_the_rule(source: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.py"
    file.write_text(f"from ds2_jax.config import *\n{source}\n")
    with pytest.raises(InputError) as error:
        config_lib.load_config(file)
    assert str(error.value) == f"{file}: {message}"


def test_load_config_says_what_went_wrong_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.py"
    file.write_text("config = Confg()\n")
    with pytest.raises(InputError) as error:
        config_lib.load_config(file)
    assert str(error.value) == (
        f"{file} must run without errors, got NameError: name 'Confg' is not defined. Correct it."
    )


def test_load_config_lists_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.py", "a.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(load, "RECIPES", tmp_path)
    with pytest.raises(InputError) as error:
        config_lib.load_config(Path("configs/c.py"))
    assert str(error.value) == (
        "--config must name a configuration file, got configs/c.py, which does not exist. Known recipes: a, b."
    )


def test_sizes_in_samples_and_bins() -> None:
    features = FeatureConfig(sample_rate=8_000, window_size=0.025, window_stride=0.005)
    assert (features.fft_length, features.hop_length, features.num_bins) == (200, 40, 101)


@pytest.mark.parametrize(("time_reduction", "strides"), [(2, (2, 1)), (4, (2, 2))])
def test_time_strides_multiply_to_the_reduction(time_reduction: Literal[2, 4], strides: tuple[int, int]) -> None:
    assert ModelConfig(time_reduction=time_reduction).time_strides == strides


def test_load_config_survives_a_file_that_exits(tmp_path: Path) -> None:
    file = tmp_path / "recipe.py"
    file.write_text("import sys; sys.exit(3)\n")
    with pytest.raises(InputError) as error:
        config_lib.load_config(file)
    assert str(error.value) == f"{file} must run without errors, got SystemExit: 3. Correct it."


@pytest.mark.parametrize(("name", "finding"), [("", "is a folder"), ("a" * 300, "does not exist")])
def test_load_config_needs_a_file(tmp_path: Path, name: str, finding: str) -> None:
    with pytest.raises(InputError) as error:
        config_lib.load_config(tmp_path / name)
    message = f"--config must name a configuration file, got {tmp_path / name}, which {finding}. Known recipes:"
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_settings_of_any_depth_are_refused(brackets: tuple[str, str]) -> None:
    """`json` can read nested lists at depths at which `repr` fails."""
    opening, closing = brackets
    for depth in range(1, sys.getrecursionlimit() + 10):
        with pytest.raises(InputError, match="must be"):
            config_lib.from_json(f'{{"seed": {opening * depth}1{closing * depth}}}')

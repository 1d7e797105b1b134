"""Damaged, foreign and hostile .onnx files are refused by name, and nothing outside is read."""

import contextlib
import resource
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from ds2_jax.engines import onnx as engine
from ds2_jax.engines import onnx_file, onnx_graph
from ds2_jax.engines.onnx_file import check_graph
from ds2_jax.runs.model import Model, open_model
from ds2_jax.system.errors import InputError
from tests.engines import hostile

SAMPLES = np.random.default_rng(0).normal(0, 0.1, (2, 2000)).astype(np.float32)


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MEMORY", 2**27)


def use(path: Path) -> Model:
    """Opens and runs a model."""
    model = open_model(path, "onnx")
    model.log_probs(SAMPLES, np.array([2000, 1500], np.int32))
    return model


def refusal(path: Path, content: bytes) -> str:
    """Returns the message with which a file is refused, without its path."""
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        use(path)
    assert str(error.value).startswith(str(path))
    return str(error.value).removeprefix(str(path))


def test_models_of_ours_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    quantised = onnx_graph.quantised(onnx.load_from_string(hostile.whole()))
    onnx_graph.add_metadata(quantised, {"config": check_graph(hostile.whole(), "")["config"], "licence": "none"})
    for content in (hostile.whole(), quantised.SerializeToString()):
        path.write_bytes(content)
        use(path)
    assert check_graph(hostile.step(), "a step").keys() == {"config"}


@pytest.mark.parametrize("place", hostile.reading_outside("a"))
@pytest.mark.parametrize("location", ["secret", "../secret", "{}/secret", "*/_ORT_MEM_ADDR_/*"])
def test_no_graph_names_another_file(
    place: str, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    for secret in (tmp_path / "secret", tmp_path / "folder/secret"):
        secret.write_bytes(np.full(4, -9.0, np.float32).tobytes())
    content = hostile.reading_outside(location.format(tmp_path))[place]
    found = refusal(tmp_path / "folder/a.onnx", content)
    assert "as a field" in found or "weights in another file" in found or "two fields" in found


@pytest.mark.parametrize("name", hostile.foreign())
def test_what_our_graphs_never_have_is_refused(name: str, tmp_path: Path) -> None:
    started = time.process_time()
    assert "must be a model that `export` wrote" in refusal(tmp_path / "a.onnx", hostile.foreign()[name])
    assert time.process_time() - started < 10


def test_the_error_says_what_was_found(tmp_path: Path) -> None:
    found = {name: refusal(tmp_path / "a.onnx", content) for name, content in hostile.foreign().items()}
    assert "got the operator 'Add' of 'evil'." in found["another domain"]
    assert "got the operator 'Tile'." in found["Tile"]
    assert "got functions as a field." in found["a function"]
    assert "got two fields 'ir_version'." in found["two graphs"]
    assert "got more than 100000 fields." in found["many fields"]


def test_no_format_but_onnx_is_read(tmp_path: Path) -> None:
    """A file with ORTM at byte 4 is read as another format, although it is an ONNX model too."""
    path = tmp_path / "a.onnx"
    path.write_bytes(hostile.another_format())
    assert path.read_bytes()[4:8] == b"ORTM"
    use(path)


@pytest.mark.parametrize("name", hostile.too_large())
def test_terabytes_are_refused(name: str, tmp_path: Path) -> None:
    found = refusal(tmp_path / "a.onnx", hostile.too_large()[name])
    assert any(words in found for words in ("weights", "half of this machine's memory", "ONNX Runtime", "outputs"))


@pytest.mark.parametrize("name", ["large range", "large reshape"])
def test_opening_computes_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(hostile.too_large()[name])
    monkeypatch.setattr(engine, "MEMORY", 2**34)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(InputError):
        engine.OnnxEngine("a", hostile.CONFIG, 4, path.read_bytes, lambda _: b"")._session  # noqa: B018 - opens it
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "KiB"


@pytest.mark.parametrize("name", hostile.other_values())
def test_other_inputs_and_outputs_are_refused(name: str, tmp_path: Path) -> None:
    found = refusal(tmp_path / "a.onnx", hostile.other_values()[name])
    assert any(words in found for words in ("inputs and outputs", "log-probabilities", "ONNX Runtime"))


def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    whole = hostile.whole()
    for length in range(0, len(whole), 50):
        refusal(tmp_path / "a.onnx", whole[:length])


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="must be at most 2147483648 bytes long, got 1099511627776"):
        use(path)


def test_fields_have_the_numbers_of_onnx() -> None:
    for message in (onnx.ModelProto, onnx.GraphProto, onnx.NodeProto, onnx.AttributeProto, onnx.TensorProto):
        schema = {
            "ModelProto": onnx_file.SCHEMA,
            "GraphProto": onnx_file._GRAPH,
            "NodeProto": onnx_file._NODE,
            "AttributeProto": onnx_file._ATTRIBUTE,
            "TensorProto": onnx_file._TENSOR,
        }[message.DESCRIPTOR.name]
        for number, field in schema.items():
            assert message.DESCRIPTOR.fields_by_number[number].name == field.name
            if field.kinds:
                assert message.DESCRIPTOR.fields_by_number[number].is_repeated == field.is_repeated, field.name

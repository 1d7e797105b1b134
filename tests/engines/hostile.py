"""Exported models made by hand that are damaged, foreign or hostile. Each must be refused."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ds2_jax import config as config_lib
from ds2_jax.config import Config, DataConfig, FeatureConfig, ModelConfig
from ds2_jax.engines import onnx_graph, safetensors
from tests.small_runs import SMALL, some_state

CONFIG = Config(
    data=DataConfig(alphabet="AB "),
    model=ModelConfig(
        **{**vars(SMALL), "hidden_size": 3, "num_layers": 1, "bidirectional": False, "lookahead_context": 2}
    ),
    features=FeatureConfig(sample_rate=4000, normalisation="running"),
)
"""A model that can stream, with 4 labels, whose files are small."""
STEP_FRAMES = 2
TOO_MANY = 10**12


@functools.cache
def variables() -> Any:
    state = some_state(CONFIG)
    return jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})


@functools.cache
def whole() -> bytes:
    """Writes the graph of whole utterances."""
    return onnx_graph.whole(CONFIG, variables()).SerializeToString(deterministic=True)


@functools.cache
def step() -> bytes:
    """Writes the graph of a step of two frames."""
    return onnx_graph.streaming(CONFIG, variables(), STEP_FRAMES).SerializeToString(deterministic=True)


@functools.cache
def weights() -> bytes:
    """Writes the weights."""
    return safetensors.to_bytes(variables(), {"config": config_lib.to_json(CONFIG)})


def field(number: int, content: bytes) -> bytes:
    """Encodes a field of Protocol Buffers that holds a text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def changed(change: Callable[[onnx.ModelProto], None], model: bytes | None = None) -> bytes:
    """Changes the graph of whole utterances, or another."""
    proto = onnx.load_from_string(whole() if model is None else model)
    change(proto)
    return proto.SerializeToString()


def _constant(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _node(operator: str, inputs: Sequence[str], output: str = "new", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def _given(proto: onnx.ModelProto, output: str, value: str) -> None:
    """Makes a graph give another value."""
    last = next(node for node in proto.graph.node if node.output[0] == output)
    last.input[0] = value


def computing(*nodes: onnx.NodeProto, output: str = "log_probs", **constants: Any) -> bytes:
    """Makes the graph compute one of its outputs, the value "new", in another way."""

    def change(proto: onnx.ModelProto) -> None:
        places = [i for i, node in enumerate(proto.graph.node) if node.output[0] == output]
        for node in reversed(nodes):
            proto.graph.node.insert(places[0], node)
        proto.graph.initializer.extend(_constant(name, value) for name, value in constants.items())
        _given(proto, output, "new")

    return changed(change)


def _external(location: str) -> onnx.TensorProto:
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _sparse(values: onnx.TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=_constant("indices", np.arange(4)), dims=[4])


def reading_outside(location: str) -> dict[str, bytes]:
    """Makes graphs that read four numbers of another file, in every place that may name one."""
    tensor = _external(location)
    subgraph = helper.make_graph([], "inner", [], [], [tensor])
    return {
        "initialiser": changed(lambda proto: proto.graph.initializer.append(tensor)),
        "initialiser in use": computing(
            _node("Add", [_log_probs(), "outside"]), outside=np.zeros(4, np.float32)
        ).replace(_constant("outside", np.zeros(4, np.float32)).SerializeToString(), b"")
        + field(7, field(5, tensor.SerializeToString())),
        "constant": computing(_node("Constant", [], value=tensor)),
        "tensors": computing(_node("Identity", [_log_probs()], more=[tensor, tensor])),
        "sparse initialiser": changed(lambda proto: proto.graph.sparse_initializer.append(_sparse(tensor))),
        "sparse constant": computing(_node("Constant", [], sparse_value=_sparse(tensor))),
        "quantisation": changed(
            lambda proto: proto.graph.quantization_annotation.add(tensor_name="a").quant_parameter_tensor_names.add(
                key="SCALE_TENSOR", value="outside"
            )
        ),
        "subgraph": computing(_node("If", ["num_samples"], then_branch=subgraph, else_branch=subgraph)),
        "second graph": whole() + field(7, subgraph.SerializeToString()),
    }


def _log_probs() -> str:
    """Returns the name of the value that becomes the output."""
    proto = onnx.load_from_string(whole())
    return next(node.input[0] for node in proto.graph.node if node.output[0] == "log_probs")


def foreign() -> dict[str, bytes]:
    """Makes graphs with operators, fields and encodings that ours never have."""
    inner = helper.make_graph([_node("Identity", ["a"])], "inner", [], [helper.make_tensor_value_info("new", 1, None)])
    body = onnx.FunctionProto(name="f", domain="local", output=["new"])
    nested = onnx.TypeProto()
    place = nested
    for _ in range(30):
        place = place.sequence_type.elem_type
    place.tensor_type.elem_type = 1
    deep = b""
    for _ in range(5000):
        deep = field(4, field(1, deep))  # a sequence of a sequence of ...
    texts = TensorProto(name="texts", data_type=TensorProto.STRING, dims=[1], string_data=[b"a"])

    return {
        "another domain": computing(_node("Add", [_log_probs(), _log_probs()], domain="evil")),
        "another library": computing(
            _node("Pad", [_log_probs(), "pads"], domain="com.microsoft"), pads=np.zeros(6, int)
        ),
        "a python operator": computing(_node("PyOp", [_log_probs()], domain="com.microsoft")),
        "a loop": computing(_node("Loop", ["", ""], body=inner)),
        "a scan": computing(_node("Scan", ["num_samples"], body=inner, num_scan_inputs=1)),
        "a condition": computing(_node("If", ["num_samples"], then_branch=inner, else_branch=inner)),
        "graphs": computing(_node("Identity", [_log_probs()], graphs=[inner])),
        "a function": changed(lambda proto: proto.functions.append(body)),
        "training": changed(lambda proto: proto.training_info.add()),
        "ConstantOfShape": computing(_node("ConstantOfShape", ["size"]), size=np.array([TOO_MANY])),
        "Tile": computing(_node("Tile", [_log_probs(), "size"]), size=np.array([1, 1, TOO_MANY])),
        "a type": changed(lambda proto: proto.graph.value_info.add(name="a", type=nested)),
        "a deep type": whole() + field(7, field(13, field(2, deep))),
        "texts": changed(lambda proto: proto.graph.initializer.append(texts)),
        "two graphs": whole() + whole(),
        "a group": whole() + b"\x3b\x3c",  # field 7 with the wire types 3 and 4
        "a graph as number": whole() + b"\x38\x01",
        "an unknown field": whole() + field(200, b"a"),
        "a long number": whole() + b"\xba" + b"\x80" * 9 + b"\x00",
        "an endless number": whole() + b"\xba" * 50,
        "a long length": whole() + b"\x12" + b"\xff" * 9 + b"\x01",
        "many fields": whole() + b"\x42\x00" * 1_200_000,
        "nothing": b"",
        "zeros": bytes(5000),
        "another text": b"{}" * 100,
    }


def another_format() -> bytes:
    """Makes a graph of ours whose bytes 4 to 8 are the mark of another format."""

    def begin(proto: onnx.ModelProto) -> None:
        proto.producer_name = "ORTM" + 50 * "x"

    return changed(begin)


def too_large() -> dict[str, bytes]:
    """Makes graphs that ask for terabytes: in a shape, when they are loaded, or when they run."""
    value = _log_probs()
    last = _node("Add", ["large", value])

    def claim(*dims: int, kind: int = 1, raw: bytes = b"") -> bytes:
        tensor = TensorProto(name="large", data_type=kind, dims=dims, raw_data=raw)
        return changed(lambda proto: proto.graph.initializer.append(tensor))

    def folded(operator: str, inputs: Sequence[str], **values: Any) -> bytes:
        first = _node("Gather", ["large", "place"], "one")
        return computing(
            _node(operator, inputs, "large"), first, _node("Add", ["one", value]), place=np.int64(0), **values
        )

    def reshape(proto: onnx.ModelProto) -> None:
        for tensor in proto.graph.initializer:
            if tensor.name in {node.input[1] for node in proto.graph.node if node.op_type == "Reshape"}:
                tensor.CopyFrom(_constant(tensor.name, np.array([3 * 10**9, 0, 6])))

    doubled = [_node("Concat", [f"x{i}" if i else value] * 2, f"x{i + 1}", axis=1) for i in range(45)]
    return {
        "shape": claim(TOO_MANY),
        "shape with data": claim(TOO_MANY, raw=b"1234"),
        "shape of little": claim(2**31, raw=b"1234"),
        "shape of bytes": claim(TOO_MANY, kind=3, raw=b"1234"),
        "negative shape": claim(-1, -TOO_MANY, raw=b"1234"),
        "overflow": claim(2**62, 2**62, 0, 4, raw=b""),
        "axes": claim(*(1,) * 1000, raw=b"1234"),
        "range": folded("Range", ["a", "b", "c"], a=np.float32(0), b=np.float32(1e12), c=np.float32(1)),
        "expand": folded("Expand", ["a", "b"], a=np.ones(1, np.float32), b=np.array([TOO_MANY])),
        "large range": folded("Range", ["a", "b", "c"], a=np.float32(0), b=np.float32(2e8), c=np.float32(1)),
        "large expand": folded("Expand", ["a", "b"], a=np.ones(1, np.float32), b=np.array([10**9])),
        "pad": computing(_node("Pad", [value, "b"], "large"), last, b=np.array([0, 0, 0, 0, 0, TOO_MANY])),
        "expand at run time": computing(_node("Expand", [value, "b"], "large"), last, b=np.array([TOO_MANY, 1, 1, 1])),
        "large pad": computing(_node("Pad", [value, "b"], "large"), last, b=np.array([0, 0, 0, 10**8, 0, 0])),
        "convolution": computing(
            _node("Conv", ["signal", "kernel"], "large", pads=[0, TOO_MANY]),
            last,
            signal=np.ones((1, 1, 4), np.float32),
            kernel=np.ones((1, 1, 1), np.float32),
        ),
        "product": computing(
            _node("Expand", ["a", "size"], "long"),
            _node("Transpose", ["long"], "wide", perm=[1, 0]),
            _node("MatMul", ["long", "wide"], "large"),
            _node("Add", ["large", value]),
            a=np.ones((1, 1), np.float32),
            size=np.array([10**6, 1]),
        ),
        "large reshape": changed(reshape),
        "doubled 45 times": computing(*doubled, _node("Identity", ["x45"])),
    }


def other_values() -> dict[str, bytes]:
    """Makes graphs whose inputs or outputs are not those of the settings."""

    def of_inputs(change: Callable[[Any], None], kind: str, place: int) -> bytes:
        return changed(lambda proto: change(getattr(proto.graph, kind)[place]))

    def rename(value: Any) -> None:
        value.name = "other"

    def retype(value: Any) -> None:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE

    def more_axes(value: Any) -> None:
        value.type.tensor_type.shape.dim.add(dim_value=1)

    value = _log_probs()
    extra = helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1])
    found = {
        f"{change.__name__} {kind} {place}": of_inputs(change, kind, place)
        for change in (rename, retype, more_axes)
        for kind in ("input", "output")
        for place in (0, 1)
        if (change, kind) != (more_axes, "output")  # ONNX Runtime corrects these
    }
    return found | {
        "an input more": changed(lambda proto: proto.graph.input.append(extra)),
        "an output more": changed(lambda proto: proto.graph.output.append(proto.graph.input[0])),
        "an output less": changed(lambda proto: proto.graph.output.pop()),
        "wider": computing(_node("Concat", [value, value], axis=2)),
        "narrower": computing(_node("ReduceMax", [value], axes=[2])),
        "fewer axes": computing(_node("ReduceMax", [value], axes=[2], keepdims=0)),
        "fewer frames": computing(_node("ReduceMax", [value], axes=[1])),
        "fewer rows": computing(_node("ReduceMax", [value], axes=[0])),
        "NaN": computing(_node("Mul", [value, "by"]), by=np.float32(np.nan)),
        "probabilities above 1": computing(_node("Neg", [value])),
        "infinity": computing(_node("Mul", [value, "by"]), by=np.float32(-np.inf)),
        "other lengths": computing(_node("Identity", ["num_samples"]), output="output_lengths"),
        "one length": computing(_node("ReduceMax", ["num_samples"]), output="output_lengths"),
        "negative lengths": computing(_node("Neg", ["num_samples"]), output="output_lengths"),
    }


def other_settings() -> dict[str, str | None]:
    """Makes settings that are damaged, or that do not fit the weights; None leaves them out."""
    tree = json.loads(config_lib.to_json(CONFIG))

    def having(section: str, **values: Any) -> str:
        return json.dumps({**tree, section: {**tree[section], **values}})

    return {
        "no settings": None,
        "no JSON": "{",
        "a list": "[]",
        "deep": "[" * 100_000,
        "a long name": json.dumps({**tree, "a" * 3_000_000: 1}),
        "large": "[" + "[]," * 2_000_000 + "[]]",
        "a long number": '{"seed": ' + "9" * 10_000 + "}",
        "another alphabet": having("data", alphabet="ABC "),
        "a huge alphabet": having("data", alphabet="".join(map(chr, range(0x4E00, 0x9FA5)))),
        "no alphabet": having("data", alphabet=""),
        "another rate": having("features", sample_rate=10**9),
    }


def other_sizes() -> dict[str, str]:
    """Makes settings of another model than the weights."""
    tree = json.loads(config_lib.to_json(CONFIG))
    largest = 2**31 - 1
    return {
        f"{name} {value}": json.dumps({**tree, "model": {**tree["model"], name: value}})
        for name, value in (
            *(("hidden_size", largest), ("num_layers", largest), ("lookahead_context", largest), ("hidden_size", 4)),
            *(("channels", [largest, largest]), ("time_kernels", [largest, largest]), ("rnn_type", "gru")),
            *(("bidirectional", True), ("num_layers", 2)),
        )
    }


def with_settings(settings: str | None) -> tuple[bytes, bytes]:
    """Writes the graph of whole utterances and the weights with other settings."""
    metadata = {} if settings is None else {"config": settings}
    return changed(lambda proto: onnx_graph.add_metadata(proto, metadata)), safetensors.to_bytes(variables(), metadata)


def step_with(output: str, by: float) -> bytes:
    """Makes a step that gives another number of rows of its state, or multiplies its log-probabilities."""

    def change(proto: onnx.ModelProto) -> None:
        last = next(node for node in proto.graph.node if node.output[0] == output)
        value, place = last.input[0], list(proto.graph.node).index(last)
        if output == "log_probs":
            proto.graph.initializer.append(_constant("by", np.float32(by)))
            proto.graph.node.insert(place, _node("Mul", [value, "by"]))
        else:
            proto.graph.node.insert(place, _node("Concat", [value, value], axis=0))
        _given(proto, output, "new")

    return changed(change, step())

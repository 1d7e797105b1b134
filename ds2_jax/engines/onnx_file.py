"""Reads and checks .onnx files without the package onnx, before ONNX Runtime opens them.

A graph from elsewhere can name files to read, operators of other libraries, or graphs inside operators. A graph that
this package wrote has none of these, so files that have them are refused.

Source: onnx/onnx.proto (the numbers of the fields) and Protocol Buffers' wire format.
"""

from collections.abc import Iterator

from ds2_jax.system.errors import InputError, shorten

OPERATORS = {
    *("Add", "And", "Cast", "Clip", "Concat", "Conv", "CumSum", "Div", "Equal", "Expand", "GRU", "Gather"),
    *("GatherElements", "Greater", "Identity", "LSTM", "Less", "Log", "LogSoftmax", "MatMul", "Max", "Min", "Mod"),
    *("Mul", "Neg", "Not", "Pad", "RNN", "Range", "ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Shape", "Slice"),
    *("Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where", "DynamicQuantizeLSTM"),
}
"""The operators that `graph` writes, and the one that quantising adds."""
DOMAINS = ("", "ai.onnx", "com.microsoft")

GRAPH, METADATA, TRAINING, FUNCTIONS = 7, 14, 20, 25  # fields of ModelProto
NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15  # of GraphProto
OP_TYPE, ATTRIBUTE, DOMAIN = 4, 5, 7  # of NodeProto
TENSORS, SUBGRAPHS = (5, 10), (6, 11, 22, 23)  # of AttributeProto; the last two are sparse tensors
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of TensorProto

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = memoryview | int


def check_graph(content: bytes, name: str) -> dict[str, str]:
    """Checks that a file holds nothing but operators and weights that this package writes.

    Args:
        content: an ONNX model.
        name: name of the model in errors.

    Returns:
        The model's metadata.

    Raises:
        InputError: the content is no ONNX model, is cut, or holds something else.
    """

    def refuse(got: str) -> InputError:
        return InputError(
            f"{name} must be a model that `export` wrote, got {shorten(got)}. Export it again, or use another file."
        )

    def check_tensor(tensor: Value) -> None:
        for number, value in _fields(tensor):
            if number == EXTERNAL_DATA or (number == DATA_LOCATION and value):
                raise refuse("weights in another file")

    def check_node(node: Value) -> None:
        for number, value in _fields(node):
            if number == OP_TYPE and _text(value) not in OPERATORS:
                raise refuse(f"the operator {_text(value)!r}")
            if number == DOMAIN and _text(value) not in DOMAINS:
                raise refuse(f"an operator of {_text(value)!r}")
            if number == ATTRIBUTE:
                for part, inner in _fields(value):
                    if part in SUBGRAPHS:
                        raise refuse("a graph inside an operator")
                    if part in TENSORS:
                        check_tensor(inner)

    metadata: dict[str, str] = {}
    has_graph = False
    try:
        for number, value in _fields(memoryview(content)):
            if number in (TRAINING, FUNCTIONS):
                raise refuse("functions")
            if number == METADATA:
                entry = dict(_fields(value))
                metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
            if number == GRAPH:
                has_graph = True
                for part, inner in _fields(value):
                    if part == SPARSE_INITIALIZER:
                        raise refuse("sparse weights")
                    if part == INITIALIZER:
                        check_tensor(inner)
                    if part == NODE:
                        check_node(inner)
    except (ValueError, TypeError) as error:
        raise refuse("damaged or other content") from error
    if not has_graph:
        raise refuse("no graph")
    return metadata


def _text(value: Value | bytes) -> str:
    if isinstance(value, int):
        raise TypeError("a number instead of a text")
    return bytes(value).decode("utf-8")


def _fields(message: Value) -> Iterator[tuple[int, Value]]:
    """Yields the number and the value of each field of a message.

    Raises:
        ValueError: the message is cut or damaged.
        TypeError: there is a number where a message should be.
    """
    if isinstance(message, int):
        raise TypeError("a number instead of a message")
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        kind = key & 7
        if kind == VARINT:
            number, place = _varint(message, place)
            yield key >> 3, number
            continue
        if kind == BYTES:
            length, place = _varint(message, place)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if length > end - place:
            raise ValueError("the message is cut")
        yield key >> 3, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Reads a number of at most ten bytes. Returns it and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise ValueError("the message is cut")

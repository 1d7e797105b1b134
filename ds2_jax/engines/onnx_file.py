"""Reads and checks .onnx files without the package onnx, before ONNX Runtime opens them.

A graph from elsewhere can name files to read, operators of other libraries, or graphs inside operators. A graph that
this package wrote has none of these, so files that have them are refused. `SCHEMA` lists all that may occur. Anything
else is refused, and so is a second value of a field that has one, because readers differ in which one they take.

Source: onnx/onnx.proto (the numbers of the fields) and Protocol Buffers' wire format.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ds2_jax.system.errors import InputError, shorten

OPERATORS = {
    *("Add", "And", "Cast", "Clip", "Concat", "Conv", "CumSum", "Div", "Equal", "Expand", "GRU", "Gather"),
    *("GatherElements", "Greater", "Identity", "LSTM", "Less", "Log", "LogSoftmax", "MatMul", "Max", "Min", "Mod"),
    *("Mul", "Neg", "Not", "Pad", "RNN", "Range", "ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Shape", "Slice"),
    *("Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}
"""The operators that `graph` writes."""
QUANTISED = {("com.microsoft", "DynamicQuantizeLSTM")}
"""Domain and name of the operator that quantising adds."""
DATA_TYPES = {1, 2, 3, 6, 7, 9, 11}
"""float, uint8, int8, int32, int64, bool and double, as numbers of TensorProto.DataType."""
MAX_FIELDS = 100_000
"""Fields in a file, so that checking it takes a second at most. A model of ten layers has some 5,000."""
MAX_BYTES = 2**31
"""The length of a file; Protocol Buffers allow no more."""
MAX_RANK, MAX_AXIS = 8, 2**31

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = memoryview | int


class Field(NamedTuple):
    """What a field may hold.

    Attributes:
        name: name of the field in onnx.proto.
        kinds: wire types; none for a field that must not occur.
        is_repeated: whether there may be several.
        message: fields of the message that it holds, by number.
    """

    name: str
    kinds: tuple[int, ...]
    is_repeated: bool = False
    message: "Mapping[int, Field] | None" = None


def _number(name: str) -> Field:
    return Field(name, (VARINT,))


def _text(name: str, *, is_repeated: bool = False) -> Field:
    return Field(name, (BYTES,), is_repeated)


def _none(**numbers: int) -> dict[int, Field]:
    """Names fields that must not occur, for the errors. Fields that are not listed must not occur either."""
    return {number: Field(name, ()) for name, number in numbers.items()}


def _list(name: str, kind: int = VARINT) -> Field:
    return Field(name, (kind, BYTES), is_repeated=True)  # one by one, or packed


def _message(name: str, message: Mapping[int, Field], *, is_repeated: bool = False) -> Field:
    return Field(name, (BYTES,), is_repeated, message)


_TENSOR = {
    1: _list("dims"),
    2: _number("data_type"),
    4: _list("float_data", FIXED32),
    5: _list("int32_data"),
    7: _list("int64_data"),
    8: _text("name"),
    9: _text("raw_data"),
    10: _list("double_data", FIXED64),
    12: _text("doc_string"),
    14: _number("data_location"),
    **_none(string_data=6, external_data=13),
}
_ATTRIBUTE = {
    1: _text("name"),
    2: Field("f", (FIXED32,)),
    3: _number("i"),
    4: _text("s"),
    7: _list("floats", FIXED32),
    8: _list("ints"),
    9: _text("strings", is_repeated=True),
    13: _text("doc_string"),
    20: _number("type"),
    **_none(t=5, g=6, tensors=10, graphs=11, tp=14, type_protos=15, sparse_tensor=22, sparse_tensors=23),
}
_NODE = {
    1: _text("input", is_repeated=True),
    2: _text("output", is_repeated=True),
    3: _text("name"),
    4: _text("op_type"),
    5: _message("attribute", _ATTRIBUTE, is_repeated=True),
    6: _text("doc_string"),
    7: _text("domain"),
}
_DIMENSION = {1: _number("dim_value"), 2: _text("dim_param"), 3: _text("denotation")}
_SHAPE = {1: _message("dim", _DIMENSION, is_repeated=True)}
_TENSOR_TYPE = {1: _number("elem_type"), 2: _message("shape", _SHAPE)}
_TYPE = {1: _message("tensor_type", _TENSOR_TYPE), 6: _text("denotation")}
_VALUE_INFO = {1: _text("name"), 2: _message("type", _TYPE), 3: _text("doc_string")}
_GRAPH = {
    1: _message("node", _NODE, is_repeated=True),
    2: _text("name"),
    5: _message("initializer", _TENSOR, is_repeated=True),
    10: _text("doc_string"),
    11: _message("input", _VALUE_INFO, is_repeated=True),
    12: _message("output", _VALUE_INFO, is_repeated=True),
    13: _message("value_info", _VALUE_INFO, is_repeated=True),
    **_none(quantization_annotation=14, sparse_initializer=15),
}
_ENTRY = {1: _text("key"), 2: _text("value")}
_OPSET = {1: _text("domain"), 2: _number("version")}
SCHEMA = {
    1: _number("ir_version"),
    2: _text("producer_name"),
    3: _text("producer_version"),
    4: _text("domain"),
    5: _number("model_version"),
    6: _text("doc_string"),
    7: _message("graph", _GRAPH),
    8: _message("opset_import", _OPSET, is_repeated=True),
    14: _message("metadata_props", _ENTRY, is_repeated=True),
    **_none(training_info=20, functions=25),
}
"""The fields of ModelProto that may occur, and those of the messages in it."""


def read_graph(path: Path) -> bytes:
    """Reads an .onnx file.

    Raises:
        InputError: the file cannot be read, or is longer than any such file.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path} must be at most {MAX_BYTES} bytes long, got {size}. Export the model again.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} must be readable, got: {error.strerror}. Export the model again.") from error


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
    metadata: dict[str, str] = {}
    try:
        messages = list(_messages(memoryview(content), SCHEMA, [MAX_FIELDS]))
        for schema, fields in messages:
            if schema is _NODE:
                _check_node(fields)
            elif schema is _TENSOR:
                _check_tensor(fields)
            elif schema is _ENTRY:
                metadata[_string(fields, 1)] = _string(fields, 2)
        if not any(schema is _GRAPH for schema, _ in messages):
            raise _RefusedError("no graph")
    except _RefusedError as error:
        raise InputError(
            f"{name} must be a model that `export` wrote, got {shorten(str(error))}. "
            "Export it again, or use another file."
        ) from error
    return metadata


class _RefusedError(Exception):
    """Why a file is refused."""


_DAMAGED = "damaged or other content"


def _check_node(fields: dict[int, list[Value]]) -> None:
    operator, domain = _string(fields, 4), _string(fields, 7)
    if (domain, operator) in QUANTISED:
        return
    if domain not in ("", "ai.onnx"):
        raise _RefusedError(f"the operator {operator!r} of {domain!r}")
    if operator not in OPERATORS:
        raise _RefusedError(f"the operator {operator!r}")


def _check_tensor(fields: dict[int, list[Value]]) -> None:
    if any(fields.get(14, [])):
        raise _RefusedError("weights in another file")
    if any(kind not in DATA_TYPES for kind in fields.get(2, [])):
        raise _RefusedError(f"weights of the type {fields[2][0]}")
    shape: list[int] = []
    for each in fields.get(1, []):
        shape += [each] if isinstance(each, int) else _packed(each)
        if len(shape) > MAX_RANK:
            raise _RefusedError(f"weights with more than {MAX_RANK} axes")
    size = sum(
        len(each) if isinstance(each, memoryview) else 1
        for number in (4, 5, 7, 9, 10)
        for each in fields.get(number, [])
    )
    if math.prod(shape) > size or max(shape, default=0) > MAX_AXIS:  # each number takes a byte or more
        raise _RefusedError(f"weights of the shape {shape} in {size} bytes")


def _messages(
    message: memoryview, schema: Mapping[int, Field], left: list[int]
) -> Iterator[tuple[Mapping[int, Field], dict[int, list[Value]]]]:
    """Yields the fields of a message and of the messages in it.

    Args:
        message: the message.
        schema: its fields.
        left: how many fields there may still be, in a list that is counted down.

    Raises:
        _RefusedError: the message is cut or damaged, or holds a field that it must not.
    """
    found: dict[int, list[Value]] = {}
    for number, kind, value in _fields(message):
        left[0] -= 1
        if left[0] < 0:
            raise _RefusedError(f"more than {MAX_FIELDS} fields")
        field = schema.get(number)
        if field is None or kind not in field.kinds:
            refused = field is None or not field.kinds
            raise _RefusedError(f"{field.name if field else number} as a field" if refused else _DAMAGED)
        if number in found and not field.is_repeated:
            raise _RefusedError(f"two fields {field.name!r}")
        found.setdefault(number, []).append(value)
        if field.message and isinstance(value, memoryview):
            yield from _messages(value, field.message, left)
    yield schema, found


def _string(fields: dict[int, list[Value]], number: int) -> str:
    [value] = fields.get(number, [memoryview(b"")])
    try:
        return str(value, "utf-8") if isinstance(value, memoryview) else str(value)
    except UnicodeDecodeError as error:
        raise _RefusedError(_DAMAGED) from error


def _packed(values: memoryview) -> list[int]:
    numbers: list[int] = []
    place = 0
    while place < len(values) and len(numbers) <= MAX_RANK:
        number, place = _varint(values, place)
        numbers.append(number)
    return numbers


def _fields(message: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yields the number, the wire type and the value of each field of a message.

    Raises:
        _RefusedError: the message is cut or damaged.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        kind = key & 7
        if kind == VARINT:
            number, place = _varint(message, place)
            yield key >> 3, kind, number
            continue
        if kind == BYTES:
            length, place = _varint(message, place)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise _RefusedError(_DAMAGED)
        if length > end - place:
            raise _RefusedError("a file that is cut or damaged")
        yield key >> 3, kind, message[place : place + length]
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
    raise _RefusedError("a file that is cut or damaged")

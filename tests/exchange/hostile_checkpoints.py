"""Checkpoints that try to run something, or claim more than they hold."""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

from ds2_jax.engines.pytorch import MAGIC, VERSION
from tests.exchange.checkpoints import CONTAINERS, Array, Call, Named, legacy, ordered, package, state_dict, zipped
from tests.golden import inputs

CASE = inputs.MODEL_CASES["bidirectional_lstm"]
COMMAND = "touch was_run"
LARGE = 2**40


def _raw(*parts: bytes) -> bytes:
    """Makes the zip format of a pickle written by hand."""
    content = b"\x80\x02" + b"".join(parts) + b"."
    whole = zipped({})
    return _with_entry(whole, "archive/data.pkl", content)


def _with_entry(whole: bytes, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for entry in old.namelist():
            if entry != name:
                new.writestr(entry, old.read(entry))
        new.writestr(name, content)
    return file.getvalue()


def _text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def planted() -> dict[str, bytes]:
    """Pickles that name a program, in every way that a pickle has."""
    call = pickle.MARK + _text(COMMAND) + pickle.TUPLE + pickle.REDUCE
    system = b"cposix\nsystem\n"
    state = ordered({"weight": Call(Named("posix", "system"), (COMMAND,))})
    return {
        "GLOBAL": _raw(system, call),
        "STACK_GLOBAL": _raw(_text("posix"), _text("system"), pickle.STACK_GLOBAL, call),
        "INST": _raw(pickle.MARK, _text(COMMAND), b"iposix\nsystem\n"),
        "OBJ": _raw(pickle.MARK, system, _text(COMMAND), pickle.OBJ),
        "NEWOBJ_EX": _raw(system, pickle.EMPTY_TUPLE, pickle.EMPTY_DICT, pickle.NEWOBJ_EX),
        "EXT1": _raw(pickle.EXT1, b"\x01"),
        "PERSID": _raw(b"Pposix.system\n"),
        "builtins": _raw(b"cbuiltins\nexec\n", pickle.MARK, _text("raise SystemExit"), pickle.TUPLE, pickle.REDUCE),
        "getattr": _raw(
            b"cbuiltins\ngetattr\n", pickle.MARK, b"cos\nsystem\n", _text("x"), pickle.TUPLE, pickle.REDUCE
        ),
        "BUILD": _raw(system, pickle.EMPTY_DICT, pickle.BUILD),
        "in the weights": zipped(package(CASE, state_dict=state)),
        "in the legacy format": legacy(package(CASE, state_dict=state)),
        "before the legacy format": pickle.dumps(0)[:-1] + b"0" + system + call + b"." + legacy(package(CASE)),
    }


def _tensor(shape: tuple[Any, ...], strides: tuple[Any, ...], offset: Any = 0, numbers: Any = None) -> bytes:
    """Makes a package in which a tensor has another size, stride or place, or other numbers."""
    arrays: dict[str, Any] = {**state_dict(CASE)}
    values = ("numbers", arrays["fc.0.module.0.bias"].values) if numbers is None else numbers
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    arrays["fc.0.module.0.bias"] = Call(rebuild, (values, offset, shape, strides, False, None))
    return zipped(package(CASE, state_dict=ordered(arrays)))


def _nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def _doubled(levels: int) -> Any:
    """Makes lists of lists in which each is there ten times: a copy would have 10 ** levels items."""
    value: Any = []
    for _ in range(levels):
        value = [value] * 10
    return value


def _tuples(levels: int) -> bytes:
    """Makes a tuple that holds a tuple twice, which holds a tuple twice, ... Its hash takes 2 ** levels steps."""
    parts = [pickle.EMPTY_TUPLE + pickle.BINPUT + b"\0"]
    for level in range(levels):
        parts.append(pickle.BINGET + bytes([level]) + pickle.TUPLE2 + pickle.BINPUT + bytes([level + 1]))
    return b"".join(parts)


def _legacy_keys(keys: bytes) -> bytes:
    """Makes the legacy format with another list of storages."""
    before = [pickle.dumps(each, protocol=2) for each in (MAGIC, VERSION, {"little_endian": True}, {})]
    return b"".join([*before, b"\x80\x02", keys, b"."])


def _layers(number: int) -> bytes:
    """Makes a package of many recurrent layers that share their numbers."""
    arrays = state_dict(CASE)
    layer = {name: array for name, array in arrays.items() if name.startswith("rnns.1.")}
    for index in range(2, number):
        arrays |= {name.replace("rnns.1.", f"rnns.{index}."): array for name, array in layer.items()}
    return zipped(package(CASE, state_dict=ordered(arrays)))


def bombs() -> dict[str, bytes]:
    """Files that claim large sizes."""
    case = inputs.MODEL_CASES["bidirectional_lstm"]
    zeros = Array(next(iter(state_dict(case).values())).values * 0)
    deep = package(case, audio_conf=_nested(30))
    return {
        "size": _tensor((LARGE,), (1,)),
        "sizes": _tensor((2**20, 2**20), (0, 0)),
        "stride": _tensor((8,), (LARGE,)),
        "repeated": _tensor((2**16, 2**16), (0, 0)),
        "negative stride": _tensor((8,), (-1,), 7),
        "negative place": _tensor((8,), (1,), -1),
        "place": _tensor((8,), (1,), LARGE),
        "rank": _tensor((1,) * 1000, (1,) * 1000),
        "kind of a size": _tensor(("8",), (1,)),
        "many digits": _tensor((2**62,) * 8, (2**62,) * 8),
        "storage": _tensor((8,), (1,), numbers=("numbers",)),
        "memo": _raw(pickle.EMPTY_LIST, pickle.LONG_BINPUT, struct.pack("<I", 2**32 - 1)),
        "text": _raw(pickle.BINUNICODE8, struct.pack("<Q", LARGE)),
        "bytes": _raw(pickle.BINBYTES8, struct.pack("<Q", LARGE)),
        "integer": _raw(pickle.LONG4, struct.pack("<i", 2**31 - 1)),
        "large integer": _raw(pickle.LONG1, b"\xff" + b"\x7f" * 255),
        "operations": _raw((pickle.NONE + pickle.POP) * 200_000, pickle.NONE),
        "frame": _raw(pickle.FRAME, struct.pack("<Q", LARGE)),
        "depth": zipped(deep),
        "great depth": _raw((pickle.EMPTY_DICT + _text("a")) * 20_000, pickle.NONE, pickle.SETITEM * 20_000),
        "copies": zipped(package(case, audio_conf=_doubled(12))),
        "copies in the legacy format": legacy(package(case, labels=_doubled(12))),
        "compressed": zipped(package(case, state_dict=ordered({"a": zeros})), compression=zipfile.ZIP_DEFLATED),
        "compressed pickle": _with_entry(zipped({}), "archive/data.pkl", bytes(2**22), zipfile.ZIP_DEFLATED),
        "two pickles": _with_entry(zipped(package(case)), "other/data.pkl", b"\x80\x02N."),
        "order of bytes": _with_entry(zipped(package(case)), "archive/byteorder", b"big"),
        "order of bytes in the legacy format": legacy(package(case), little_endian=False),
        "key of tuples": _raw(pickle.EMPTY_DICT, _tuples(60), pickle.NONE, pickle.SETITEM),
        "keys of tuples": _raw(pickle.EMPTY_DICT, pickle.MARK, _tuples(60), pickle.NONE, pickle.SETITEMS),
        "set of tuples": _raw(pickle.EMPTY_SET, pickle.MARK, _tuples(60), pickle.ADDITEMS),
        "key of tuples, remembered": _raw(
            _tuples(60), pickle.EMPTY_DICT, pickle.BINGET + b"\x3c", pickle.NONE, pickle.SETITEM
        ),
        "names of storages": _legacy_keys(pickle.EMPTY_LIST + _tuples(60) + pickle.APPEND),
        "layers": _layers(1000),
        "no pickle": _with_entry(zipped({}), "archive/data.pkl", b""),
    }


def damaged() -> dict[str, bytes]:
    """Files that are cut or in disorder."""
    files: dict[str, bytes] = {}
    for name, write in CONTAINERS.items():
        whole = write(CASE)
        files |= {f"{name} cut to {share}": whole[: int(len(whole) * share)] for share in (0.01, 0.5, 0.9, 0.999)}
        files[f"{name} in disorder"] = whole[len(whole) // 2 :] + whole[: len(whole) // 2]
    return files | {"empty": b"", "text": b"weights", "zip": b"PK\x05\x06" + bytes(18)}


def all_of_them() -> Mapping[str, bytes]:
    """All hostile files by name."""
    return planted() | bombs() | damaged()

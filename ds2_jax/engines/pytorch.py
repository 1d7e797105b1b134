"""Reads files that PyTorch saved, without PyTorch and without running anything they contain.

A file holds a pickle and the numbers of its arrays. A pickle can name any function and call it. Here every name stands
for a `Part`, which only notes what was asked for, so nothing is looked up, imported or called. What a pickle may claim
about sizes is compared with the bytes of the file before memory is taken.

Source: torch/serialization.py (both formats), Python's pickletools.
"""

import io
import math
import pickle
import pickletools
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ds2_jax.system.errors import InputError, shorten

MAX_BYTES = 16 * 2**30
MAX_PICKLE = 64 * 2**20
"""Bytes of a pickle. Those of the original have some 20,000; the numbers are elsewhere."""
MAX_OPERATIONS = 100_000
MAX_DEPTH = 64
"""Levels of containers that are looked into."""
MAX_RANK = 8
MOST_COPIES = 32
"""How often the bytes of a file may be read for arrays. The original's are asked for three times at most."""
OPERATIONS = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK GLOBAL STACK_GLOBAL REDUCE BUILD NEWOBJ BINPERSID BINPUT LONG_BINPUT BINGET"
    " LONG_BINGET MEMOIZE NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE"
    " BINUNICODE8 SHORT_BINSTRING BINSTRING SHORT_BINBYTES BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST"
    " APPEND APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS".split()
)
"""What PyTorch's and Python's picklers write from protocol 2 on."""
TYPES: Mapping[str, type[np.generic]] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
MAGIC = 119547037146038801333356
"""The first number of the format before PyTorch 1.6."""
VERSION = 1001
ZIP = b"PK\x03\x04"


class Part:
    """Stands for an object of a class, or the result of a function, that a pickle names.

    Attributes:
        args: what the class or function was given.
        state: what the object held; None if it held nothing.
        items: keys and values, or values with their places, that were added.
    """

    def __new__(cls, *args: Any) -> "Part":
        """Notes the arguments."""
        part = super().__new__(cls)
        part.args, part.state, part.items = args, None, []
        return part

    args: tuple[Any, ...]
    state: Any
    items: list[tuple[Any, Any]]

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Notes the state."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Notes an item of a mapping."""
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """Notes an item of a list."""
        self.items.append((len(self.items), value))

    def extend(self, values: Any) -> None:
        """Notes items of a list."""
        for value in values:
            self.append(value)


class Storage(NamedTuple):
    """The numbers of one or more arrays.

    Attributes:
        kind: their type, a name of TYPES.
        key: its name in the file.
        size: how many they are.
    """

    kind: str
    key: str
    size: int


class Checkpoint:
    """A file that was read.

    Attributes:
        content: the object in the file, with `Part`s for everything that is no plain value.
    """

    def __init__(self, path: Path, content: Any, numbers: Callable[[str], bytes], num_bytes: int) -> None:
        self.content = content
        self._path, self._numbers = path, numbers
        self._read = "", b""
        self._allowed = MOST_COPIES * num_bytes

    def array(self, tensor: Any) -> np.ndarray | None:
        """Returns the array of a tensor; None if it is no tensor.

        Raises:
            InputError: the tensor has a type, a size or a place that does not fit its numbers.
        """
        if not isinstance(tensor, Part) or name_of(tensor) not in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return None
        try:
            storage, offset, shape, strides = tensor.args[:4]
            kind = TYPES[storage.kind]
            if len(shape) != len(strides) or len(shape) > MAX_RANK:
                raise ValueError(f"{len(shape)} sizes")
            if not all(type(each) is int and each >= 0 for each in (offset, *shape, *strides)):
                raise ValueError("a place or a size that is none")
            size = math.prod(shape)
            last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
            # Strides can repeat numbers, so that a small file would become a huge array.
            if size > storage.size or (size and last >= storage.size):
                raise ValueError(f"{size} numbers of {storage.size}")
            content = self._content(storage, size * np.dtype(kind).itemsize)
            if len(content) != storage.size * np.dtype(kind).itemsize:
                raise ValueError(f"{len(content)} bytes for {storage.size} numbers")
            flat = np.frombuffer(content, np.dtype(kind).newbyteorder("<"))[offset:]
            steps = [stride * flat.itemsize for stride in strides]
            return np.lib.stride_tricks.as_strided(flat, tuple(shape), steps, writeable=False).astype(kind)
        except Exception as error:  # the file decides what fails, and how
            raise _damaged(self._path, f"a tensor with {error}") from error

    def _content(self, storage: "Storage", num_bytes: int) -> bytes:
        """Returns the bytes of a storage, of which an array takes so many. Neighbours often share a storage."""
        self._allowed -= (
            num_bytes + (storage.key != self._read[0]) * storage.size * np.dtype(TYPES[storage.kind]).itemsize
        )
        # A model can name one storage thousands of times, so that a small file would become many huge arrays.
        if self._allowed < 0:
            raise ValueError("numbers that are used again and again")
        if storage.key != self._read[0]:
            self._read = storage.key, self._numbers(storage.key)
        return self._read[1]


def read(path: Path) -> Checkpoint:
    """Reads a file that `torch.save` wrote, in the zip format or that before PyTorch 1.6.

    Raises:
        InputError: the file is missing, cut, damaged or of another format, or states sizes that it does not have.
    """
    try:
        status = path.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):  # a device may have no end, and a pipe no writer
            raise InputError(f"{path} must be a file on disk, got a folder, a pipe or a device. Correct the path.")
        if size > MAX_BYTES:
            raise InputError(f"{path} must have at most {MAX_BYTES} bytes, got {size}. Name a checkpoint.")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} must be a readable file, got: {reason}. Correct the path.") from error
    try:
        return _read_zip(path, data) if data.startswith(ZIP) else _read_legacy(path, data)
    except InputError:
        raise
    # The pickle decides which of its operations fail, and how.
    except Exception as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _damaged(path: Path, finding: str) -> InputError:
    advice = "Download it again, or name another file."
    return InputError(f"{path} must be a checkpoint of PyTorch, got {shorten(finding)}. {advice}")


def _read_zip(path: Path, data: bytes) -> Checkpoint:
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = archive.infolist()
    [pickled] = [each.filename for each in entries if re.fullmatch(r"[^/]+/data\.pkl", each.filename)]
    root = pickled.removesuffix("data.pkl")
    # PyTorch does not compress, so no entry is longer than the file.
    compressed = any(each.compress_type != zipfile.ZIP_STORED for each in entries)
    if compressed or sum(each.file_size for each in entries) > len(data):
        raise ValueError("compressed entries")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("another order of bytes")
    return Checkpoint(path, _load(archive.read(pickled)), lambda key: archive.read(f"{root}data/{key}"), len(data))


def _read_legacy(path: Path, data: bytes) -> Checkpoint:
    """Reads five pickles in a row, then for each storage its number of items and their bytes."""
    place = 0
    pickled = []
    for _ in range(5):
        end = place + _length(data, place)
        pickled.append(_load(data[place:end]))
        place = end
    magic, version, system, content, keys = pickled
    if magic != MAGIC or version != VERSION:
        raise ValueError("another magic number or version")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("another order of bytes")
    kinds = {storage.key: storage.kind for storage in _storages(content)}
    places: dict[str, slice] = {}
    for key in keys:
        if not isinstance(key, str):
            raise ValueError("a storage without a name")
        size = int.from_bytes(data[place : place + 8], "little", signed=True)
        end = place + 8 + size * np.dtype(TYPES[kinds[key]]).itemsize
        if size < 0 or end > len(data):
            raise ValueError("a file that is cut short")
        places[key] = slice(place + 8, end)
        place = end
    return Checkpoint(path, content, lambda key: data[places[key]], len(data))


def _length(data: bytes, start: int) -> int:
    """Returns the length of the pickle that starts at a byte, after checking its operations.

    Python's unpickler would take memory for any index of its memo, however large; a pickle of PyTorch counts them up.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    stack = _Stack()
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if operation.name not in OPERATIONS:
            raise ValueError(f"the operation {operation.name} in a pickle")
        if operation.name in ("BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise ValueError(f"place {argument} of a memo of {count}")
        # Of larger integers, so many have the same hash that a dict of them would take hours.
        if operation.name == "LONG1" and argument != MAGIC and abs(int(argument or 0)) >= 2**63:
            raise ValueError("a number that is too large")
        if count >= MAX_OPERATIONS or stream.tell() - start > MAX_PICKLE:
            raise ValueError("a pickle that is too long")
        stack.follow(operation, argument)
    return stream.tell() - start


class _Stack:
    """Follows the stack of a pickle, to find keys that are tuples.

    Python hashes a tuple anew each time, with all that it holds. A few tuples that each hold the one before twice would
    take years, and the hashes of others can be made equal.
    """

    def __init__(self) -> None:
        self._values: list[bool | None] = []  # whether they are tuples; None for a mark
        self._memo: dict[int, bool | None] = {}

    def follow(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        """Does an operation. Raises ValueError if it takes a tuple for a key, or IndexError if the stack is too low."""
        name, values = operation.name, self._values
        if name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = values[-1]
            return
        needed = len(operation.stack_before)
        taken: list[bool | None] = []
        if pickletools.markobject in operation.stack_before:
            while (value := values.pop()) is not None:
                taken.append(value)
            taken.reverse()
            needed = operation.stack_before.index(pickletools.markobject)
        keys = {"SETITEM": values[-2:-1], "SETITEMS": taken[::2], "ADDITEMS": taken}.get(name, [])
        if any(keys):
            raise ValueError("a tuple as a key")
        for _ in range(needed):
            values.pop()
        if name in ("BINGET", "LONG_BINGET"):
            values.append(self._memo.get(argument, False))
        elif operation.stack_after:
            values.append(None if name == "MARK" else "TUPLE" in name)


def _load(content: bytes) -> Any:
    if _length(content, 0) != len(content):
        raise ValueError("bytes behind a pickle")
    return _Unpickler(io.BytesIO(content), encoding="utf-8").load()


class _Unpickler(pickle.Unpickler):
    """Makes a `Part` of everything that is no plain value."""

    def find_class(self, module: str, name: str) -> type[Part]:
        """Makes a class of its own for each name; nothing is looked up."""
        return type(name, (Part,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Storage:
        """Notes which numbers an array has."""
        mark, kind, key, _, size, *view = pid
        if (
            mark != "storage"
            or not isinstance(key, str)
            or type(size) is not int
            or size < 0
            or view not in ([], [None])
        ):
            raise ValueError("a storage of another kind")
        return Storage(kind.__name__, key, size)


def name_of(value: Any) -> str:
    """Returns the name of the class or function that a value stands for; "" for a plain value."""
    if isinstance(value, Part):
        return type(value).__name__
    return value.__name__ if isinstance(value, type) and issubclass(value, Part) else ""


def _storages(content: Any) -> Iterator[Storage]:
    """Finds all storages in an object. A pickle can refer to one object many times; each is looked into once."""
    seen: set[int] = set()
    level, depth = [content], 0
    while level and depth < MAX_DEPTH:
        inner = []
        for value in level:
            if isinstance(value, Storage):
                yield value
            elif isinstance(value, dict | list | tuple | Part) and id(value) not in seen:
                seen.add(id(value))
                inner += _inside(value)
        level, depth = inner, depth + 1


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.values()]
    if isinstance(value, Part):
        return [*value.args, value.state, *(each for _, each in value.items)]
    return [*value]

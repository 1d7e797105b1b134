"""A kind of file that is fuzzed, and what must hold when a damaged one is read.

A reader returns where it accepts a file, having checked what it got, and raises InputError where it refuses it. Heavy
modules are imported where they are used: a process loads those of the targets that it is asked for.
"""

import dataclasses
import functools
import io
import os
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ds2_jax.system.errors import InputError
from tests.fuzz.mutate import mutate

T = TypeVar("T")


class Payload:
    """What runs a command, a harmless one, where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f": {MARK}",)


def _object_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Payload()], object), allow_pickle=True)
    return file.getvalue()


MARK = "was_run"
PICKLE = pickle.dumps(Payload())
PAYLOADS = (PICKLE, _object_array(), f"import os\nos.system(': {MARK}')\n".encode())
"""A pickle, an array of objects as NumPy keeps it, and a program: in place of any file. A worker notices all three."""


def _unchanged(data: bytes) -> bytes:
    return data


def _none() -> Sequence[bytes]:
    return ()


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        file: its name in the folder that it is read in.
        seeds: whole files, which are accepted.
        read: reads the file.
        claims: files made by hand that claim too much, or what no honest file holds.
        mend: makes checksums right behind the damage.
        beside: other files in its folder, by name.
        starts_programs: whether reading it may.
    """

    file: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[Path], None]
    claims: Callable[[], Sequence[bytes]] = _none
    mend: Callable[[bytes], bytes] = _unchanged
    beside: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    starts_programs: bool = False

    def content(self, name: str, number: int) -> bytes:
        """Mutation `number` of the target `name`; below 0, the files of `unchanged`."""
        if number < 0:
            return self.mend(self.unchanged()[-1 - number])
        whole = self.made(self.seeds)
        rng = random.Random(f"{name} {number}")
        seed = rng.choice(whole)
        return self.mend(mutate(seed, whole, rng, is_text=seed.isascii()))

    def unchanged(self) -> Sequence[bytes]:
        """The seeds, the claims, and code that nothing may run."""
        return [*self.made(self.seeds), *self.made(self.claims), *PAYLOADS]

    @staticmethod
    @functools.cache
    def made(make: Callable[[], Sequence[bytes]]) -> Sequence[bytes]:
        """The seeds or claims, made once in a process."""
        return make()


def attempt(path: Path, call: Callable[[], T]) -> T | InputError:
    """What `call` returns, or why it refuses the file, which must name it."""
    try:
        return call()
    except InputError as error:
        if str(path) not in str(error):
            raise AssertionError("names no file") from error
        return error


def accepted(path: Path, call: Callable[[], T]) -> T:
    """What `call` returns."""
    result = attempt(path, call)
    if isinstance(result, InputError):
        raise result
    return result

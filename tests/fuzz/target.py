"""A kind of file that is fuzzed, and the rules for reading a damaged one.

A reader returns if it accepts a file, after checking the content, and raises InputError if it refuses the file. Heavy
modules are imported inside functions, so that a process loads only those of its targets.
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
    """Runs a harmless command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f": {MARK}",)


def _object_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Payload()], object), allow_pickle=True)
    return file.getvalue()


MARK = "was_run"
PICKLE = pickle.dumps(Payload())
PAYLOADS = (PICKLE, _object_array(), f"import os\nos.system(': {MARK}')\n".encode())
"""A pickle, NumPy's file of an array of objects, and a program. They replace any file; a worker notices all three."""


def _unchanged(data: bytes) -> bytes:
    return data


def _none() -> Sequence[bytes]:
    return ()


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        file: name of the file in its folder.
        seeds: whole files, which must be accepted.
        read: reads the file.
        claims: files made by hand that claim too much, or hold what no honest file holds.
        mend: corrects checksums after the damage.
        beside: other files in the folder, by name.
        starts_programs: whether reading the file may start programs.
    """

    file: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[Path], None]
    claims: Callable[[], Sequence[bytes]] = _none
    mend: Callable[[bytes], bytes] = _unchanged
    beside: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    starts_programs: bool = False

    def content(self, name: str, number: int) -> bytes:
        """Returns mutation `number` of the target `name`; a number below 0 gives a file of `unchanged`."""
        if number < 0:
            return self.mend(self.unchanged()[-1 - number])
        whole = self.made(self.seeds)
        rng = random.Random(f"{name} {number}")
        seed = rng.choice(whole)
        return self.mend(mutate(seed, whole, rng, is_text=seed.isascii()))

    def unchanged(self) -> Sequence[bytes]:
        """Returns the seeds, the claims, and files of code that must never run."""
        return [*self.made(self.seeds), *self.made(self.claims), *PAYLOADS]

    @staticmethod
    @functools.cache
    def made(make: Callable[[], Sequence[bytes]]) -> Sequence[bytes]:
        """Makes the seeds or claims, once in each process."""
        return make()


def attempt(path: Path, call: Callable[[], T]) -> T | InputError:
    """Returns the result of `call`, or its error if it refuses the file; the error must name the file."""
    try:
        return call()
    except InputError as error:
        if str(path) not in str(error):
            raise AssertionError("names no file") from error
        return error


def accepted(path: Path, call: Callable[[], T]) -> T:
    """Returns the result of `call`; raises its error if it refuses the file."""
    result = attempt(path, call)
    if isinstance(result, InputError):
        raise result
    return result

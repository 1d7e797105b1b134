"""The binary cache of ARPA files: what one process read and linked, later ones load.

A file in a folder that only the user can write, named by the SHA-256 of the ARPA file and the version of the format,
holds the CRC-32 of all that follows (4 bytes), a line of JSON that tells the arrays, and the arrays: numbers and text,
nothing that is run. One that is damaged or of another version is made anew.
"""

import hashlib
import json
import logging
import os
import zlib
from pathlib import Path

import numpy as np

from ds2_jax.decoding.ngram.arpa import SPECIALS, read_arpa
from ds2_jax.decoding.ngram.trie import NGramArrays, build
from ds2_jax.system.caches import cache_folder
from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

VERSION = 1
"""To be raised with every change of what the arrays mean."""
CRC_BYTES = 4
ALIGNMENT = 8

Contents = tuple[tuple[str, ...], NGramArrays, np.ndarray]
"""The vocabulary, and what `trie.build` returns."""


def read_through_cache(path: Path) -> Contents:
    """Reads an ARPA file, or what the cache holds of one with the same bytes.

    Without a cache that can be written it says so and goes on.

    Returns:
        The vocabulary, the trie, and the first node of each order; see `trie.build`.

    Raises:
        InputError: see `read_arpa` and `build`.
        OSError: it cannot be read.
    """
    digest = digest_of(path)
    try:
        cached = cache_folder("ngrams") / f"{digest}.{VERSION}"
    except (OSError, RuntimeError, InputError) as error:  # RuntimeError: the user has no home
        _say_uncached(error)
        cached = None
    contents = cached and _read(cached)
    if contents:
        return contents
    arpa = read_arpa(path)
    contents = arpa.words[: -len(SPECIALS)], *build(arpa)
    if cached and digest_of(path) == digest:  # otherwise it changed between
        try:
            _write(cached, contents)
        except OSError as error:
            _say_uncached(error)
    return contents


def digest_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say_uncached(error: Exception) -> None:
    reason = str(error).rstrip(".")
    logger.warning(f"reading the language model without a cache: {reason}. XDG_CACHE_HOME may name another.")


def _write(path: Path, contents: Contents) -> None:
    vocabulary, arrays, order_starts = contents
    stored = {"order_starts": order_starts, **arrays._asdict()}  # the largest items first: each stays aligned
    stored["vocabulary"] = np.frombuffer("\n".join(vocabulary).encode(), np.uint8)
    header = json.dumps({"version": VERSION, "arrays": [[n, a.dtype.str, len(a)] for n, a in stored.items()]}).encode()
    header += b" " * (-(CRC_BYTES + len(header) + 1) % ALIGNMENT) + b"\n"
    crc = zlib.crc32(header)
    for array in stored.values():
        crc = zlib.crc32(array, crc)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with new.open("wb") as file:
            file.write(crc.to_bytes(CRC_BYTES, "little") + header)
            for array in stored.values():
                file.write(array)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _read(path: Path) -> Contents | None:
    """What a file holds; None if it is not there, cannot be read, is damaged or of another version."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError:
        return None
    crc = int.from_bytes(content[:CRC_BYTES].tobytes(), "little")
    if len(content) <= CRC_BYTES or zlib.crc32(content[CRC_BYTES:].data) != crc:
        return None
    position = CRC_BYTES + int(np.argmax(content[CRC_BYTES:] == ord("\n"))) + 1
    header = json.loads(content[CRC_BYTES:position].tobytes())
    if header["version"] != VERSION:
        return None
    stored = {}
    for name, kind, length in header["arrays"]:
        end = position + length * np.dtype(kind).itemsize
        stored[name] = content[position:end].view(kind)
        position = end
    text = stored.pop("vocabulary").tobytes().decode()
    order_starts = stored.pop("order_starts")
    return tuple(text.split("\n") if text else ()), NGramArrays(**stored), order_starts

"""The binary cache of ARPA files. The first process that reads a file stores its arrays, and later processes load them.

A cache file lies in a folder that only the user can write. Its name is the SHA-256 of the ARPA file and the version of
the format. It contains the CRC-32 of everything that follows (4 bytes), a line of JSON that describes the arrays, and
the arrays. It contains only numbers and text, no code. A file that is damaged or has another version is written again.
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
"""Increase this number when the meaning of the arrays changes."""
CRC_BYTES = 4
ALIGNMENT = 8

Contents = tuple[tuple[str, ...], NGramArrays, np.ndarray]
"""The vocabulary, and the two results of `trie.build`."""


def read_through_cache(path: Path) -> Contents:
    """Reads an ARPA file, or loads it from the cache if a file with the same bytes was read before.

    If the cache cannot be written, a warning is logged and the file is read without it.

    Returns:
        The vocabulary, the trie, and the first node of each order; see `trie.build`.

    Raises:
        InputError: see `read_arpa` and `build`.
        OSError: the file cannot be read.
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
    if cached and digest_of(path) == digest:  # otherwise the file changed meanwhile
        try:
            _write(cached, contents)
        except OSError as error:
            _say_uncached(error)
    return contents


def digest_of(path: Path) -> str:
    """Computes the SHA-256 of the file of a language model, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"The language model must be a readable file, got {path}: {error.strerror}. Correct --lm."
        ) from error


def _say_uncached(error: Exception) -> None:
    reason = str(error).rstrip(".")
    logger.warning(f"reading the language model without a cache: {reason}. Set XDG_CACHE_HOME to another folder.")


def _write(path: Path, contents: Contents) -> None:
    vocabulary, arrays, order_starts = contents
    stored = {"order_starts": order_starts, **arrays._asdict()}  # largest item size first, so that each stays aligned
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
    """Reads a cache file. Returns None if it is missing, unreadable, damaged or of another version."""
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

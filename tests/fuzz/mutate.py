"""Damages a file as a full disk, a bad copy or an attacker would; equal random numbers give equal damage."""

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

INTEGERS = (0, 1, 255, 2**15 - 1, 2**15, 2**16 - 1, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**36 - 1, 2**62, 2**63 - 1)
HEADER_BYTES = 96
"""Most formats store rates, channels and lengths in these first bytes, so half of the changes are made there."""
TEXT = re.compile(rb'-?\d+(?:\.\d+)?|"[^"\n]*"|true|false|null|[A-Za-z]{2,}')
HOSTILE_TEXT = (
    *(b"0", b"-1", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1e-400", b"9" * 19, b"9" * 400, b"9" * 5000),
    *(b"null", b"true", b"{}", b"[]", b'""', b'"\\ud800"', b'"\\u0000"', b'"../../../up"', b'"/dev/zero"', b"\xff\xfe"),
    *(
        b"[" * 500 + b"]" * 500,
        b"[" * 90_000,
        b'{"a":' * 20_000,
        b'"' + b"A" * 70_000 + b'"',
        b"\xe2\x80\xa8",
        b"\n",
        b"\t",
    ),
)
HOSTILE_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.0, -0.5, 2**31, 2**63, -(2**63), 10**400, 1e308, math.nan, math.inf, -math.inf),
    *("", "0", "a\0b", "\ud800", "\u2028", "../../up", "/dev/zero", "A" * 70_000, "é" * 300, [], {}, [[]], {"a": {}}),
)
Change = Callable[[bytearray, Sequence[bytes], random.Random], None]


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random, *, is_text: bool) -> bytes:
    """Damages `data` in one to eight ways, also with parts of the whole files `others`. Most text stays text."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(TEXT_CHANGES if is_text and rng.random() < 0.9 else CHANGES)(changed, others, rng)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(len(data), HEADER_BYTES) if rng.random() < 0.5 else len(data)) if data else 0


def _block(data: bytes | bytearray, rng: random.Random) -> slice:
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 100, 1000, 5000))
    return slice(start, start + length)


def _flip_bits(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 64)) if data else 0):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _set_bytes(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 64)) if data else 0):
        data[_place(data, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_integer(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    width, place = rng.choice((1, 2, 3, 4, 4, 8)), _place(data, rng)
    value = rng.choice(INTEGERS) & (1 << 8 * width) - 1
    place -= place % 2 if rng.random() < 0.8 else 0  # most fields lie at even offsets
    data[place : place + width] = value.to_bytes(width, rng.choice(("little", "big")))


def _set_text(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Replaces a number, a string or a word, one of the first 2,000, by a value that no reader expects."""
    found = [match for _, match in zip(range(2000), TEXT.finditer(data), strict=False)]
    if found:
        start, end = rng.choice(found[:12] if rng.random() < 0.5 else found).span()
        data[start:end] = rng.choice(HOSTILE_TEXT)


def _set_tree(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Changes or deletes a value or a key in a line of JSON, or in the whole text if that is one object."""
    lines = bytes(data).split(b"\n")
    for place in (*rng.sample(range(len(lines)), min(len(lines), 3)), None):
        try:
            tree = json.loads(data if place is None else lines[place])
        except (ValueError, RecursionError):
            continue
        _change_tree(tree, rng)
        text = json.dumps(tree).encode()
        data[:] = text if place is None else b"\n".join([*lines[:place], text, *lines[place + 1 :]])
        return


def _change_tree(tree: Any, rng: random.Random) -> None:
    while isinstance(tree, dict | list) and tree:
        key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        if isinstance(tree[key], dict | list) and tree[key] and rng.random() < 0.8:
            tree = tree[key]
            continue
        value = tree.pop(key)
        match rng.randrange(6):
            case 0 if isinstance(tree, dict):
                tree[f"{key}{rng.choice(' _x')}"] = value
            case 1:
                pass  # it is deleted
            case _ if isinstance(tree, dict):
                tree[key] = rng.choice(HOSTILE_VALUES)
            case _:
                tree.insert(key, rng.choice(HOSTILE_VALUES))
        return


def _truncate(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _delete(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    del data[_block(data, rng)]


def _duplicate(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = data[_block(data, rng)] * rng.choice((1, 1, 2, 50))


def _insert(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 3, 4, 100, 2000)))


def _splice(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Joins the start of this file to the end of another."""
    other = rng.choice(others)
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


TEXT_CHANGES: tuple[Change, ...] = (
    *(_set_tree,) * 8,
    *(_set_text,) * 4,
    *(_truncate, _delete, _duplicate, _splice),
)
CHANGES: tuple[Change, ...] = (
    *(_flip_bits, _set_bytes, _set_integer, _set_integer, _set_text, _set_text),
    *(_truncate, _delete, _duplicate, _insert, _splice),
)

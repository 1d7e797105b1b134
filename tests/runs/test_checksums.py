"""The checksum of an array depends on its type, shape and bytes."""

import hashlib

import jax.numpy as jnp
import numpy as np

from ds2_jax.runs.checksums import checksums


def test_sum_is_of_type_shape_and_bytes() -> None:
    array = np.array([[1, 2, 3]], np.int32)
    expected = hashlib.sha256(b"<i4 (1, 3)\n" + array.tobytes()).hexdigest()
    assert checksums({"a": {"b": array}, "c": jnp.asarray(array)}) == {"a.b": expected, "c": expected}


def test_arrays_of_the_same_bytes_are_told_apart() -> None:
    zeros = np.zeros(4, np.float32)
    arrays = {"a": zeros, "b": zeros.reshape(2, 2), "c": zeros.view(np.int32), "d": np.zeros(8, np.float16)}
    assert len(set(checksums(arrays).values())) == len(arrays)


def test_every_bit_counts() -> None:
    array = np.arange(64, dtype=np.float32)
    found = {checksums([array])["0"]}
    for byte in (0, 100, 255):
        other = array.copy()
        other.view(np.uint8)[byte] ^= 1
        found |= set(checksums([other]).values())
    assert len(found) == 4


def test_layout_does_not_count() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert checksums([array]) == checksums([np.asfortranarray(array)])

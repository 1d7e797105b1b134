"""Decodes the two codes of telephony, ITU-T G.711. A byte holds a sign, three bits of exponent and four of mantissa."""

import numpy as np


def decode_ulaw(content: bytes) -> np.ndarray:
    """Decodes µ-law.

    Args:
        content: S bytes.

    Returns:
        [S] int16.
    """
    codes = ~np.frombuffer(content, np.uint8)
    exponents, mantissas = _parts(codes)
    levels: np.ndarray = (((mantissas << 3) + 132) << exponents) - 132
    return np.where(codes & 0x80, -levels, levels).astype(np.int16)


def decode_alaw(content: bytes) -> np.ndarray:
    """Decodes A-law; see `decode_ulaw`."""
    codes = np.frombuffer(content, np.uint8) ^ 0x55  # every second bit is sent inverted
    exponents, mantissas = _parts(codes)
    levels = np.where(exponents, ((mantissas << 4) + 264) << np.maximum(exponents - 1, 0), (mantissas << 4) + 8)
    return np.where(codes & 0x80, levels, -levels).astype(np.int16)


def _parts(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wide = codes.astype(np.int32)
    return wide >> 4 & 7, wide & 15

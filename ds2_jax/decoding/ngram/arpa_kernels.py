"""Compiled inner loops of reading an ARPA file: they parse lines and look up the ids of words.

Text is [N] uint8, the bytes of complete lines. The last byte is a newline.
"""

import numpy as np

from ds2_jax.system.numba_cache import kernel

TAB, NEWLINE, RETURN, SPACE, BACKSLASH = b"\t\n\r \\"
PLUS, MINUS, POINT, ZERO, NINE, SMALL_E, LARGE_E = b"+-.09eE"
MANTISSA_LIMIT = 10**17
"""Further digits of a mantissa are ignored. They lie nine decimal places below the precision of float32."""
LARGEST = 1e38
"""The absolute value of a number must be smaller, so that the number fits float32."""


@kernel()
def parse_lines(
    text: np.ndarray,
    position: int,
    order: int,
    is_highest: bool,
    log10: np.ndarray,
    backoffs: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
) -> tuple[int, int]:
    """Reads lines of n-grams up to the end of the text, a line that begins with a backslash, or a wrong line.

    It writes one entry for each n-gram into each of the last four arguments.

    Args:
        text: the lines, see the module's docstring.
        position: offset of the first line.
        order: number of words in a line.
        is_highest: whether `order` is the model's highest, which has no back-off weights.
        log10: [N] float64, log10 probabilities.
        backoffs: [N] float64, log10 of back-off weights; 0 for a line without one.
        starts: [N, order] int32, offset of each word's start in the text.
        ends: [N, order] int32, offset of each word's end.

    Returns:
        The offset of the first line that was not read (the text's length if all were), and the number of n-grams read.
    """
    count = 0
    while position < len(text):
        fields = 0
        at = position
        good = True
        while True:
            while text[at] == SPACE or text[at] == TAB or text[at] == RETURN:
                at += 1
            if text[at] == NEWLINE:
                break
            start = at
            while text[at] != SPACE and text[at] != TAB and text[at] != RETURN and text[at] != NEWLINE:
                at += 1
            if fields == 0:
                if text[start] == BACKSLASH:
                    return position, count
                good, log10[count] = parse_number(text, start, at)
                good = good and log10[count] <= 0
                backoffs[count] = 0
            elif fields <= order:
                starts[count, fields - 1] = start
                ends[count, fields - 1] = at
            else:
                good, backoffs[count] = parse_number(text, start, at)
                good = good and fields == order + 1 and not (is_highest and backoffs[count] != 0)
            if not good:
                return position, count
            fields += 1
        if 0 < fields <= order:
            return position, count
        if fields:
            count += 1
        position = at + 1
    return position, count


@kernel()
def parse_number(text: np.ndarray, start: int, end: int) -> tuple[bool, float]:
    """Parses a decimal number, text[start:end]. Returns whether it is valid and below LARGEST, and the number."""
    at = start
    negative = text[at] == MINUS
    if text[at] == PLUS or negative:
        at += 1
    mantissa = exponent = digits = 0
    after_point = False
    while at < end:
        character = int(text[at])
        if ZERO <= character <= NINE:
            if mantissa < MANTISSA_LIMIT:
                mantissa = mantissa * 10 + (character - ZERO)
                exponent -= after_point
            else:
                exponent += not after_point
            digits += 1
        elif character == POINT and not after_point:
            after_point = True
        else:
            break
        at += 1
    if digits == 0:
        return False, 0.0
    if at < end and (text[at] == SMALL_E or text[at] == LARGE_E):
        at += 1
        below_one = at < end and text[at] == MINUS
        if at < end and (text[at] == PLUS or below_one):
            at += 1
        if at == end:
            return False, 0.0
        written = 0
        while at < end and ZERO <= text[at] <= NINE:
            written = min(written * 10 + (int(text[at]) - ZERO), 100000)
            at += 1
        exponent += -written if below_one else written
    if at < end:
        return False, 0.0
    # Powers of ten are exact up to 10^22. Dividing by one rounds once; multiplying by its inverse would round twice.
    value = mantissa * 10.0**exponent if exponent >= 0 else mantissa / 10.0**-exponent
    return bool(value < LARGEST), -value if negative else value


@kernel()
def make_table(words: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Makes a hash table of distinct words.

    Args:
        words: [N] uint8, the concatenated words.
        bounds: [W + 1] int64, the offset of each word's start, then the end of the last word.

    Returns:
        [M] int32, the id in each slot, or -1 for an empty slot. M is a power of two and at least twice the number of
        words.
    """
    size = 2
    while size < 2 * len(bounds):
        size *= 2
    table = np.full(size, -1, np.int32)
    for word in range(len(bounds) - 1):
        slot = _hash(words, bounds[word], bounds[word + 1]) & (size - 1)
        while table[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        table[slot] = word
    return table


@kernel()
def find_words(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray, table: np.ndarray, words: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Looks up the ids of words in a text.

    Args:
        text: the lines, see the module's docstring.
        starts: [N, n] int32, offset of each word's start.
        ends: [N, n] int32, offset of each word's end.
        table: the result of `make_table` for `words` and `bounds`.
        words: [N] uint8, see `make_table`.
        bounds: [W + 1] int64, see `make_table`.

    Returns:
        [N, n] int32, the ids; -1 for a word that is not in the table.
    """
    ids = np.full(starts.shape, -1, np.int32)
    for row in range(starts.shape[0]):
        for column in range(starts.shape[1]):
            start, end = starts[row, column], ends[row, column]
            slot = _hash(text, start, end) & (len(table) - 1)
            while table[slot] >= 0:
                word = table[slot]
                if _equal(text, start, end, words, bounds[word], bounds[word + 1]):
                    ids[row, column] = word
                    break
                slot = (slot + 1) & (len(table) - 1)
    return ids


@kernel()
def _equal(text: np.ndarray, start: int, end: int, words: np.ndarray, first: int, last: int) -> bool:
    if end - start != last - first:
        return False
    for offset in range(end - start):  # noqa: SIM110 -- numba compiles no generators
        if text[start + offset] != words[first + offset]:
            return False
    return True


@kernel()
def _hash(text: np.ndarray, start: int, end: int) -> np.int64:
    """Computes the 64-bit FNV-1a hash (Fowler, Noll and Vo) with its upper half folded in. It is never negative."""
    value = np.uint64(14695981039346656037)
    for at in range(start, end):
        value = (value ^ np.uint64(text[at])) * np.uint64(1099511628211)
    return np.int64((value ^ (value >> np.uint64(32))) & np.uint64(0x7FFFFFFF))

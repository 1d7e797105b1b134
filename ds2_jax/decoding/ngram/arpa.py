r"""Reads back-off n-gram models in the ARPA format, plain or gzipped.

SRILM, KenLM, IRSTLM and others write this format. Comments may come first. The line `\data\` follows, then a line
`ngram ORDER=COUNT` for each order. Then each order has a section `\ORDER-grams:` with a line for each n-gram: log10 of
its probability, its words and, below the highest order, optionally log10 of its back-off weight, separated by tabs or
spaces. The line `\end\` ends the file.
"""

import collections
import contextlib
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds2_jax.decoding.ngram.arpa_kernels import LARGEST, find_words, make_table, parse_lines
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.inflate import inflate

SPECIALS = BEGIN, END, UNKNOWN = ("<s>", "</s>", "<unk>")
"""The words for the beginning of a sentence, its end, and any word that the model does not know."""
UNKNOWN_LOG10 = -100.0
"""log10 probability of <unk> if a file does not list it, as in KenLM."""
OTHER_UNKNOWN = "<UNK>"

BLOCK_BYTES = 2**24
GZIP = b"\x1f\x8b"
NEWLINE, WHITE_SPACE = b"\n", b" \t\r\n"
DATA = re.compile(rb"^(?:\xef\xbb\xbf)?[ \t]*\\data\\[ \t\r]*$", re.MULTILINE)  # a byte order mark may precede it
COUNT = re.compile(rb"ngram[ \t]+(\d{1,18})[ \t]*=[ \t]*(\d{1,18})")
NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
IRSTLMS = (b"iARPA", b"qARPA")
"""First words of IRSTLM's internal formats, which look like ARPA files but contain other numbers."""
ADVICE = "Correct the line or make the model again."
REMAKE = "Copy the file again or make it again."
CUT_SHORT = f"The file is cut short. {REMAKE}"


class NGrams(NamedTuple):
    """The N n-grams of one order n, in any sequence.

    Attributes:
        words: [N, n] int32, word ids.
        log10: [N] float32, log10 probability of the last word after the others.
        backoffs: [N] float32, log10 of the back-off weight, 0 for an n-gram without one.
    """

    words: np.ndarray
    log10: np.ndarray
    backoffs: np.ndarray


class Arpa(NamedTuple):
    """The contents of an ARPA file.

    Attributes:
        path: the file.
        words: the vocabulary, sorted by code points (the same order as UTF-8 bytes), then SPECIALS. A word's index is
            its id.
        orders: the n-grams of each order from 1 up. The 1-grams are sorted by id.
    """

    path: Path
    words: tuple[str, ...]
    orders: list[NGrams]


def read_arpa(path: Path) -> Arpa:
    r"""Reads an ARPA file.

    <UNK> is read as <unk>. If a file lists neither, <unk> has UNKNOWN_LOG10.

    Args:
        path: a plain or gzipped file. The first bytes decide which.

    Raises:
        InputError: the file cannot be read, is not an ARPA file or is cut short. The sections differ from those that
            `\data\` announces. A line is wrong: fields are missing or too many, a field is not a finite number, or a
            probability is above 1. A word is listed twice, is not in UTF-8, or occurs only in longer n-grams. <s> or
            </s> is missing.
    """
    with reading(path), _opened(path) as stream:
        text = _Text(path, stream)
        counts = _read_counts(text)
        blocks = list(_read_section(text, 1, counts))
        words, ids = _sort_words(path, [name for block in blocks for name in block.first_words()])
        log10, backoffs = np.full(len(words), UNKNOWN_LOG10, np.float32), np.zeros(len(words), np.float32)
        log10[ids] = np.concatenate([block.log10 for block in blocks])
        backoffs[ids] = np.concatenate([block.backoffs for block in blocks])
        orders = [NGrams(np.arange(len(words), dtype=np.int32)[:, None], log10, backoffs)]
        del blocks
        vocabulary = _Vocabulary(words)
        for order in range(2, len(counts) + 1):
            parts = [vocabulary.number(text, block) for block in _read_section(text, order, counts)]
            empty = NGrams(np.zeros((0, order), np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))
            orders.append(NGrams(*(np.concatenate(each) for each in zip(empty, *parts, strict=True))))
        _expect(text, "\\end\\")
    return Arpa(path, words, orders)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns read errors of the body into an InputError that names `path`.

    Raises:
        InputError: the file is missing, not readable, damaged or cut short.
    """
    try:
        yield
    except EOFError as error:
        raise InputError(f"{path} must be a complete gzip file, got only its start. {REMAKE}") from error
    except (OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} must be readable, got: {reason}. Correct this or name another file.") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    with path.open("rb") as file:
        if file.peek(len(GZIP)).startswith(GZIP):
            with inflate(file) as stream:
                yield stream
        else:
            yield file


class _Text:
    """The lines of a file, read in blocks of complete lines.

    Attributes:
        block: the current block.
        position: offset of the current line in the block.
    """

    def __init__(self, path: Path, stream: io.BufferedReader) -> None:
        self.path = path
        self.block = b""
        self.position = 0
        self._stream = stream
        self._rest = b""  # the start of the next line, after the block
        self._lines_before = 0

    def more(self) -> bool:
        """Whether there is a current line. Reads the next block if this one is used up."""
        if self.position < len(self.block):
            return True
        self._lines_before += self.block.count(NEWLINE)
        read = self._stream.read(BLOCK_BYTES)
        content = self._rest + read
        cut = content.rfind(NEWLINE) + 1
        if len(read) < BLOCK_BYTES:  # end of file
            self.block = content if cut == len(content) else content + NEWLINE
            self._rest = b""
        else:
            require(cut > 0, str(self.path), "be an ARPA file", f"a line of {len(content)} bytes")
            self.block, self._rest = content[:cut], content[cut:]
        self.position = 0
        return bool(self.block)

    def line(self) -> bytes | None:
        """Returns the first line, from the current one on, that is not blank, stripped; None at the end of the file."""
        while self.more():
            line = self.block[self.position : self._line_end()].strip(WHITE_SPACE)
            if line:
                return line
            self.advance()
        return None

    def advance(self) -> None:
        """Goes to the next line."""
        self.position = self._line_end() + 1

    def place(self, position: int) -> str:
        """Returns the file and the line number of a position in the block, for messages."""
        return f"{self.path}, line {self._lines_before + self.block.count(NEWLINE, 0, position) + 1},"

    def _line_end(self) -> int:
        return self.block.index(NEWLINE, self.position)


class _Block(NamedTuple):
    """The N n-grams of a block of lines. `starts` and `ends` are the offsets of their words in the text."""

    text: bytes
    log10: np.ndarray
    backoffs: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def first_words(self) -> list[bytes]:
        places = zip(self.starts[:, 0].tolist(), self.ends[:, 0].tolist(), strict=True)
        return [self.text[start:end] for start, end in places]


class _Vocabulary:
    """Finds the ids of words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        encoded = [word.encode() for word in (*words, OTHER_UNKNOWN)]
        self._unknown = len(words) - 1
        self._bounds = np.cumsum([0, *map(len, encoded)])
        self._words = np.frombuffer(b"".join(encoded), np.uint8)
        self._table = make_table(self._words, self._bounds)

    def number(self, text: _Text, block: _Block) -> NGrams:
        """Replaces the words of `block`, which is the text's current block, by their ids."""
        characters = np.frombuffer(block.text, np.uint8)
        ids = find_words(characters, block.starts, block.ends, self._table, self._words, self._bounds)
        for row, column in np.argwhere(ids < 0)[:1]:
            start, end = block.starts[row, column], block.ends[row, column]
            _refuse(text.place(start), "hold only words that are among the 1-grams", block.text[start:end], ADVICE)
        return NGrams(np.minimum(ids, self._unknown), block.log10, block.backoffs)


def _refuse(field: str, rule: str, value: bytes, advice: str) -> None:
    require(False, field, rule, value.decode(errors="replace"), advice)


def _read_counts(text: _Text) -> list[int]:
    r"""Reads the number of n-grams of each order after `\data\`."""
    rule, advice = "be an ARPA model, with a line \\data\\", "Name an ARPA file, plain or gzipped, or a KenLM binary."
    require(text.more(), str(text.path), rule, "an empty file", advice)
    found = DATA.search(text.block)  # must be in the first 16 MB
    if found is None:
        raise InputError(f"{text.path} must {rule}, got a file without it. {advice}")
    before = text.block[: found.start()].split(maxsplit=1)
    if before and before[0] in IRSTLMS:
        _refuse(str(text.path), rule, before[0], "Convert it with IRSTLM: compile-lm FILE --text=yes OUTPUT.")
    text.position = found.end()
    counts: list[int] = []
    text.advance()
    while (line := text.line()) is not None and not line.startswith(b"\\"):
        order = len(counts) + 1
        match = COUNT.fullmatch(line)
        if match is None or int(match[1]) != order:
            _refuse(text.place(text.position), f"be 'ngram {order}=COUNT' or '\\1-grams:'", line, ADVICE)
        else:
            counts.append(int(match[2]))
        text.advance()
    require(bool(counts), str(text.path), "announce 'ngram 1=COUNT' after \\data\\", "no counts", ADVICE)
    return counts


def _expect(text: _Text, wanted: str) -> None:
    """Reads the line that begins a section or ends the file."""
    line = text.line()
    if line is None:
        raise InputError(f"{text.path} must have a line {wanted}, got the end of the file. {CUT_SHORT}")
    if line != wanted.encode():
        _refuse(text.place(text.position), f"be {wanted}", line, f"Are sections missing? {REMAKE}")
    text.advance()


def _read_section(text: _Text, order: int, counts: list[int]) -> Iterator[_Block]:
    _expect(text, f"\\{order}-grams:")
    is_highest = order == len(counts)
    total = 0
    while (line := text.line()) is not None and not line.startswith(b"\\"):
        # A field takes at least two bytes, which limits the number of lines. One more row is needed: parse_lines writes
        # the fields of a wrong line before it rejects the line.
        room = (len(text.block) - text.position) // (2 * (order + 1)) + 1
        most = min(text.block.count(NEWLINE, text.position), room)
        numbers = np.empty((2, most))  # log10 probabilities, back-off weights
        places = np.empty((2, most, order), np.int32)  # offsets of the words' starts and ends
        block = np.frombuffer(text.block, np.uint8)
        text.position, count = parse_lines(block, text.position, order, is_highest, *numbers, *places)
        log10, backoffs = numbers[:, :count].astype(np.float32)
        yield _Block(text.block, log10, backoffs, *places[:, :count])
        total += count
        if text.position < len(text.block):
            _check_line(text, order, is_highest)
    if line is not None:
        rule = f"hold the {counts[order - 1]} n-grams that \\data\\ announces"
        require(total == counts[order - 1], f"{text.path}, section \\{order}-grams:", rule, total, REMAKE)


def _check_line(text: _Text, order: int, is_highest: bool) -> None:
    """Raises an error for the current line, unless it begins the next section."""
    fields = re.split(rb"[ \t\r]+", text.line() or b"")
    if fields[0].startswith(b"\\"):
        return
    if not _is_finite(fields[0]) or float(fields[0]) > 0:
        rule, value = "begin with a finite log10 probability, at most 0", fields[0]
    elif not order < len(fields) <= order + 2:
        rule, value = f"hold a probability, {order} words and perhaps a back-off weight", b" ".join(fields)
    elif not _is_finite(fields[-1]):
        rule, value = f"hold a probability, {order} words and perhaps a finite log10 back-off weight", fields[-1]
    else:
        assert is_highest
        rule, value = "have no back-off weight, because it is of the highest order", fields[-1]
    _refuse(text.place(text.position), rule, value, ADVICE)


def _is_finite(field: bytes) -> bool:
    return bool(NUMBER.fullmatch(field)) and abs(float(field)) < LARGEST


def _sort_words(path: Path, names: list[bytes]) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns `Arpa.words`, and the id of each listed word."""
    try:
        listed = [UNKNOWN if name == OTHER_UNKNOWN.encode() else name.decode() for name in names]
    except UnicodeDecodeError as error:
        value, advice = error.object.decode(errors="replace"), "Convert the file, for example with iconv."
        raise InputError(f"{path} must be in UTF-8, got {value!r}. {advice}") from error
    words = (*sorted(set(listed) - set(SPECIALS)), *SPECIALS)
    ids = {word: index for index, word in enumerate(words)}
    twice = [word for word, count in collections.Counter(listed).items() if count > 1]
    for word in twice[:1]:
        require(False, str(path), "list each word once", word, ADVICE)
    for word in sorted({BEGIN, END} - set(listed)):
        raise InputError(f"{path} must list {BEGIN} and {END} among its 1-grams, got a list without {word}. {REMAKE}")
    return words, np.array([ids[word] for word in listed], np.int64)

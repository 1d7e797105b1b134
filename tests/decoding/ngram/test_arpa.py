"""Valid ARPA files are read, and wrong ones give an error that names the line."""

import gzip
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.ngram import arpa
from ds2_jax.decoding.ngram.arpa import Arpa, read_arpa
from ds2_jax.decoding.ngram.arpa_kernels import find_words, make_table, parse_lines, parse_number
from ds2_jax.decoding.ngram.trie import build
from ds2_jax.system.errors import InputError
from tests.golden.ngram_inputs import HAND

Listed = dict[tuple[str, ...], tuple[float, float]]

HAND_LISTED = {
    ("<unk>",): (-1.25, 0),
    ("<s>",): (-99, -0.5),
    ("</s>",): (-0.75, 0),
    ("THE",): (-0.5, -0.25),
    ("CAT",): (-0.625, 0.125),
    ("SAT",): (-2, 0),
    ("<s>", "THE"): (-0.25, -0.125),
    ("THE", "CAT"): (-0.375, -0.0625),
    ("CAT", "SAT"): (-0.5, 0),
    ("SAT", "</s>"): (-0.875, 0),
    ("THE", "THE"): (-1.5, -3),
    ("<s>", "THE", "CAT"): (-0.0625, 0),
    ("THE", "CAT", "SAT"): (-0.03125, 0),
}


def read(folder: Path, text: str | bytes) -> Arpa:
    path = folder / "model.arpa"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_arpa(path)


def listed(model: Arpa) -> Listed:
    """Returns the n-grams of a file with log10 probability and back-off weight."""
    return {
        tuple(model.words[word] for word in words): (log10, backoff)
        for order in model.orders
        for words, log10, backoff in zip(*(each.tolist() for each in order), strict=True)
    }


def assert_refused(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        build(read(folder, text))


def test_plain(tmp_path: Path) -> None:
    model = read(tmp_path, HAND)
    assert model.words == ("CAT", "SAT", "THE", "<s>", "</s>", "<unk>")
    assert listed(model) == HAND_LISTED


def test_room_is_made_for_the_lines_that_can_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of 3,000 orders before 100,000 lines once allocated 2.2 GiB."""
    sizes: list[tuple[int, ...]] = []

    def measured(*arguments: Any) -> Any:
        sizes.append(arguments[-1].shape)
        return parse_lines(*arguments)

    monkeypatch.setattr(arpa, "parse_lines", measured)
    counts = "".join(f"ngram {order}={3 * (order == 1)}\n" for order in range(1, 301))
    sections = "".join(f"\\{order}-grams:\n" for order in range(2, 301))
    text = f"\\data\\\n{counts}\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\ta\n{sections}" + "-1\t<s>\n" * 10_000
    assert_refused(tmp_path, text, "must hold a probability, 300 words and perhaps a back-off weight, got '-1 <s>'.")
    assert max(rows * order * 8 for rows, order in sizes) < 4 * len(text)


def test_the_shortest_lines_find_room(tmp_path: Path) -> None:
    words = "abcdefghij"
    text = "\\data\\\nngram 1=12\nngram 2=100\n\\1-grams:\n-1 <s>\n-1 </s>\n"
    text += "".join(f"0 {word}\n" for word in words) + "\\2-grams:\n"
    text += "".join(f"0 {one} {other}\n" for one in words for other in words) + "\\end\\"
    assert len(read(tmp_path, text).orders[1].log10) == 100
    assert_refused(tmp_path, text.replace("\\end\\", "0 a\n\\end\\"), "must hold a probability, 2 words")


def test_a_gzip_bomb(tmp_path: Path) -> None:
    bomb = gzip.compress(HAND.replace("\\2-grams:", "-1.0\ta\n" * 2**23 + "\\2-grams:", 1).encode(), 1)
    assert_refused(tmp_path, bomb, "must be readable, got: over 50 bytes of content for each byte of the file.")


def test_gzip_by_its_first_bytes(tmp_path: Path) -> None:
    assert listed(read(tmp_path, gzip.compress(HAND.encode()))) == HAND_LISTED


@pytest.mark.parametrize(
    "text",
    [
        HAND.replace("\n", "\r\n"),
        "\ufeff" + HAND,
        "made by hand\nngram 7=9\n\n" + HAND,
        HAND.replace("\t", "  "),
        HAND.replace(" ", " \t "),
        HAND.replace("\n", " \n\n \t\n"),
        HAND.replace("=", " = ").replace("\\data\\", "\\data\\ \t"),
        HAND.removesuffix("\n"),
        HAND + "\nwhat follows is not read",
        HAND.replace("CAT SAT\n", "CAT SAT\t0\n").replace("<s> THE CAT", "<s> THE CAT\t0.0"),
        HAND.replace("<unk>", "<UNK>"),
        HAND.replace("-0.5\tTHE", "-.5\tTHE").replace("-2\t", "-2.\t").replace("-99", "-9.9E+01"),
        HAND.replace("0.125\nSAT", "+1250e-4\nSAT"),
    ],
    ids="crlf bom comments spaces tabs blank counts no_newline more zero capital numbers exponents".split(),
)
def test_other_ways_to_write_the_same(tmp_path: Path, text: str) -> None:
    assert listed(read(tmp_path, text)) == HAND_LISTED


def test_blocks_of_any_size_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (*range(25, 70), 300):
        monkeypatch.setattr(arpa, "BLOCK_BYTES", size)
        assert listed(read(tmp_path, HAND)) == HAND_LISTED, size


def test_capital_unknown_word_in_longer_ngrams(tmp_path: Path) -> None:
    text = HAND.replace("THE THE", "THE <UNK>")
    expected = {words: numbers for words, numbers in HAND_LISTED.items() if words != ("THE", "THE")}
    assert listed(read(tmp_path, text)) == expected | {("THE", "<unk>"): (-1.5, -3)}


def test_unlisted_unknown_word_has_kenlms_probability(tmp_path: Path) -> None:
    text = HAND.replace("ngram 1=6", "ngram 1=5").replace("-1.25\t<unk>\n", "")
    assert listed(read(tmp_path, text)) == HAND_LISTED | {("<unk>",): (-100, 0)}


def test_words_of_any_script_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    words = ["ß", "zürich", "Zürich", "日本", "ａ", "😀", "don't", "\u00a0", "-1"]
    lines = "".join(f"-1\t{word}\n" for word in words)
    model = read(tmp_path, f"\\data\\\nngram 1={len(words) + 2}\n\\1-grams:\n-1\t<s>\n-1\t</s>\n{lines}\\end\\\n")
    assert list(model.words) == [*sorted(words, key=str.encode), "<s>", "</s>", "<unk>"]


def test_an_order_without_ngrams(tmp_path: Path) -> None:
    text = HAND.replace("ngram 3=2", "ngram 3=0").replace("-0.0625\t<s> THE CAT\n-0.03125\tTHE CAT SAT\n", "")
    model = read(tmp_path, text)
    assert listed(model) == {words: numbers for words, numbers in HAND_LISTED.items() if len(words) < 3}
    assert len(model.orders) == 3


@given(st.floats(-1e38, 1e38, exclude_min=True, exclude_max=True), st.sampled_from([".7g", "r", ".12f", ".3E", ".20e"]))
def test_numbers_are_pythons(value: float, style: str) -> None:
    text = repr(value) if style == "r" else format(value, style)
    good, number = parse_number(np.frombuffer(text.encode(), np.uint8), 0, len(text))
    assert good
    assert math.isclose(number, float(text), rel_tol=1e-14, abs_tol=1e-300)


@given(st.text("0123456789.eE+-nainf_x", min_size=1, max_size=8))
def test_numbers_are_decimal_and_finite(text: str) -> None:
    good, _ = parse_number(np.frombuffer(text.encode(), np.uint8), 0, len(text))
    decimal = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
    assert good == bool(decimal and abs(float(text)) < 1e38)


def test_words_are_found_among_many_alike() -> None:
    lengths = np.arange(1, 500, dtype=np.int32)[:, None]
    text = np.full(500, ord("a"), np.uint8)
    known = lengths[lengths[:, 0] % 2 == 0, 0]
    bounds = np.cumsum([0, *known.tolist()])
    joined = np.full(bounds[-1], ord("a"), np.uint8)
    found = find_words(text, np.zeros_like(lengths), lengths, make_table(joined, bounds), joined, bounds)
    assert found[:, 0].tolist() == [length // 2 - 1 if length % 2 == 0 else -1 for length in range(1, 500)]


LINE = " Correct the line or make the model again."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.5\tTHE", "0.5\tTHE", f"line 10, must begin with a finite log10 probability, at most 0, got '0.5'.{LINE}"),
        ("-0.5\tTHE", "nan\tTHE", f"line 10, must begin with a finite log10 probability, at most 0, got 'nan'.{LINE}"),
        ("-0.5\tTHE", "-inf\tTHE", "line 10, must begin with a finite log10 probability, at most 0, got '-inf'."),
        ("-0.5\tTHE", "-1e99\tTHE", "line 10, must begin with a finite log10 probability, at most 0, got '-1e99'."),
        ("-0.5\tTHE", "THE", "line 10, must begin with a finite log10 probability, at most 0, got 'THE'."),
        (
            "-0.5\tTHE\t-0.25",
            "-0.5\tTHE\tnan",
            f"line 10, must hold a probability, 1 words and perhaps a finite log10 back-off weight, got 'nan'.{LINE}",
        ),
        (
            "-0.5\tTHE\t-0.25",
            "-0.5\tTHE\t-0.25\t-1",
            f"line 10, must hold a probability, 1 words and perhaps a back-off weight, got '-0.5 THE -0.25 -1'.{LINE}",
        ),
        (
            "-0.5\tTHE\t-0.25",
            "-0.5\tTHE DOG\t-0.25",
            f"line 10, must hold a probability, 1 words and perhaps a back-off weight, got '-0.5 THE DOG -0.25'.{LINE}",
        ),
        (
            "-0.75\t</s>",
            "-0.75",
            "line 9, must hold a probability, 1 words and perhaps a back-off weight, got '-0.75'.",
        ),
        (
            "THE CAT SAT",
            "THE CAT",
            "line 23, must hold a probability, 3 words and perhaps a back-off weight, got '-0.03125 THE CAT'.",
        ),
        (
            "THE CAT SAT",
            "THE CAT SAT\t-1",
            f"line 23, must have no back-off weight, because it is of the highest order, got '-1'.{LINE}",
        ),
        (
            "CAT SAT\n-0.875",
            "CAT DOG\n-0.875",
            f"line 17, must hold only words that are among the 1-grams, got 'DOG'.{LINE}",
        ),
        ("-2\tSAT", "-2\tCAT", f"must list each word once, got 'CAT'.{LINE}"),
        ("-2\tSAT", "-2\t<UNK>", f"must list each word once, got '<unk>'.{LINE}"),
        ("THE THE", "THE CAT", f"must list each n-gram once, got 'THE CAT'.{LINE}"),
        ("THE CAT SAT", "<s> THE CAT", f"must list each n-gram once, got '<s> THE CAT'.{LINE}"),
        (
            "</s>",
            "END",
            "must list <s> and </s> among its 1-grams, got a list without </s>. Copy the file again or make it again.",
        ),
        (
            "<s>",
            "START",
            "must list <s> and </s> among its 1-grams, got a list without <s>. Copy the file again or make it again.",
        ),
        (
            "ngram 2=5",
            "ngram 2=6",
            "section \\2-grams: must hold the 6 n-grams that \\data\\ announces, got 5. "
            "Copy the file again or make it again.",
        ),
        ("ngram 3=2", "ngram 3=1", "section \\3-grams: must hold the 1 n-grams that \\data\\ announces, got 2."),
        ("ngram 2=5\n", "", f"line 3, must be 'ngram 2=COUNT' or '\\1-grams:', got 'ngram 3=2'.{LINE}"),
        ("ngram 2=5", "ngram 2=-5", "line 3, must be 'ngram 2=COUNT' or '\\1-grams:', got 'ngram 2=-5'."),
        ("ngram 3=2\n", "", "line 14, must have no back-off weight, because it is of the highest order, got '-0.125'."),
        (
            "ngram 1=6\nngram 2=5\nngram 3=2",
            "",
            "must announce 'ngram 1=COUNT' after \\data\\, got 'no counts'. Correct",
        ),
        (
            "\\2-grams:\n",
            "",
            "line 14, must hold a probability, 1 words and perhaps a back-off weight, got '-0.25 <s> THE -0.",
        ),
        ("\\2-grams:", "\\3-grams:", "line 14, must be \\2-grams:, got '\\\\3-grams:'. Are sections missing?"),
        (
            "\\end\\\n",
            "",
            "must have a line \\end\\, got the end of the file. The file is cut short. "
            "Copy the file again or make it again.",
        ),
        ("\\3-grams:", "\\end\\", "line 21, must be \\3-grams:, got '\\\\end\\\\'."),
        (
            "\\data\\",
            "data",
            "must be an ARPA model, with a line \\data\\, got a file without it. Name an ARPA file, plain",
        ),
    ],
)
def test_what_is_said_of_a_wrong_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in HAND
    assert_refused(tmp_path, HAND.replace(old, new), message)


def test_a_missing_section(tmp_path: Path) -> None:
    start, end = HAND.index("\\2-grams:"), HAND.index("\\3-grams:")
    assert_refused(tmp_path, HAND[:start] + HAND[end:], "line 14, must be \\2-grams:, got '\\\\3-grams:'.")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = HAND.strip().encode()
    for length in range(len(whole)):
        with pytest.raises(InputError):
            read(tmp_path, whole[:length])


def test_a_file_cut_in_a_section(tmp_path: Path) -> None:
    end = HAND.index("-0.5\tCAT SAT")
    assert_refused(
        tmp_path,
        HAND[:end],
        "model.arpa must have a line \\3-grams:, got the end of the file. The file is cut short. Copy",
    )


def test_lines_are_numbered_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (30, 64, 100):
        monkeypatch.setattr(arpa, "BLOCK_BYTES", size)
        assert_refused(tmp_path, HAND.replace("THE CAT SAT", "THE CAT COW"), "line 23, must hold only words")
        assert_refused(tmp_path, HAND.replace("-0.03125", "x"), "line 23, must begin with")


def test_files_that_are_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(
        tmp_path, "", "must be an ARPA model, with a line \\data\\, got 'an empty file'. Name an ARPA file, pl"
    )
    assert_refused(tmp_path, gzip.compress(b""), "must be an ARPA model, with a line \\data\\, got 'an empty file'.")
    assert_refused(
        tmp_path, "the cat sat\n", "must be an ARPA model, with a line \\data\\, got a file without it. Name an"
    )
    irstlm = (
        "must be an ARPA model, with a line \\data\\, got 'iARPA'. Convert it with IRSTLM: compile-lm FILE --text=yes"
    )
    assert_refused(tmp_path, "iARPA\n\n" + HAND, irstlm)
    monkeypatch.setattr(arpa, "BLOCK_BYTES", 1000)
    assert_refused(tmp_path, bytes(2000), "must be an ARPA file, got 'a line of 1000 bytes'.")


def test_unreadable_files(tmp_path: Path) -> None:
    zipped = gzip.compress(HAND.encode())
    assert_refused(
        tmp_path,
        zipped[:-20],
        "must be a complete gzip file, got only its start. Copy the file again or make it again.",
    )
    assert_refused(tmp_path, zipped[:-6] + bytes(6), "must be readable, got: CRC check failed")
    assert_refused(tmp_path, zipped[:15] + b"\xff" * 30, "must be readable, got: Error -3 while decompressing data: ")
    with pytest.raises(
        InputError, match=r"nowhere must be readable, got: No such file or directory\. Correct this or name"
    ):
        read_arpa(tmp_path / "nowhere")
    with pytest.raises(InputError, match="must be readable, got: Is a directory"):
        read_arpa(tmp_path)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    latin = HAND.replace("CAT", "CHÂT").encode("latin-1")
    assert_refused(tmp_path, latin, "must be in UTF-8, got 'CH\ufffdT'. Convert the file, for example with iconv.")

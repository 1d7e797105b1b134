"""Sentences are read from every kind of source, and wrong sources are refused."""

import gzip
import io
import sys
from pathlib import Path

import pytest

from ds2_jax.config.settings import ENGLISH
from ds2_jax.lm.text import Text, read_texts
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import write_noise_manifest

LETTERS = Alphabet(ENGLISH)
OWN = "Remove it, or leave the sentence out with --on-unknown skip: the model adds its own."
CHINESE = Alphabet("你好吗")


def sentences_of(text: Text) -> list[str]:
    """Returns the sentences with START and END."""
    return " ".join(text.words[token] for token in text.tokens).replace("</s> <s>", "</s>\n<s>").split("\n")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, alphabet: Alphabet = LETTERS) -> Text:
    return read_texts([path], alphabet, "error")


def test_sentences_are_normalised_and_their_words_sorted(tmp_path: Path) -> None:
    text = read(write(tmp_path / "a.txt", "zoo  it's\r\n\n \t\nGo zoo"))
    assert text.words == ["<unk>", "<s>", "</s>", "GO", "IT'S", "ZOO"]
    assert sentences_of(text) == ["<s> ZOO IT'S </s>", "<s> GO ZOO </s>"]
    assert (text.num_sentences, text.num_words, text.num_empty, text.num_unknown) == (2, 4, 2, 0)


def test_only_line_feeds_end_a_sentence(tmp_path: Path) -> None:
    assert sentences_of(read(write(tmp_path / "a.txt", "GO\u2028ON\vNOW\fYES"))) == ["<s> GO ON NOW YES </s>"]


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    assert sentences_of(read(write(tmp_path / "a.txt", "\ufeffGO"))) == ["<s> GO </s>"]


def test_compressed_text_is_known_by_its_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", gzip.compress(b"GO\nON", mtime=0))
    assert sentences_of(read(path)) == ["<s> GO </s>", "<s> ON </s>"]


# mtime=0, because the content is part of the test's name, which must be the same in every process.
@pytest.mark.parametrize("content", [b"GO\nON", gzip.compress(b"GO\nON", mtime=0)])
def test_standard_input(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    assert sentences_of(read(Path("-"))) == ["<s> GO </s>", "<s> ON </s>"]


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError) as error:
        read(Path("-"))
    assert str(error.value) == "Standard input must be open, got a closed one. Send it a text."


def test_manifests_and_texts_together(tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path, ("go", "", "yes"))
    text = read_texts([write(tmp_path / "a.txt", "NO"), manifest], LETTERS, "error")
    assert sentences_of(text) == ["<s> NO </s>", "<s> GO </s>", "<s> YES </s>"]
    assert text.num_empty == 1


def test_without_a_space_in_the_alphabet_every_character_is_a_word(tmp_path: Path) -> None:
    text = read(write(tmp_path / "a.txt", "你好 吗\n好"), CHINESE)
    assert sentences_of(text) == ["<s> 你 好 吗 </s>", "<s> 好 </s>"]


def test_unknown_characters_stop_and_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "GO 3\nYES\nNO. 3\nA 3\nÀ 3")
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value) == (
        f"Every sentence must use the alphabet {ENGLISH!r}, got 4 sentences with other characters: '3' in 4, '.' in 1, "
        f"'À' in 1. The first: {path}, line 1: 'GO 3'; {path}, line 3: 'NO. 3'; {path}, line 4: 'A 3'. Leave these "
        "sentences out with --on-unknown skip, or give another --data.alphabet or --data.remove."
    )
    text = read_texts([path], LETTERS, "skip")
    assert sentences_of(text) == ["<s> YES </s>"]
    assert (text.num_unknown, text.characters) == (4, {"3": 4, ".": 1, "À": 1})
    assert text.words == ["<unk>", "<s>", "</s>", "YES"]


@pytest.mark.parametrize("alphabet", [LETTERS, Alphabet(f"{ENGLISH}</>"), Alphabet("gonuks</> ", case="lower")])
def test_words_of_the_model_itself_are_skipped(tmp_path: Path, alphabet: Alphabet) -> None:
    path = write(tmp_path / "a.txt", "GO <unk> ON\nGO\n<s> GO </s>\n<UNK>")
    text = read_texts([path], alphabet, "skip")
    assert [each.lower() for each in sentences_of(text)] == ["<s> go </s>"]
    assert (text.num_unknown, text.characters) == (3, {"<unk>": 2, "<s>": 1, "</s>": 1})


def test_transcripts_with_unknown_characters_are_named_by_their_ids(tmp_path: Path) -> None:
    path = write_noise_manifest(tmp_path, ("GO", "5"))
    with pytest.raises(InputError) as error:
        read(path)
    assert f"The first: {path}, all1: '5'. Leave" in str(error.value)


def test_no_sentence_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "5\n")
    with pytest.raises(InputError) as error:
        read_texts([path], LETTERS, "skip")
    assert str(error.value) == (
        f"Every sentence must use the alphabet {ENGLISH!r}, got 1 sentences with other characters: '5' in 1. The "
        f"first: {path}, line 1: '5'. No sentence is left; give another --data.alphabet or --data.remove."
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "{} must hold at least one sentence, got none. Give another text."),
        (b" \n\n", "{} must hold at least one sentence, got none. Give another text."),
        (
            b"GO\nna\xefve\n",
            "{} must be UTF-8 text, got invalid continuation byte in line 2. Convert it, for example with iconv.",
        ),
        (
            gzip.compress(b"GO\nON", mtime=0)[:-9],
            "{} must be a complete gzip file, got: Compressed file ended before the end-of-stream marker was "
            "reached. Fetch it again.",
        ),
        (
            b"\x1f\x8bGO",
            "{} must be a complete gzip file, got: Compressed file ended before the end-of-stream marker was "
            "reached. Fetch it again.",
        ),
        (
            gzip.compress(b"GO" * 50, mtime=0)[:14] + b"\xff" * 9,
            "{} must be a complete gzip file, got: Error -3 while decompressing data: invalid",
        ),
        (
            b"GO\nGO <s> ON",
            "{}, line 2 must hold no <unk>, <s>, </s>, got '<s>'. " + OWN,
        ),
        (
            b"GO </s>",
            "{}, line 1 must hold no <unk>, <s>, </s>, got '</s>'. " + OWN,
        ),
        (
            b"A <UNK>",
            "{}, line 1 must hold no <unk>, <s>, </s>, got '<unk>'. " + OWN,
        ),
    ],
)
def test_bad_text(tmp_path: Path, content: bytes, told: str) -> None:
    path = write(tmp_path / "a.txt", content)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(told.format(path))


def test_places_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path / "none.txt")
    assert str(error.value) == (
        f"{tmp_path / 'none.txt'} must be a readable file, got: No such file or directory. Correct the path."
    )
    with pytest.raises(InputError) as error:
        read(tmp_path)
    assert str(error.value) == f"{tmp_path} must be a readable file, got: Is a directory. Correct the path."


def test_in_another_vocabulary_words_may_be_unknown(tmp_path: Path) -> None:
    text = read(write(tmp_path / "a.txt", "GO ON NOW"))
    assert text.in_vocabulary(["<unk>", "<s>", "</s>", "NOW", "ON"]).tolist() == [1, 0, 4, 3, 2]


def test_a_gzip_bomb(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", gzip.compress(b"GO\n" + (b" " * 1023 + b"\n") * 2**16))
    with pytest.raises(InputError, match=f"^{path} must be a complete gzip file, got: over 50 bytes of content"):
        read(path)

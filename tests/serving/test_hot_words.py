"""Hot words of requests are bounded: a decoder takes memory with the square of a word's length."""

import pytest

from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.hot_words import LONGEST, MOST, hot_words
from ds2_jax.text.alphabet import Alphabet

ALPHABET = Alphabet("ABC ")


def test_words_come_once_and_those_of_a_prompt_must_be_writable() -> None:
    assert sorted(hot_words("a, b! 7 (ab)", ["c", " C ", ""], ALPHABET)) == ["a", "ab", "b", "c"]


@pytest.mark.parametrize("keywords", [["A" * (LONGEST + 1)], ["A"] * (MOST + 1)])
def test_too_many_or_too_long_keywords_are_refused(keywords: list[str]) -> None:
    with pytest.raises(RequestError, match=f"keywords must be at most {MOST} words of at most {LONGEST} characters"):
        hot_words("", keywords, ALPHABET)


def test_a_prompt_is_taken_as_far_as_it_goes() -> None:
    numbered = ["".join("ABC"[index // 3**place % 3] for place in range(8)) for index in range(2 * MOST)]
    assert len(hot_words(" ".join(numbered), [], ALPHABET)) == MOST
    assert hot_words("A" * 60_000 + " b", [], ALPHABET) == ["b"]

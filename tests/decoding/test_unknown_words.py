"""Many words that a language model lacks are told."""

from pathlib import Path

from ds2_jax.decoding.unknown_words import UnknownWords


def hint(*texts: str, few: int = 0) -> str:
    unknown = UnknownWords(("GO", "ON", "ONE").__contains__, few)
    for text in texts:
        unknown.add(text)
    return unknown.hint(Path("run"), Path("my lm.arpa"))


def test_many_unknown_words_are_told_with_what_to_do() -> None:
    assert hint("GO ON", "ONE GOON") == (
        "1 of the 4 recognised words are not in my lm.arpa, such as GOON: python main.py lm tune run --lm 'my lm.arpa' "
        "looks for better weights, --closed-vocabulary allows no such word, and a larger --unknown-penalty makes them "
        "dearer"
    )
    assert hint("GO " * 9, "GOON") == ""
    assert hint("") == ""


def test_few_words_tell_nothing() -> None:
    assert hint("GOON ONGO", few=2) == ""
    assert hint("GOON ONGO OGON", few=2) != ""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.alphabet import Alphabet
from ds2_jax.config import ENGLISH
from ds2_jax.errors import InputError

alphabets = st.builds(
    lambda characters: Alphabet("".join(characters)),
    st.lists(
        st.characters(exclude_categories=["Cc", "Cs", "Z"], include_characters=" ").filter(
            lambda c: unicodedata.is_normalized("NFC", c)
        ),
        min_size=1,
        unique=True,
    ).filter(lambda characters: unicodedata.is_normalized("NFC", "".join(characters))),
)


def test_english_has_the_labels_of_the_source() -> None:
    alphabet = Alphabet(ENGLISH)
    assert (alphabet.size, alphabet.blank_index) == (29, 0)
    assert alphabet.encode("'A Z") == [1, 2, 28, 27]


@given(st.text(ENGLISH))
def test_encode_then_decode_gives_the_normalised_text(text: str) -> None:
    alphabet = Alphabet(ENGLISH)
    assert alphabet.decode(alphabet.encode(text)) == " ".join(text.split())


@given(alphabets, st.data())
def test_every_label_is_encoded_as_itself(alphabet: Alphabet, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(1, alphabet.size - 1)))
    text = alphabet.decode(labels)
    if alphabet.normalise(text) == text:
        assert alphabet.encode(text) == labels


@given(alphabets, st.text())
def test_normalising_twice_changes_nothing(alphabet: Alphabet, text: str) -> None:
    once = alphabet.normalise(text)
    assert alphabet.normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@pytest.mark.parametrize(
    ("characters", "text", "expected"),
    [
        (ENGLISH, " it's\tfive\n o'clock ", "IT'S FIVE O'CLOCK"),
        ("abc ", "A  Bc", "a bc"),
        ("aBc ", "A  Bc", "A Bc"),
        ("ÄÖÜ", "a\u0308", "Ä"),
        ("Ϊ́", "ΐ", "Ϊ́"),  # upper case comes apart into three characters, of which the first two compose
    ],
)
def test_normalise(characters: str, text: str, expected: str) -> None:
    assert Alphabet(characters).normalise(text) == expected


def test_unknown_characters_are_listed_once_each() -> None:
    assert Alphabet(ENGLISH).unknown("Mañana, 9 o'clock, 9 señores") == [",", "9", "Ñ"]


def test_encode_names_the_unknown_characters() -> None:
    with pytest.raises(InputError) as error:
        Alphabet("AB ").encode("a 7 b!")
    assert str(error.value) == (
        "The transcript must use the alphabet 'AB ', got ['!', '7'] in 'a 7 b!'. "
        "Mend the transcript or add the characters to data.alphabet."
    )


@pytest.mark.parametrize(
    ("characters", "message"),
    [
        ("", "data.alphabet must hold at least one character, got ''."),
        ("ABCAB", "data.alphabet must hold each character once, got 'ABCAB'. Repeated: ['A', 'B']."),
        *(
            (
                f"A{character}",
                "data.alphabet must hold no white space but plain spaces and no control characters, "
                f"got {f'A{character}'!r}. Remove [{character!r}].",
            )
            for character in "\n\t\0\x1f\xa0\u3000\u2028\ud800"
        ),
        ("a\u0308", "data.alphabet must be in Unicode's composed form (NFC), got 'a\u0308'."),
    ],
)
def test_rules(characters: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Alphabet(characters)
    assert str(error.value) == message

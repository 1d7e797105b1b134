import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.config import DataConfig
from ds2_jax.config.settings import ENGLISH
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

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
        ("Ϊ́", "ΐ", "Ϊ́"),  # the upper case decomposes into three characters; the first two compose again
    ],
)
def test_normalise(characters: str, text: str, expected: str) -> None:
    assert Alphabet(characters).normalise(text) == expected


FRENCH = "'-abcdefghijklmnopqrstuvwxyzàâçèéêëîïôùûœ "


@pytest.mark.parametrize(
    ("remove", "text", "expected"),
    [
        ("", "l'eau, oui", "l'eau, oui"),
        (".,!?…«»", "«\u202fOui\u202f», dit-il… Non!", "oui dit-il non"),
        (",", "un,deux ,trois", "un deux trois"),  # words are never joined
        ("'’", "l’eau d'été ‘", "l'eau d'été ‘"),  # the typographic apostrophe becomes the alphabet's
        ("'’‘", "‘l’eau’, 'l'eau', aujourd'hui'", "l'eau , l'eau , aujourd'hui"),  # as quotation marks they are removed
        ("’", "'l’eau'", "'l'eau'"),  # characters not listed stay
        ("-‐–", "arc-en-ciel, arc‐en‐ciel - arc – ciel –ciel", "arc-en-ciel, arc-en-ciel arc ciel ciel"),
        ("-–", "Paris–Lyon -", "paris lyon"),  # a dash is not a hyphen
        ("\u00ad\u200b", "aujour\u00add'hui\u200b", "aujourd'hui"),
        ("-'", "-'", ""),
    ],
)
def test_remove(remove: str, text: str, expected: str) -> None:
    assert Alphabet(FRENCH, remove=remove).normalise(text) == expected


def test_what_the_alphabet_lacks_is_removed_inside_words_too() -> None:
    letters = Alphabet("abcdefghijklmnopqrstuvwxyz ", remove="'’-")
    assert letters.normalise("l'eau l’eau arc-en-ciel") == "l eau l eau arc en ciel"
    stressed = Alphabet("абвгдезийкмоъ ", remove="\u0301")
    assert stressed.normalise("за\u0301мок вой") == "замок вой"
    assert stressed.unknown("за\u0301мок") == []


def test_an_accent_before_an_apostrophe_belongs_to_its_letter() -> None:
    assert Alphabet("абвгде\u0301' ", remove="'").normalise("де\u0301'бе 'де\u0301'") == "де\u0301'бе де\u0301"


@given(
    st.text(st.sampled_from("aBé'’-– .\u0301\u00adŉßİ")),
    st.sets(st.sampled_from("'’ʼ-–.,\u0301\u00ad")).map("".join),
    st.sampled_from(["ab' ", "AB'- ", "aB’ ", "b\u0301 "]),
)
def test_removing_twice_changes_nothing(text: str, remove: str, characters: str) -> None:
    alphabet = Alphabet(characters, remove=remove)
    once = alphabet.normalise(text)
    assert alphabet.normalise(once) == once
    assert {c for c in once if c in remove} <= set(characters)


@pytest.mark.parametrize(
    ("case", "text", "expected"),
    [
        ("upper", "Straße ŉ", "STRASSE ʼN"),  # one letter becomes two
        ("lower", "Straße ΟΔΟΣ", "straße οδος"),
        ("lower", "İzmir Iğdır", "i\u0307zmir iğdır"),  # not by Turkish rules: İ gives i and a dot above, I gives i
        ("upper", "ılık iyi", "ILIK IYI"),
        ("keep", "Straße", "Straße"),
        ("alphabet", "Straße", "STRASSE"),
    ],
)
def test_case(case: Literal["alphabet", "upper", "lower", "keep"], text: str, expected: str) -> None:
    assert Alphabet("ABC ", case).normalise(text) == expected


def test_an_alphabet_with_two_cases_keeps_that_of_the_text_unless_told() -> None:
    assert Alphabet("ABCß ").normalise("aB ß") == "aB ß"
    assert Alphabet("ABCß ", "upper").normalise("aB ß") == "AB SS"


def test_the_rules_are_those_of_the_configuration() -> None:
    data = DataConfig(alphabet="abc ", case="lower", remove=".")
    assert Alphabet.of(data) == Alphabet("abc ", "lower", ".")
    assert Alphabet.of(DataConfig()) == Alphabet(ENGLISH)


def test_letters_are_not_removed() -> None:
    with pytest.raises(InputError) as error:
        Alphabet("abc ", remove=".,a 7ʼ")
    assert str(error.value) == (
        "data.remove must hold no letters, digits or white space, got '.,a 7ʼ'. Remove ['a', ' ', '7']."
    )


def test_unknown_characters_are_listed_once_each() -> None:
    assert Alphabet(ENGLISH).unknown("Mañana, 9 o'clock, 9 señores") == [",", "9", "Ñ"]


def test_encode_names_the_unknown_characters() -> None:
    with pytest.raises(InputError) as error:
        Alphabet("AB ").encode("a 7 b!")
    assert str(error.value) == (
        "The transcript must use the alphabet 'AB ', got ['!', '7'] in 'a 7 b!'. "
        "Correct the transcript or add the characters to data.alphabet."
    )


@pytest.mark.parametrize(
    ("characters", "message"),
    [
        ("", "data.alphabet must hold at least one character, got ''."),
        ("ABCAB", "data.alphabet must hold each character once, got 'ABCAB'. Repeated: ['A', 'B']."),
        *(
            (
                f"A{character}",
                "data.alphabet must hold no control characters and no white space other than plain spaces, "
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

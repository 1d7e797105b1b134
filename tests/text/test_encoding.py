"""Texts that a wrong encoding has broken, and texts that look odd and are right."""

import pytest

from ds2_jax.text.encoding import broken_part

TEXT = "sarà così, perché l’été à Öland: être, ñandú, straße, что"


@pytest.mark.parametrize("word", TEXT.replace(",", "").replace(":", "").split())
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_utf8_read_as_another_encoding(word: str, encoding: str) -> None:
    broken = word.encode().decode(encoding, "replace")
    assert bool(broken_part(f"x {broken} y")) is not word.isascii()
    assert not broken_part(f"x {word} y")


@pytest.mark.parametrize("word", ["sarà", "così", "perché", "ñandú"])
def test_letters_that_were_lost(word: str) -> None:
    assert broken_part(f"x {word.encode('ascii', 'replace').decode()} esattamente")
    assert broken_part(word.encode("latin-1").decode("utf-8", "replace"))


@pytest.mark.parametrize(
    "text",
    ["Davvero? Sì.", "really?", "WHAT? NO", "¿Qué? ¡Sí!", "São “maçã” – SÃO “MAÇÃ”, MAÇÃ – à 5 €", "a ? b", "Î”"],
)
def test_texts_that_are_right(text: str) -> None:
    assert broken_part(text) == ""


def test_the_part_is_named() -> None:
    assert broken_part("cio che sar? esattamente") == "sar?"
    assert broken_part("il perchÃ© no") == "perchÃ©"

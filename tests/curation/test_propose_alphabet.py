"""Settings that fit transcripts of several languages."""

import shlex
from pathlib import Path

import pytest

from ds2_jax import cli
from ds2_jax.curation.propose_alphabet import Kind, describe, propose, quote
from ds2_jax.data.manifest import Utterance, write_manifest
from ds2_jax.system.errors import InputError


def kinds(*transcripts: str) -> dict[Kind, str]:
    """Gives the characters of each kind, sorted."""
    found: dict[Kind, str] = {}
    for character, kind in sorted(propose(transcripts).kinds.items()):
        found[kind] = found.get(kind, "") + character
    return found


def test_english_in_capital_letters_stays_so() -> None:
    proposal = propose(["IT'S FIVE", "YES"])
    assert (proposal.alphabet.characters, proposal.alphabet.remove) == ("'EFISTVY ", "")
    assert proposal.alphabet.unknown("it's") == []


def test_french() -> None:
    proposal = propose(["« L’eau », dit-il.", "L'arc-en-ciel\u202f: où\u00a0? 'ici'"])
    assert proposal.alphabet.characters == "'acdeilnortuù "
    assert proposal.alphabet.remove == "',-.:?«»’"
    assert proposal.alphabet.normalise("« L’eau », dit-il.") == "l'eau dit il"
    assert proposal.alphabet.normalise("'ici'") == "ici"


def test_decomposed_letters_are_counted_composed() -> None:
    assert propose(["e\u0301te\u0301"]).counts == {"é": 2, "t": 1}


def test_digits_and_symbols_are_words_and_not_removed() -> None:
    assert kinds("5 % of $3 & x²", "ok!") == {"alphabet": " fkox", "spoken": "$%&35²", "removed": "!"}


def test_quotation_marks_alone_make_no_apostrophe() -> None:
    assert kinds("'ja'") == {"alphabet": "aj", "removed": "'"}


def test_a_typographic_apostrophe_alone_is_written_with_the_typewriters() -> None:
    proposal = propose(["l’eau"])
    assert (proposal.alphabet.characters, proposal.alphabet.remove) == ("'aelu", "’")
    assert proposal.alphabet.decode(proposal.alphabet.encode("l’eau")) == "l'eau"


def test_look_alikes_of_another_script_are_rare() -> None:
    russian = ["сон и явь"] * 50
    assert kinds(*russian, "cон") == {"alphabet": " виносья", "rare": "c"}


def test_two_scripts_of_one_language_are_both_kept() -> None:
    assert kinds("ひらがな カタカナ 漢字") == {"alphabet": " がなひらカタナ字漢"}


def test_a_letter_in_a_hundred_thousand_is_rare() -> None:
    usual = ["ab " * 1000] * 60
    assert kinds(*usual, "ñ")["rare"] == "ñ"
    assert kinds(*usual[:20], "ñ")["alphabet"] == " abñ"


def test_joiners_and_the_catalan_dot_are_part_of_words() -> None:
    assert kinds("می\u200cخواهم")["inside words"] == "\u200c"
    assert kinds("col·lecció") == {"alphabet": "ceiloó", "inside words": "·"}
    assert kinds("\u00ada b")["removed"] == "\u00ad"


@pytest.mark.parametrize(("text", "told"), [("Işık", True), ("İzmir", True), ("ışık iyi", False), ("Ink", False)])
def test_turkish_capital_letters_are_told(text: str, told: bool) -> None:
    assert ("Turkish" in "\n".join(describe(propose([text])))) == told


def test_accents_without_a_letter_of_their_own_compose_with_no_other() -> None:
    proposal = propose(["за\u0301мок", "A\u0323\u0304e", "z i\u0307"])  # the dot of Lithuanian
    assert proposal.alphabet.unknown("за\u0301мок z i\u0307") == []


def test_no_letters_are_no_transcripts() -> None:
    with pytest.raises(InputError) as error:
        propose(["1 2", ""])
    assert str(error.value) == (
        "The transcripts must hold letters, got none. Check that these are the right manifests."
    )


@pytest.mark.parametrize("text", ["'abc ", "abc", "\"'", "'$`", "a\\'!"])
def test_a_shell_reads_what_was_quoted(text: str) -> None:
    assert shlex.split(quote(text)) == [text]


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fr.jsonl"
    rows = [Utterance(tmp_path / "a.wav", 1.0, text, str(i)) for i, text in enumerate(["L'eau", "Non, à 2 ans\u200b"])]
    write_manifest(path, rows)
    assert cli.main(["data", "alphabet", str(path)]) == 0
    assert capsys.readouterr().out == (
        "18 characters, 13 different ones, after normalisation\n\n"
        "letters, in the alphabet:\n"
        "  n 3  space 3  a 2  l 1  e 1  u 1  o 1  à 1  s 1\n\n"
        "part of words, in the alphabet:\n"
        "  '       1  \"l'eau\"\n\n"
        "not spoken, to be replaced by spaces or kept inside words (data.remove):\n"
        "  ,       1  'non, à 2 ans\\u200b'\n"
        "  U+200B       1  'non, à 2 ans\\u200b'\n\n"
        "spoken: write them as words in the transcripts:\n"
        "  2       1  'non, à 2 ans\\u200b'\n\n"
        "With these settings 1 of 2 transcripts hold a character to replace:\n\n"
        "--data.alphabet=\"'aelnosuà \" --data.remove=',\u200b'\n"
    )


def test_question_marks_that_stand_for_letters_are_not_removed(tmp_path: Path) -> None:
    broken = propose(["cosa sar? esattamente", "perch\ufffd no, dai?"])
    assert broken.alphabet.remove == ","
    assert (broken.kinds["?"], broken.kinds["\ufffd"]) == ("broken", "broken")
    told = "\n".join(describe(broken))
    assert "perhaps instead of letters that a wrong encoding lost" in told
    assert "2 transcripts look as if a wrong encoding had broken them: 'sar?' in 'cosa sar? esattamente', " in told
    right = propose(["Davvero? S\u00ec."] * 11 + ["What? no"])
    assert right.alphabet.remove == ".?"
    assert "1 transcripts look as if" in "\n".join(describe(right))
    assert not propose(["Davvero? S\u00ec."]).broken

"""Rules make texts alike before they are scored."""

from pathlib import Path

import pytest

from ds2_jax.evaluation.scoring_rules import Rules, read_rules
from ds2_jax.system.errors import InputError


def rules(folder: Path, content: str) -> Rules:
    (folder / "rules.toml").write_text(content, encoding="utf-8")
    return read_rules(folder / "rules.toml")


def test_without_rules_only_spaces_and_compositions_change() -> None:
    assert Rules()("  It's\tA  cafe\u0301. ") == "It's A caf\u00e9."


def test_rules_are_applied_in_their_order(tmp_path: Path) -> None:
    read = rules(
        tmp_path,
        """
        case = "lower"
        punctuation = "remove"
        remove = ["Uh", "[noise]"]
        [replace]
        okay = "ok"
        "Can not" = "cannot"
        "can not do" = "can't"
        gone = ""
        """,
    )
    assert read("Okay, uh, [NOISE] it's twenty-one -- 'CAN NOT'!") == "ok it's twenty-one cannot"
    assert read("it\u2019s twenty\u2011one") == "it's twenty-one"
    assert read("[noise], uh! do\u00ad\u200bnau") == "donau"
    assert read("uhuh uh-uh") == "uhuh uh-uh"  # one word is removed, not parts of another
    assert read("can not do can not okays gone") == "can't cannot okays"
    assert str(read) == "case lower, no punctuation, 2 words to remove, 4 words or phrases to replace"


def test_words_are_removed_with_and_without_punctuation(tmp_path: Path) -> None:
    assert rules(tmp_path, 'remove = ["<unk>", "a"]')("<unk> x <UNK> a c b") == "x <UNK> c b"
    assert rules(tmp_path, '[replace]\n"you know" = ""')("you are what you know") == "you are what"


def test_a_replacement_is_not_replaced_again(tmp_path: Path) -> None:
    assert rules(tmp_path, '[replace]\na = "b"\nb = "a"')("a b") == "b a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case = 'lower", r"rules.toml must be TOML, got: "),
        ("cases = 'lower'", r"rules.toml: cases must be one of case, punctuation, remove, replace"),
        ("case = 'title'", r"rules.toml: case must be one of keep, lower, upper, got 'title'"),
        ("remove = 'uh'", r"rules.toml: remove must be a list of single words"),
        ("remove = [' ']", r"rules.toml: remove must be a list of single words"),
        ("remove = ['you know']", r"must be a list of single words, .* Write a phrase as \[replace\]"),
        ("replace = ['a']", r"rules.toml: replace must be a table of words or phrases and their replacements"),
        ("[replace]\na = 1", r"rules.toml: replace must be a table of words or phrases and their replacements"),
        ("remove = ['uh']\n[replace]\n'uh huh' = 'yes'", r"rules.toml: replace 'uh huh' must have no word of remove"),
        ("[replace]\n' ' = 'a'", r"rules.toml: replace must be a table of words or phrases and their replacements"),
    ],
)
def test_wrong_rules_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rules(tmp_path, content)

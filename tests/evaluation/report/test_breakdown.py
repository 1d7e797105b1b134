"""Groups of utterances, and confused words."""

from pathlib import Path

from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.error_rates import ErrorCount
from ds2_jax.evaluation.report.breakdown import by_length, by_speaker, confusions
from ds2_jax.evaluation.results import Result


def result(reference: str, hypothesis: str, speaker: str = "", seconds: float = 1.5) -> Result:
    return Result(Utterance(Path("a.wav"), seconds, reference, "a", speaker), reference, hypothesis)


def test_speakers_come_worst_first_with_their_counts() -> None:
    groups = by_speaker([result("A B", "A B", "anna"), result("A B C D", "A X", "bert"), result("A B", "A C", "anna")])
    assert [group.name for group in groups] == ["bert", "anna"]
    assert groups[0].words == ErrorCount(1, 2, 0, 4)
    assert groups[1].words == ErrorCount(1, 0, 0, 4)
    assert (groups[1].utterances, groups[1].seconds) == (2, 3.0)
    assert groups[1].characters == ErrorCount(1, 0, 0, 4)


def test_unknown_speakers_are_a_group_beside_others_only() -> None:
    assert by_speaker([result("A", "A"), result("A", "B")]) == []
    assert [group.name for group in by_speaker([result("A", "A", "anna"), result("A", "B")])] == ["(not known)", "anna"]


def test_lengths_are_bins_without_gaps_or_empty_ones() -> None:
    groups = by_length([result("A", "A", seconds=each) for each in (0.0, 0.01, 0.99, 2.0, 2.999, 3.0, 24.0, 3600.0)])
    assert [(group.name, group.utterances) for group in groups] == [
        ("0–1 s", 2),
        ("2–3 s", 2),
        ("3–5 s", 1),
        ("from 24 s", 2),
    ]


def test_confusions_are_counted_over_utterances_the_most_frequent_first() -> None:
    found = confusions(
        [
            result("B D B", "D D D"),
            result("B D", "B T"),
            result("B E", "B"),
            result("B", "B UH"),
            result("E", ""),
            result("UH", "UH"),
        ]
    )
    assert [tuple(each) for each in found["substitution"]] == [("B", "D", 2, 5), ("D", "T", 1, 2)]
    assert [tuple(each) for each in found["deletion"]] == [("E", "", 2, 2)]
    assert [tuple(each) for each in found["insertion"]] == [("", "UH", 1, 2)]  # two UH were recognised
    assert [tuple(each) for each in found["character"]] == [("B", "D", 2, 5), ("D", "T", 1, 2)]


def test_confused_characters_are_those_of_substituted_words() -> None:
    found = confusions([result("BAD DAYS", "PAD DAYS"), result("BEE", "PE"), result("TEN", "DEN ON"), result("AT", "")])
    assert [tuple(each) for each in found["character"]] == [("B", "P", 2, 2), ("T", "D", 1, 2)]

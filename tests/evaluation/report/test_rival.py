"""Results that can be compared, and the errors for those that cannot."""

import json
from pathlib import Path

import pytest

from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.provenance import Provenance
from ds2_jax.evaluation.report.rival import Rival, compare, read_rival
from ds2_jax.evaluation.results import Evaluation, Result, write_evaluation
from ds2_jax.system.errors import InputError

MANIFEST = Path("test.jsonl")


def result(name: str, reference: str, hypothesis: str) -> Result:
    return Result(Utterance(Path(f"{name}.wav"), 1.0, reference, name), reference, hypothesis)


OURS = [result("a", "GO ON", "GO ON"), result("b", "ONE TWO", "ONE"), result("c", "STOP\u2028IT", "STOP IT")]


def test_an_earlier_evaluation_is_read_whatever_its_order(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path, "test", Evaluation(OURS, 1.0, 0))
    rival = read_rival(path)
    assert rival.name == str(path)
    assert {each.utterance.id: each.hypothesis for each in rival.results} == {
        each.utterance.id: each.hypothesis for each in OURS
    }
    comparison = compare(OURS, rival, MANIFEST)
    assert (comparison.against, comparison.difference, comparison.equal) == (str(path), 0, 1)


def made_of(digest: str) -> Provenance:
    return Provenance("/a/test.jsonl", digest * 64, [1], "0" * 64, {}, "")


def test_results_of_another_manifest_are_not_compared(tmp_path: Path) -> None:
    written = Evaluation(OURS, 1.0, 0, provenance=made_of("1"))
    path = write_evaluation(tmp_path, "a-test-11111111", written)
    assert read_rival(path.with_suffix(".json")) == read_rival(path)
    compare(OURS, read_rival(path), MANIFEST, made_of("1"))
    with pytest.raises(InputError) as caught:
        compare(OURS, read_rival(path), MANIFEST, made_of("2"))
    assert str(caught.value) == (
        f"--against must be of the manifest test.jsonl (digest 22222222), got {path}, made of /a/test.jsonl (digest "
        "11111111), with other durations or transcripts. Evaluate the other run on test.jsonl with the same "
        "transcripts."
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{",
            r"old\.jsonl, line 2 must be an utterance of an evaluation \(audio, id, reference, hypothesis\), got '\{' ",
        ),
        (
            '{"id": "a"}',
            r"got '\{\"id\": \"a\"\}' \(KeyError: 'audio'\)\. Give --against the folder of a run, or a \.jsonl ",
        ),
        ("[1]", r"got '\[1\]' \(TypeError: "),
        (
            '{"audio": "a", "id": 7, "reference": "A", "hypothesis": "A"}',
            r"\(TypeError: the values must be strings\)\. Give --against",
        ),
        (
            '{"audio": "a", "id": "x", "reference": "A", "hypothesis": "A"}',
            r"old\.jsonl, line 2: id must occur once, got 'x'\. Restore the file\.",
        ),
    ],
)
def test_a_file_that_is_no_evaluation_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(json.dumps({"audio": "x", "id": "x", "reference": "A", "hypothesis": "A"}) + f"\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_rival(path)


def test_other_utterances_are_not_compared() -> None:
    rival = Rival("runs/b", [*OURS[:2], result("d", "STOP", "STOP")])
    with pytest.raises(InputError) as caught:
        compare(OURS, rival, MANIFEST)
    assert str(caught.value) == (
        "--against must hold the 3 utterances of this evaluation, got 3, and 2 are not in both, such as c. "
        "Evaluate the other run on test.jsonl with the same transcripts."
    )


def test_other_transcripts_are_not_compared() -> None:
    rival = Rival("runs/b", [*OURS[:2], result("c", "STOP", "STOP")])
    with pytest.raises(InputError) as caught:
        compare([*OURS[:2], result("c", "HALT", "HALT")], rival, MANIFEST)
    assert str(caught.value) == (
        "--against must have the reference 'HALT' for utterance c, apart from case, got 'STOP'. "
        "Evaluate the other run on test.jsonl with the same transcripts."
    )


def test_case_is_each_run_s_own_affair() -> None:
    lower = Rival("runs/b", [result("a", "go on", "go"), result("b", "one two", "one two")])
    comparison = compare([result("b", "ONE TWO", "ONE TWO"), result("a", "GO ON", "GO ON")], lower, MANIFEST)
    assert (comparison.rate, comparison.other_rate) == (0, 0.25)


def test_without_words_there_is_nothing_to_compare() -> None:
    silent = [result("a", "", "GO")]
    with pytest.raises(InputError) as caught:
        compare(silent, Rival("runs/b", silent), MANIFEST)
    assert str(caught.value) == (
        "test.jsonl must hold transcripts with words to compare runs, got none. Leave --against out."
    )

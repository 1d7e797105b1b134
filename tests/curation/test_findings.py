"""Findings about manifests, from recordings with given measurements."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.curation.findings import MIN_UTTERANCES, Checked, Role, find, outliers
from ds2_jax.curation.recordings import Recording
from ds2_jax.data.manifest import Problem, Utterance

GOOD = Recording(b"", 16_000, 16_000, 0.1, False, 0.0)
Row = tuple[str, str, str, Recording | Problem]  # id, speaker, transcript, recording


def checked(name: str, *rows: Row, role: Role = "train", problems: Sequence[Problem] = ()) -> Checked:
    """Makes a manifest of utterances of a second; recordings without a digest are distinct."""
    utterances, recordings = [], []
    for key, speaker, text, recording in rows:
        utterances.append(Utterance(Path(f"{key}.wav"), 1.0, text, key, speaker))
        if isinstance(recording, Recording) and not recording.digest:
            recording = recording._replace(digest=f"{name} {key}".encode())
        recordings.append(recording)
    return Checked(Path(name), role, utterances, recordings, problems, [text for _, _, text, _ in rows])


def told(*manifests: Checked) -> list[tuple[str, str, str, str, str]]:
    return [(f.level, f.manifest, f.kind, f.id, f.detail) for f in find(manifests, 16_000, "error")]


def test_a_good_manifest_has_no_findings() -> None:
    assert told(checked("a", ("1", "x", "YES", GOOD), ("2", "x", "NO", GOOD), ("3", "y", "YES", GOOD))) == []


def test_sound_that_is_odd_is_told() -> None:
    found = told(
        checked(
            "a",
            ("good", "", "A", GOOD),
            ("usual", "", "B", GOOD),
            ("silent", "", "C", GOOD._replace(level=0.0, clipped=1.0)),  # all samples are equal
            ("opposite", "", "C", GOOD._replace(level=0.0, cancels=True)),
            ("clipped", "", "D", GOOD._replace(clipped=0.0123)),
            ("slow", "", "E", GOOD._replace(sample_rate=8_000)),
            ("fast", "", "F", GOOD._replace(sample_rate=44_100)),
            ("gone", "", "G", Problem("gone", "gone.wav", "unreadable audio", "why")),
        )
    )
    rates = "the manifest has 5 at 16000 Hz, 1 at 8000 Hz, 1 at 44100 Hz"
    assert found == [
        ("warning", "a", "silence", "silent", "standard deviation 0 of full scale"),
        ("warning", "a", "channels cancel", "opposite", "the mix, which the model hears, is silent"),
        ("warning", "a", "clipping", "clipped", "1.2% of the samples at the peak"),
        ("warning", "a", "mixed sample rates", "slow", f"8000 Hz; {rates}"),
        ("warning", "a", "sample rate below the model's", "slow", "8000 Hz; the model uses 16000 Hz"),
        ("warning", "a", "mixed sample rates", "fast", f"44100 Hz; {rates}"),
    ]


PROBLEMS = [Problem("1", "1.wav", "unknown characters", "d1"), Problem("2", "2.wav", "wrong duration", "d2")]
ROWS = ("1", "", "É", GOOD), ("2", "", "B", GOOD)


@pytest.mark.parametrize(
    ("role", "levels"), [("train", ["error", "error"]), ("dev", ["error", "error"]), ("test", ["warning", "error"])]
)
def test_a_test_split_may_hold_any_transcript(role: Role, levels: list[str]) -> None:
    found = told(checked("a", *ROWS, role=role, problems=PROBLEMS))
    assert [level for level, *_ in found] == levels
    assert [rest for _, *rest in found] == [
        ["a", "unknown characters", "1", "d1"],
        ["a", "wrong duration", "2", "d2"],
    ]


def test_what_training_leaves_out_is_a_warning() -> None:
    findings = find([checked("a", *ROWS, problems=PROBLEMS)], 16_000, "warning")
    assert {finding.level for finding in findings} == {"warning"}


def test_recordings_texts_and_speakers_that_occur_again_are_told_of_the_later_one() -> None:
    one = GOOD._replace(digest=b"one")
    train = checked("train", ("1", "ann", "YES", one), ("2", "bob", "NO", one), ("3", "", "", GOOD))
    test = checked(
        "test",
        *(("4", "cid", "YES", one), ("5", "ann", "NO", GOOD), ("6", "ann", "NO", GOOD), ("7", "", "", GOOD)),
        role="test",
    )
    assert told(train, test) == [
        ("warning", "train", "same recording twice", "2", "as 1.wav, with another transcript"),
        ("warning", "test", "recording also in train", "4", "as 1.wav"),
        ("warning", "test", "text also in train", "4", "'YES'"),
        ("warning", "test", "text also in train", "5", "'NO'"),  # once for each text and speaker
        ("remark", "test", "speaker also in train", "5", "ann"),
    ]


def test_odd_speech_rates_are_told_the_oddest_first() -> None:
    rows: list[Row] = [(str(i), "", "A" * (10 + i % 4), GOOD) for i in range(30)]
    rows += [("fast", "", "A" * 80, GOOD), ("faster", "", "A" * 150, GOOD), ("slow", "", "A", GOOD)]
    found = told(checked("a", *rows, ("empty", "", "", GOOD)))
    assert [(kind, key) for _, _, kind, key, _ in found if kind == "odd speech rate"] == [
        ("odd speech rate", "faster"),
        ("odd speech rate", "slow"),
        ("odd speech rate", "fast"),
    ]
    assert found[1][4] == "1.0 characters a second, the median is 11.0: 'A' in 1 s"


def test_few_or_equal_rates_are_not_judged() -> None:
    assert not outliers(np.array([1.0] * (MIN_UTTERANCES - 2) + [100.0])).any()
    equal = np.array([10.0] * MIN_UTTERANCES + [12.0, 100.0, np.nan])
    assert np.flatnonzero(outliers(equal)).tolist() == [MIN_UTTERANCES + 1]


def test_a_long_tail_on_one_side_is_no_outlier_and_hides_none_on_the_other() -> None:
    rng = np.random.default_rng(0)
    below, above = rng.exponential(0.5, 500), rng.exponential(0.05, 500)  # logarithms; mostly slower than usual
    rates = 10 * np.exp(np.concatenate([-below[below < 2], above[above < 0.2], [1.5]]))
    assert np.flatnonzero(outliers(rates)).tolist() == [len(rates) - 1]


def test_texts_of_a_wrong_encoding_are_told() -> None:
    rows = [("1", "", "sar? esattamente", GOOD), ("2", "", "perch\u00c3\u00a9", GOOD), ("3", "", "Really? Yes", GOOD)]
    assert told(checked("a", *rows)) == [
        ("warning", "a", "perhaps a wrong encoding", "1", "'sar?' in 'sar? esattamente'"),
        ("warning", "a", "perhaps a wrong encoding", "2", "'perch\u00c3\u00a9' in 'perch\u00c3\u00a9'"),
    ]


def test_findings_name_line_and_path(tmp_path: Path) -> None:
    """A generated id such as 10-2 is nowhere in the manifest."""
    utterances = [
        Utterance(tmp_path / f"{name}/10.wav", 1.0, "A", f"10-{i}", place=f"line {i}")
        for i, name in enumerate(("zero", "silence"), start=1)
    ]
    recordings = [GOOD, GOOD]
    manifest = Checked(tmp_path / "all.jsonl", "train", utterances, recordings, [], ["A", "A"])
    [finding] = find([manifest], 16_000, "error")
    assert (finding.where(), finding.detail) == ("line 2, silence/10.wav", "as line 1, zero/10.wav")

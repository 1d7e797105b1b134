"""Intervals, compared with known ones, and paired comparisons."""

from pathlib import Path

import numpy as np
import pytest

from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.error_rates import ErrorCount
from ds2_jax.evaluation.report import bootstrap
from ds2_jax.evaluation.report.bootstrap import Bootstrap, Interval
from ds2_jax.evaluation.results import Result


def some_results(speakers: list[str]) -> list[Result]:
    """Makes one utterance for each speaker; the error counts are separate arguments."""
    return [
        Result(Utterance(Path(f"{i}.wav"), 1.0, "GO", str(i), speaker), "GO", "GO")
        for i, speaker in enumerate(speakers)
    ]


def counts_of(edits: np.ndarray, words: int) -> list[ErrorCount]:
    return [ErrorCount(substitutions=int(each), reference_length=words) for each in edits]


def test_speakers_are_drawn_where_all_are_known_and_at_least_five() -> None:
    five = Bootstrap(some_results(["a", "b", "c", "d", "e", "e"]))
    assert (five.unit, five.num_units) == ("speakers", 5)
    assert str(five) == "bootstrap over 5 speakers"
    four = Bootstrap(some_results(["a", "b", "c", "d", "d", "d"]))
    assert (four.unit, four.num_units) == ("utterances", 6)
    nameless = Bootstrap(some_results(["a", "b", "c", "d", "e", ""]))
    assert (nameless.unit, nameless.num_units) == ("utterances", 6)


def test_units_of_one_rate_leave_no_doubt() -> None:
    results = some_results([""] * 6)
    low, high = Bootstrap(results).interval(counts_of(np.full(6, 3), words=4))
    assert low == high == 0.75


def test_two_utterances_are_drawn_as_two_coins() -> None:
    rates = Bootstrap(some_results(["", ""])).rates(counts_of(np.array([0, 2]), words=2))
    values, counts = np.unique(rates, return_counts=True)
    np.testing.assert_array_equal(values, [0, 0.5, 1])
    # The standard deviation of a fraction of 10,000 is at most 0.005.
    np.testing.assert_allclose(counts / len(rates), [0.25, 0.5, 0.25], atol=0.02)


def test_spread_is_that_of_a_mean() -> None:
    edits = np.random.default_rng(1).poisson(3, size=400)
    rates = Bootstrap(some_results([""] * 400)).rates(counts_of(edits, words=10))
    assert rates.mean() == pytest.approx(edits.mean() / 10, rel=2e-3)
    assert rates.std() == pytest.approx(edits.std() / 10 / np.sqrt(400), rel=0.03)


def test_interval_holds_the_truth_in_95_of_100_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "NUM_RESAMPLES", 1000)
    generator = np.random.default_rng(2)
    sampler = Bootstrap(some_results([""] * 60))
    held = 0
    for _ in range(400):
        low, high = sampler.interval(counts_of(generator.binomial(10, 0.2, size=60), words=10))
        held += low <= 0.2 <= high
    assert 0.91 <= held / 400 <= 0.98  # the percentile interval of 60 units covers a little less than 95 %


def test_errors_that_go_with_the_speaker_widen_the_interval() -> None:
    speakers = [f"s{i // 20}" for i in range(200)]
    edits = np.array([8 if int(name[1:]) < 3 else 1 for name in speakers])
    by_speaker, by_utterance = (
        Bootstrap(some_results(names)).interval(counts_of(edits, words=10)) for names in (speakers, [""] * 200)
    )
    assert by_speaker.high - by_speaker.low > 3 * (by_utterance.high - by_utterance.low)


def test_resamples_without_a_word_count_as_one_word() -> None:
    counts = [ErrorCount(insertions=1), ErrorCount(reference_length=4)]
    assert set(np.unique(Bootstrap(some_results(["", ""])).rates(counts))) == {0.0, 0.25, 2.0}


def test_draws_are_the_same_each_time_and_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    results, counts = some_results([""] * 50), counts_of(np.arange(50), words=60)
    rates = Bootstrap(results).rates(counts)
    np.testing.assert_array_equal(Bootstrap(results).rates(counts), rates)
    monkeypatch.setattr(bootstrap, "DRAWN_AT_ONCE", 50 * 7)
    in_pieces = Bootstrap(results).rates(counts)
    assert len(in_pieces) == len(rates)
    assert in_pieces.std() == pytest.approx(rates.std(), rel=0.03)


def test_a_run_does_not_differ_from_itself() -> None:
    counts = counts_of(np.arange(40), words=50)
    comparison = Bootstrap(some_results([""] * 40)).compare(counts, counts, "itself")
    assert comparison.difference == 0
    assert comparison.interval == Interval(0.0, 0.0)
    assert (comparison.lower, comparison.equal, comparison.higher) == (0, 1, 0)
    assert comparison.p_value == 1


def test_pairing_removes_what_both_runs_share() -> None:
    edits = np.random.default_rng(3).integers(0, 90, size=40)
    sampler = Bootstrap(some_results([""] * 40))
    run, other = counts_of(edits, words=100), counts_of(edits + 1, words=100)
    comparison = sampler.compare(run, other, "other")
    assert comparison.interval == pytest.approx((-0.01, -0.01))
    assert comparison.lower == 1
    assert comparison.p_value == pytest.approx(1 / 10_001)
    alone = sampler.interval(run)
    assert alone.high - alone.low > 0.1


def test_comparison_the_other_way_round_is_its_mirror() -> None:
    generator = np.random.default_rng(4)
    one, two = (counts_of(generator.integers(0, 9, size=30), words=10) for _ in range(2))
    sampler = Bootstrap(some_results([""] * 30))
    forward, backward = sampler.compare(one, two, "two"), sampler.compare(two, one, "one")
    assert forward.difference == -backward.difference
    assert forward.interval == pytest.approx((-backward.interval.high, -backward.interval.low))
    assert forward.lower == pytest.approx(backward.higher)
    assert forward.equal == backward.equal


def test_p_value_is_small_by_chance_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "NUM_RESAMPLES", 1000)
    generator = np.random.default_rng(5)
    sampler = Bootstrap(some_results([""] * 100))
    p_values = []
    for _ in range(400):
        one, two = (counts_of(generator.binomial(10, 0.3, size=100), words=10) for _ in range(2))
        p_values.append(sampler.compare(one, two, "two").p_value)
    assert 0.025 <= np.mean(np.array(p_values) <= 0.05) <= 0.085  # standard deviation of a fraction of 400: 0.011
    assert 0.43 <= np.mean(np.array(p_values) <= 0.5) <= 0.57


def test_comparison_is_told_in_a_line() -> None:
    edits = np.array([1, 2, 3, 4])
    comparison = Bootstrap(some_results([""] * 4)).compare(
        counts_of(edits, words=10), counts_of(edits + 1, words=10), "runs/b"
    )
    assert str(comparison) == (
        "against runs/b: WER 25.00% and 35.00%, difference -10.00 points (95 % -10.00 to -10.00); "
        "lower in 100.0% of the resamples, one-sided p-value 0.0001"
    )

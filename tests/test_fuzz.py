"""Damaged and hostile files, read in a process of its own: refused with their name or accepted whole, and nothing else.

tests/fuzz/ holds what is read and how it is damaged; README and docs/reliability.md what was counted.
"""

import collections
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import Outcome
from tests.fuzz.targets import TARGETS

NUM_QUICK = 504
NUM_SLOW = 12_600
SLOW_FIRST = 1000
"""The slow test begins where the quick one does not reach."""


def assert_no_fault(outcomes: Sequence[Outcome]) -> None:
    """Shows how to make each file again."""
    faults = {each.kind: f"{each.again} ...\n{each.fault}" for each in outcomes if each.fault}  # one of those alike
    assert not faults, "\n".join(faults.values())


def check(num_mutations: int, first: int, folder: Path) -> None:
    each = math.ceil(num_mutations / len(TARGETS))
    outcomes = list(campaign.run(list(TARGETS), each, folder, first))
    assert_no_fault(outcomes)
    mutations = [outcome for outcome in outcomes if outcome.number >= 0]
    assert len(mutations) >= num_mutations
    counts = collections.Counter(outcome.outcome for outcome in mutations)
    assert set(counts) == {"accepted", "refused"}
    assert min(counts.values()) > num_mutations / 10, "neither may be the rule, or the damage is too small or too large"


@pytest.mark.timeout(300)
def test_seeds_claims_and_500_mutations(tmp_path: Path) -> None:
    check(NUM_QUICK, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_more_than_10_000_mutations(tmp_path: Path) -> None:
    check(NUM_SLOW, SLOW_FIRST, tmp_path)

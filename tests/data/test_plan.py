"""Plans hold every utterance once, in few shapes, with the least padding."""

import functools
import itertools
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.data.plan import Bucket, PlannedBatch, plan_epoch, plan_evaluation, summarise

HOP = 160
samples = st.lists(st.integers(1, 40_000), min_size=1, max_size=120).map(np.array)
batch_sizes = st.integers(1, 17)
bucket_counts = st.integers(1, 6)
batch_samples = st.integers(HOP, 150_000)
sizes = batch_sizes.map(lambda rows: {"batch_size": rows}) | batch_samples.map(lambda count: {"batch_samples": count})
Sizes = dict[str, Any]


def plan(
    num_samples: np.ndarray,
    batch_size: int = 4,
    num_buckets: int = 3,
    *,
    batch_samples: int = 0,
    seed: int = 0,
    epoch: int = 0,
    sortagrad: bool = False,
) -> list[PlannedBatch]:
    return plan_epoch(
        num_samples,
        batch_size=batch_size,
        batch_samples=batch_samples,
        num_buckets=num_buckets,
        hop_length=HOP,
        seed=seed,
        epoch=epoch,
        sortagrad=sortagrad,
    )


def as_lists(batches: list[PlannedBatch]) -> list[tuple[int, list[int]]]:
    return [(batch.padded_samples, batch.indices.tolist()) for batch in batches]


def padded_frames(batches: list[PlannedBatch]) -> int:
    return sum(len(batch.indices) * (batch.padded_samples // HOP + 1) for batch in batches)


@given(samples, sizes, bucket_counts, st.integers(0, 9), st.booleans())
def test_plan_covers_each_utterance_once(
    num_samples: np.ndarray, size: Sizes, num_buckets: int, epoch: int, sortagrad: bool
) -> None:
    batches = plan(num_samples, num_buckets=num_buckets, epoch=epoch, sortagrad=sortagrad, **size)
    rows = np.concatenate([batch.indices for batch in batches])
    assert sorted(rows[rows >= 0].tolist()) == list(range(len(num_samples)))
    assert rows.dtype == np.int32


@given(samples, sizes, bucket_counts)
def test_every_utterance_fits_its_bucket_even_when_almost_one_hop_longer(
    num_samples: np.ndarray, size: Sizes, num_buckets: int
) -> None:
    for batch in plan(num_samples, num_buckets=num_buckets, **size):
        assert (num_samples[batch.indices[batch.indices >= 0]] + HOP - 1 <= batch.padded_samples).all()


@given(samples, sizes, bucket_counts)
def test_there_are_at_most_num_buckets_shapes(num_samples: np.ndarray, size: Sizes, num_buckets: int) -> None:
    shapes = {(len(b.indices), b.padded_samples) for b in plan(num_samples, num_buckets=num_buckets, **size)}
    assert len(shapes) <= num_buckets


@given(samples, batch_sizes, bucket_counts)
def test_batches_by_count_have_batch_size_rows(num_samples: np.ndarray, batch_size: int, num_buckets: int) -> None:
    batches = plan(num_samples, batch_size, num_buckets)
    assert {len(batch.indices) for batch in batches} == {batch_size}
    assert len(batches) == -(-len(num_samples) // batch_size)


@given(samples, batch_samples, bucket_counts)
def test_batches_by_audio_are_filled_but_never_past_it(
    num_samples: np.ndarray, batch_samples: int, num_buckets: int
) -> None:
    for batch in plan(num_samples, num_buckets=num_buckets, batch_samples=batch_samples):
        rows, length = len(batch.indices), batch.padded_samples + 1
        assert rows == 1 or rows * length <= batch_samples
        assert (rows * 1.25 + 1) * length > batch_samples  # short of a row, and of a quarter for an even number


def test_rows_divide_among_devices_where_each_has_four() -> None:
    for rows in range(1, 200):
        (batch,) = plan(np.array([9 * HOP]), batch_samples=rows * 10 * HOP)
        for devices in (2, 4, 8):
            assert len(batch.indices) < 4 * devices or len(batch.indices) % devices == 0
        assert rows >= 8 or len(batch.indices) == rows


@given(samples, sizes, bucket_counts, st.integers(0, 9), st.integers(0, 99))
def test_shapes_and_number_of_batches_are_those_of_every_epoch_and_seed(
    num_samples: np.ndarray, size: Sizes, num_buckets: int, epoch: int, seed: int
) -> None:
    batches = plan(num_samples, num_buckets=num_buckets, epoch=epoch, seed=seed, **size)
    first = plan_evaluation(num_samples, num_buckets=num_buckets, hop_length=HOP, **{"batch_size": 4, **size})
    shapes = [[(b.padded_samples, len(b.indices)) for b in each] for each in (batches, first)]
    assert sorted(shapes[0]) == shapes[1]


@given(samples, sizes, bucket_counts)
def test_empty_rows_are_fewer_than_a_batch_and_spread_over_the_ends_of_the_shortest_batches(
    num_samples: np.ndarray, size: Sizes, num_buckets: int
) -> None:
    batches = plan(num_samples, num_buckets=num_buckets, **size)
    empty = {id(b): int((b.indices < 0).sum()) for b in batches}
    shortest = min(batches, key=lambda b: b.padded_samples)
    assert sum(empty.values()) < len(shortest.indices)
    for batch in batches:
        assert batch.padded_samples == shortest.padded_samples or not empty[id(batch)]
        assert (batch.indices[len(batch.indices) - empty[id(batch)] :] == -1).all()
    counts = [empty[id(b)] for b in batches if b.padded_samples == shortest.padded_samples]
    assert max(counts) - min(counts) <= 1


@given(samples, sizes, st.integers(0, 2**31 - 1), st.integers(0, 99))
def test_same_seed_and_epoch_give_the_same_plan(num_samples: np.ndarray, size: Sizes, seed: int, epoch: int) -> None:
    first, second = (plan(num_samples, seed=seed, epoch=epoch, **size) for _ in range(2))
    assert as_lists(first) == as_lists(second)


def test_epochs_and_seeds_differ_in_members_and_order_of_batches() -> None:
    num_samples = np.random.default_rng(0).integers(8_000, 80_000, 200)
    plans = [plan(num_samples, epoch=0), plan(num_samples, epoch=1), plan(num_samples, seed=1)]
    for one, other in itertools.combinations(plans, 2):
        members = [{frozenset(b.indices.tolist()) for b in batches} for batches in (one, other)]
        assert len(members[0] & members[1]) < 5
        assert [b.padded_samples for b in one] != [b.padded_samples for b in other]


def test_utterances_move_up_as_leftovers_in_turn() -> None:
    num_samples = np.array([1_600] * 5 + [16_000] * 7)
    moved = set()
    for epoch in range(30):
        batches = plan(num_samples, 4, 2, epoch=epoch)
        assert sorted(b.padded_samples for b in batches) == [11 * HOP - 1, 101 * HOP - 1, 101 * HOP - 1]
        moved |= {i for b in batches if b.padded_samples > 2_000 for i in b.indices.tolist() if i < 5}
    assert moved == set(range(5))


def test_sortagrad_goes_from_short_to_long_in_epoch_0_only() -> None:
    num_samples = np.random.default_rng(0).integers(8_000, 80_000, 50)
    rows = np.concatenate([b.indices for b in plan(num_samples, sortagrad=True)])
    frames = -(-num_samples[rows[rows >= 0]] // HOP)
    assert (np.diff(frames) >= 0).all()
    assert as_lists(plan(num_samples, sortagrad=True, epoch=1)) == as_lists(plan(num_samples, epoch=1))


@given(samples, sizes, bucket_counts)
def test_evaluation_takes_each_utterance_once_from_short_to_long(
    num_samples: np.ndarray, size: Sizes, num_buckets: int
) -> None:
    batches = plan_evaluation(num_samples, num_buckets=num_buckets, hop_length=HOP, **{"batch_size": 4, **size})
    rows = np.concatenate([b.indices for b in batches])
    rows = rows[rows >= 0]
    assert sorted(rows.tolist()) == list(range(len(num_samples)))
    assert (np.diff(-(-num_samples[rows] // HOP)) >= 0).all()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=14).map(np.array), st.integers(1, 4), st.integers(1, 3))
def test_padding_is_the_least_of_any_choice_of_buckets(num_hops: np.ndarray, batch_size: int, num_buckets: int) -> None:
    """Fills the batches for every choice of edges by hand: from the shortest row up, leftovers to the next edge."""
    needed = sorted([0] * (-len(num_hops) % batch_size) + (num_hops + 1).tolist())
    unique = sorted(set(needed) - {0})
    costs = []
    for count in range(min(num_buckets, len(unique))):
        for edges in itertools.combinations(unique[:-1], count):
            rows_left, cost = list(needed), 0
            for edge in (*edges, unique[-1]):
                batches = sum(frames <= edge for frames in rows_left) // batch_size
                rows_left = rows_left[batches * batch_size :]
                cost += batches * batch_size * edge
            costs.append(cost)
    assert padded_frames(plan(num_hops * HOP, batch_size, num_buckets)) == min(costs)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9).map(np.array), st.integers(1, 200), st.integers(1, 3))
def test_padding_of_batches_by_audio_is_the_least_of_any_numbers_of_batches(
    num_hops: np.ndarray, batch_hops: int, num_buckets: int
) -> None:
    """Tries every number of batches of the longest remaining utterances, and recursively the rest."""

    def least(needed: list[int], buckets_left: int) -> float:
        if not needed:
            return 0
        if not buckets_left:
            return np.inf
        rows = max(batch_hops // needed[0], 1)
        rows -= rows % (1 if rows < 8 else 2 if rows < 16 else 4 if rows < 32 else 8 if rows < 64 else 16)
        counts = range(1, -(-len(needed) // rows) + 1)
        return min(n * rows * needed[0] + least(needed[n * rows :], buckets_left - 1) for n in counts)

    batches = plan(num_hops * HOP, num_buckets=num_buckets, batch_samples=batch_hops * HOP)
    assert padded_frames(batches) == least(sorted((num_hops + 1).tolist(), reverse=True), num_buckets)


def test_many_lengths_are_thinned_and_cost_little_padding() -> None:
    num_samples = np.arange(1, 4_001) * HOP
    batches = plan(num_samples, 16, 40)
    assert sorted(np.concatenate([b.indices for b in batches]).tolist()) == list(range(4_000))
    assert all((num_samples[b.indices] < b.padded_samples).all() for b in batches)
    assert summarise(batches, num_samples, hop_length=HOP).padding < 1 / 40


def test_padded_samples_are_the_longest_waveform_of_their_frames() -> None:
    (batch,) = plan(np.array([1_600, 1_601]), 2, 1)
    assert batch.padded_samples == 12 * HOP - 1


def test_summary_counts_shapes_padding_and_empty_rows() -> None:
    num_samples = np.array([9 * HOP] * 3 + [19 * HOP] * 3 + [15 * HOP])
    summary = summarise(plan(num_samples, 4, 2), num_samples, hop_length=HOP)
    # The buckets hold 10 and 20 frames; 30 of 30 and 60 + 16 of 80 frames are valid, 10 of 120 in the empty row.
    assert summary.buckets == (Bucket(10, 4, 1), Bucket(20, 4, 1))
    assert summary.padding == pytest.approx(4 / 110)
    assert summary.empty_frames == pytest.approx(10 / 120)
    assert str(summary) == "2 batches of 4 x 10, 4 x 20 frames; padding 3.6%; empty rows 1 (8.3% of the frames)"


def test_summary_shows_rows_and_frames_of_every_shape() -> None:
    num_samples = np.array([9 * HOP] * 5 + [19 * HOP] * 2)
    summary = summarise(plan(num_samples, num_buckets=2, batch_samples=40 * HOP), num_samples, hop_length=HOP)
    assert str(summary) == ("3 batches of 4 x 10, 2 x 20 frames; padding 0.0%; empty rows 3 (25.0% of the frames)")


@functools.cache
def an4_samples(archive: Path) -> np.ndarray:
    counts = []
    with tarfile.open(archive) as files:
        for member in files:
            if "an4_clstk" in member.name and (file := files.extractfile(member)):
                found = re.search(rb"sample_count -i (\d+)", file.read(1024))
                assert found
                counts.append(int(found[1]))
    return np.array(counts)


@pytest.mark.parametrize("size", [{"batch_size": 8}, {"batch_size": 16}, {"batch_samples": 13 * 16_000}], ids=str)
def test_an4_is_padded_by_at_most_10_percent_in_8_shapes(an4_archive: Path, size: Sizes) -> None:
    num_samples = an4_samples(an4_archive)
    summary = summarise(plan(num_samples, num_buckets=8, **size), num_samples, hop_length=HOP)
    assert len(num_samples) == 831
    assert len(summary.buckets) <= 8
    assert summary.padding <= 0.10  # measured: 0.093, 0.097 and 0.092
    assert summary.empty_frames < 0.001

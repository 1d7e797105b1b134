"""The batch plan: which utterances form each batch of an epoch, and to which length they are padded.

Pure NumPy on the numbers of samples. No audio is read, so any position in an epoch is reached by slicing its list of
batches, and a run that continues, or another process, makes the same list.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ds2_jax import lengths

# Lengths considered as the end of a bucket. 1024 of them cost 0.1 s and 8 MiB; the unique lengths of 300,000 utterances
# of up to 20 s are thinned to every second one, which moves an edge by at most 10 ms.
MAX_CANDIDATES = 1024


@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of the plan.

    Attributes:
        padded_samples: length of every waveform of the batch (S): T * hop_length - 1, the longest that gives T frames.
        indices: [B] int32, positions in the list of utterances, then -1 for each empty row.
    """

    padded_samples: int
    indices: np.ndarray


@dataclasses.dataclass(frozen=True)
class PlanSummary:
    """What an epoch costs; printed as one line.

    Attributes:
        num_batches: steps of the epoch.
        batch_size: rows of every batch (B).
        bucket_frames: the frames of the batches (T), rising; each is one shape to compile.
        padding: share of the frames that is padding, in rows that hold an utterance.
        num_empty_rows: rows that hold none.
        empty_frames: share of all frames that lies in empty rows.
    """

    num_batches: int
    batch_size: int
    bucket_frames: tuple[int, ...]
    padding: float
    num_empty_rows: int
    empty_frames: float

    def __str__(self) -> str:
        return (
            f"{self.num_batches} batches of {self.batch_size} x {', '.join(map(str, self.bucket_frames))} frames; "
            f"padding {self.padding:.1%}; empty rows {self.num_empty_rows} ({self.empty_frames:.1%} of the frames)"
        )


def plan_epoch(
    num_samples: np.ndarray,
    *,
    batch_size: int,
    num_buckets: int,
    hop_length: int,
    seed: int,
    epoch: int,
    sortagrad: bool = False,
) -> list[Batch]:
    """Plans one epoch of training: every utterance once, ceil(U / batch_size) batches in every epoch.

    Which utterances share a batch, which leftovers move to the next longer bucket and the order of the batches are
    drawn anew from (seed, epoch). Empty rows lie in the shortest bucket, spread over its batches, where they cost least
    and no step rests on a single utterance.

    Args:
        num_samples: [U] int, samples of every utterance. A file may hold up to hop_length - 1 more and still fits.
        batch_size: rows of a batch (B).
        num_buckets: most lengths to which batches are padded.
        hop_length: samples between frames.
        seed: of the run.
        epoch: counted from 0.
        sortagrad: epoch 0 goes from short to long utterances instead.

    Differs: deepspeech.pytorch's bins are fixed slices of the manifest, whose members never change.
    """
    if sortagrad and epoch == 0:
        return plan_evaluation(num_samples, batch_size=batch_size, num_buckets=num_buckets, hop_length=hop_length)
    rng = np.random.default_rng([seed, epoch])
    batches = _fill_buckets(num_samples, batch_size, num_buckets, hop_length, rng)
    return [batches[position] for position in rng.permutation(len(batches))]


def plan_evaluation(num_samples: np.ndarray, *, batch_size: int, num_buckets: int, hop_length: int) -> list[Batch]:
    """Plans one pass from short to long utterances, nothing drawn; otherwise as `plan_epoch`."""
    return _fill_buckets(num_samples, batch_size, num_buckets, hop_length, None)


def summarise(batches: Sequence[Batch], num_samples: np.ndarray, *, hop_length: int) -> PlanSummary:
    """Counts the shapes, the padding and the empty rows of an epoch's batches; arguments as for `plan_epoch`."""
    indices = np.stack([batch.indices for batch in batches])  # [batches, B]
    frames = lengths.num_frames(np.array([batch.padded_samples for batch in batches]), hop_length)
    empty = indices < 0
    filled_frames = int(((~empty).sum(1) * frames).sum())
    empty_frames = int((empty.sum(1) * frames).sum())
    valid_frames = int(lengths.num_frames(num_samples[indices[~empty]], hop_length).sum())
    return PlanSummary(
        num_batches=len(batches),
        batch_size=indices.shape[1],
        bucket_frames=tuple(np.unique(frames).tolist()),
        padding=1 - valid_frames / filled_frames,
        num_empty_rows=int(empty.sum()),
        empty_frames=empty_frames / (filled_frames + empty_frames),
    )


def _fill_buckets(
    num_samples: np.ndarray, batch_size: int, num_buckets: int, hop_length: int, rng: np.random.Generator | None
) -> list[Batch]:
    """The batches from the shortest bucket to the longest, members by length or drawn by `rng`."""
    frames = lengths.num_frames(num_samples + hop_length - 1, hop_length)
    edges, batch_counts = _choose_buckets(frames, batch_size, num_buckets)
    order = np.argsort(frames, kind="stable")
    bucket = np.searchsorted(edges, frames[order])
    num_empty = -len(frames) % batch_size
    leftovers = order[:0]
    batches = []
    for position, (edge, count) in enumerate(zip(edges.tolist(), batch_counts.tolist(), strict=True)):
        members = np.concatenate([leftovers, order[bucket == position]])
        if rng is not None:
            rng.shuffle(members)
        used, leftovers = np.split(members, [count * batch_size - num_empty])
        for rows in np.array_split(used, count):
            indices = np.full(batch_size, -1, np.int32)
            indices[: len(rows)] = rows
            batches.append(Batch(edge * hop_length - 1, indices))
        num_empty = 0
    return batches


def _choose_buckets(frames: np.ndarray, batch_size: int, num_buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the bucket lengths that leave the least padding, by dynamic programming.

    Leftovers move up, and empty rows count as utterances without length. So with N(t) the rows up to t frames, the
    buckets up to edge t form floor(N(t) / B) batches whichever edges lie below, and a bucket from edge s to edge t
    costs t * (floor(N(t) / B) - floor(N(s) / B)). The sum is exact: it holds the leftovers and the empty rows.

    Args:
        frames: [U] int, frames that every utterance needs.
        batch_size: rows of a batch.
        num_buckets: most buckets.

    Returns:
        edges: [K] int64, frames of each bucket (T), rising.
        batch_counts: [K] int64, its batches, at least 1.
    """
    candidates = np.unique(frames)
    step = -(-len(candidates) // MAX_CANDIDATES)
    candidates = np.concatenate([[0], candidates[::-1][::step][::-1]])  # 0: no bucket yet
    num_rows = np.searchsorted(np.sort(frames), candidates, side="right") + -len(frames) % batch_size
    num_batches = num_rows // batch_size
    cost = np.triu((num_batches[None, :] - num_batches[:, None]) * candidates[None, :]).astype(np.float64)  # [from, to]
    cost[np.tril_indices(len(candidates), -1)] = np.inf
    least = np.where(candidates == 0, 0, np.inf)  # [to], of the buckets so far
    previous = []
    for _ in range(min(num_buckets, len(candidates) - 1)):
        totals = least[:, None] + cost
        previous.append(totals.argmin(0))
        least = totals.min(0)
    position = len(candidates) - 1
    chosen = [position]
    for choice in reversed(previous):
        position = int(choice[position])
        chosen.append(position)
    chosen.reverse()
    batch_counts = np.diff(num_batches[chosen])
    return candidates[chosen[1:]][batch_counts > 0], batch_counts[batch_counts > 0]

"""progress.py: where the time of an epoch went."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from ds2_jax.progress import Progress


class Clock:
    """Stands for time.perf_counter; moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def test_epoch_tells_its_time_waiting_padding_and_empty_rows(clock: Clock) -> None:
    def batches() -> Iterator[dict[str, np.ndarray]]:
        for shape, num_samples in (((2, 100), [100, 80]), ((4, 50), [50, 40, 50, 0])):
            clock.now += 2  # decoding
            yield {"waveforms": np.zeros(shape, np.float32), "num_samples": np.array(num_samples, np.int32)}
        clock.now += 1  # finding the end

    progress = Progress(16_000)
    for epoch in range(2):  # the second epoch counts from 0 again
        for batch in progress.epoch(batches(), "title", 2):
            clock.now += 10  # computing
            progress.step({"loss": 3.0, "num_samples": float(batch["num_samples"].sum())})
        # 400 samples are computed: 20 + 10 behind the utterances, 50 in the empty row.
        assert progress.costs == {
            "epoch_seconds": 25,
            "data_wait_seconds": 5,
            "padding_share": 30 / 400,
            "empty_share": 50 / 400,
        }, epoch
    assert progress.summary == (
        "loss 3.00 in 25 s (0 hours of audio an hour; padding 7.5%, empty rows 12.5%, waited 5.0 s for data)"
    )

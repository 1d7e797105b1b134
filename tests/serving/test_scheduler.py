"""Short requests come first, long ones are not starved, and batches hold pieces of similar length."""

import numpy as np
import pytest

from ds2_jax.recognition.piece_outputs import End
from ds2_jax.recognition.segments import Piece
from ds2_jax.serving.recordings import PieceWork, StreamWork
from ds2_jax.serving.scheduler import BATCH_SECONDS, Job, Scheduler

RATE = 100


def job(name: str, *seconds: float, read: bool = True, now: float = 0.0, group: str = "model") -> Job:
    made = Job(group, RATE, (_ for _ in ()), PieceWork.__new__(PieceWork), lambda _: None, now)
    made.waiting.extend(Piece(i, 0, np.zeros(int(each * RATE), np.float32)) for i, each in enumerate(seconds))
    made.read = read
    vars(made)["name"] = name
    return made


def taken(scheduler: Scheduler, now: float = 0.0) -> list[tuple[str, int]]:
    batch = scheduler.take(now)
    scheduler.done(batch)
    return [(vars(each)["name"], piece.start) for each, piece in batch.pieces]


def with_jobs(*jobs: Job) -> Scheduler:
    scheduler = Scheduler()
    for each in jobs:
        scheduler.add(each)
    return scheduler


def test_the_request_with_the_least_audio_left_comes_first() -> None:
    scheduler = with_jobs(job("long", *[20.0] * 8), job("short", 3.0), job("shorter", 1.0))
    assert [taken(scheduler) for _ in range(3)] == [[("shorter", 0)], [("short", 0)], [("long", 0)]]


def test_a_recording_that_is_not_read_to_its_end_counts_as_long() -> None:
    scheduler = with_jobs(job("open", 5.0, read=False), job("known", 20.0))
    assert taken(scheduler) == [("known", 0)]


def test_a_batch_holds_similar_pieces_of_several_requests_in_order() -> None:
    scheduler = with_jobs(job("a", 3.0, 3.2), job("b", 3.0), job("c", 2.0), job("d", 0.5), job("e", 9.0))
    assert taken(scheduler) == [("d", 0)]
    assert taken(scheduler) == [("c", 0)]
    assert taken(scheduler) == [("b", 0), ("a", 0), ("a", 1)]
    assert taken(scheduler) == [("e", 0)]
    assert not scheduler.has_work()


@pytest.mark.parametrize(("seconds", "most"), [(1.0, 8), (BATCH_SECONDS / 4, 4), (BATCH_SECONDS * 2, 1)])
def test_a_batch_is_bounded(seconds: float, most: int) -> None:
    assert len(taken(with_jobs(*(job(str(i), seconds) for i in range(12))))) == most


def test_models_do_not_share_batches() -> None:
    scheduler = with_jobs(job("a", 1.0), job("b", 1.0, group="other"), job("c", 1.0))
    assert [taken(scheduler), taken(scheduler)] == [[("a", 0), ("c", 0)], [("b", 0)]]


def test_neither_short_nor_long_requests_starve() -> None:
    """While a short request comes every second, as fast as the model is, a long one goes on."""
    scheduler, served = with_jobs(job("long", *[20.0] * 8, read=False)), []
    for second in range(60):
        scheduler.add(job("short", 3.0, now=second))
        served += [name for name, _ in taken(scheduler, second)]
    assert served.count("long") == 8
    assert served.count("short") >= 50


def test_ends_come_after_the_pieces_and_cancelled_jobs_are_dropped() -> None:
    ending, gone = job("a", 1.0), job("b", 1.0)
    ending.waiting.append(End(RATE))
    gone.over = True
    scheduler = with_jobs(ending, gone)
    first = scheduler.take(0.0)
    assert not scheduler.has_work()  # while a piece is run, its recording does not end
    scheduler.done(first)
    second = scheduler.take(0.0)
    assert ([each for each, _ in first.pieces], first.ends, first.dropped) == ([ending], [], [gone])
    assert (second.pieces, second.ends, second.dropped) == ([], [(ending, End(RATE))], [])
    assert scheduler.jobs == []


def test_the_second_thread_takes_only_short_requests_that_are_free() -> None:
    scheduler = with_jobs(job("long", *[20.0] * 8), job("open", 1.0, read=False), job("short", 4.0, 3.0))
    first = scheduler.take(0.0, short=True)
    assert [vars(each)["name"] for each, _ in first.pieces] == ["short", "short"]
    scheduler.jobs[2].waiting.append(Piece(2, 0, np.zeros(RATE, np.float32)))
    assert not scheduler.has_work(short=True)
    assert scheduler.take(0.0, short=True).pieces == []
    assert scheduler.has_work()
    scheduler.done(first)
    assert [vars(each)["name"] for each, _ in scheduler.take(0.0, short=True).pieces] == ["short"]


def test_a_job_that_runs_is_not_dropped_before_its_results_are_handed() -> None:
    scheduler = with_jobs(running := job("a", 1.0, 1.0))
    first = scheduler.take(0.0)
    running.over = True
    assert (scheduler.has_work(), scheduler.take(0.0).dropped) == (False, [])
    scheduler.done(first)
    assert scheduler.take(0.0).dropped == [running]


def test_a_recording_that_is_heard_step_by_step_gives_one_piece_at_once() -> None:
    jobs = [job(str(index), 1.0, 1.0) for index in range(20)]
    for each in jobs:
        each.work = StreamWork.__new__(StreamWork)
    assert taken(with_jobs(*jobs)) == [(str(index), 0) for index in range(16)]

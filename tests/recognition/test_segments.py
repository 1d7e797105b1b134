"""Pieces end at the right places and leave out only silence; joining loses and doubles nothing."""

import itertools
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2_jax.config import Config, FeatureConfig, ModelConfig
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.recognition import segments
from ds2_jax.recognition.segments import Piece, cut, join

RATE = 4_000
CONFIG = Config(features=FeatureConfig(sample_rate=RATE), model=ModelConfig(time_reduction=4))
FRAME = 160  # samples of an output frame


def speech(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """Makes noise with a loudness that swings like syllables, five times a second, [S] float32."""
    time = np.arange(round(seconds * RATE)) / RATE
    envelope = 10.0 ** (-1.5 * np.cos(np.pi * 5 * time) ** 2)  # 30 dB
    return (level * envelope * np.random.default_rng(seed).normal(size=len(time))).astype(np.float32)


def room(seconds: float, level: float = 1e-4, seed: int = 1) -> np.ndarray:
    """Makes steady noise, [S] float32; level 0 gives digital silence."""
    return (level * np.random.default_rng(seed).normal(size=round(seconds * RATE))).astype(np.float32)


def cut_whole(waveform: np.ndarray) -> list[Piece]:
    return list(cut([waveform], CONFIG))


def spans(pieces: Sequence[Piece]) -> list[tuple[float, float]]:
    """Gives the seconds at which pieces begin and end."""
    return [(piece.start * FRAME / RATE, (piece.start * FRAME + len(piece.waveform)) / RATE) for piece in pieces]


def uncovered(pieces: Sequence[Piece], num_samples: int) -> np.ndarray:
    """Finds the samples in no piece, [S] bool."""
    left_out = np.ones(num_samples, bool)
    for piece in pieces:
        left_out[piece.start * FRAME : piece.start * FRAME + len(piece.waveform)] = False
    return left_out


@st.composite
def recordings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Makes speech of varying loudness, with pauses of noise or silence, [S] float32; and where speech is, [S] bool."""
    parts, spoken = [], []
    for i in range(draw(st.integers(1, 12))):
        parts.append(speech(draw(st.floats(0.3, 45)), draw(st.sampled_from([0.02, 0.1, 0.3])), i))
        parts.append(room(draw(st.floats(0, 4)), draw(st.sampled_from([0, 1e-4, 2e-4])), i))
        spoken += [np.ones(len(parts[-2]), bool), np.zeros(len(parts[-1]), bool)]
    return np.concatenate(parts), np.concatenate(spoken)


@settings(max_examples=40)
@given(recordings())
def test_pieces_hold_all_speech_in_order_and_once(recording: tuple[np.ndarray, np.ndarray]) -> None:
    waveform, spoken = recording
    pieces = cut_whole(waveform)
    for piece in pieces:
        first = piece.start * FRAME
        np.testing.assert_array_equal(piece.waveform, waveform[first : first + len(piece.waveform)])
    assert not (uncovered(pieces, len(waveform)) & spoken).any()
    if len(waveform) <= segments.WHOLE * RATE:
        assert [len(piece.waveform) for piece in pieces] == [len(waveform)]
        return
    assert max(len(piece.waveform) for piece in pieces) <= segments.LONGEST * RATE
    for piece, following in itertools.pairwise(pieces):
        shared = piece.start * FRAME + len(piece.waveform) - following.start * FRAME
        assert following.overlap * FRAME == max(shared, 0)
        assert following.overlap in (0, segments.OVERLAP * RATE / FRAME)


def test_pieces_keep_nothing_else_in_memory() -> None:
    pieces = cut_whole(np.concatenate([np.append(speech(3, seed=i), room(1.2)) for i in range(20)]))
    assert len(pieces) == 20
    assert all(piece.waveform.base is None for piece in pieces), "a view would keep all that was read ahead"


@settings(max_examples=20)
@given(recordings(), st.lists(st.integers(0, 3_000_000), max_size=30), st.sampled_from([1e-3, 1.0, 3e4]))
def test_neither_blocks_nor_gain_change_the_cuts(
    recording: tuple[np.ndarray, np.ndarray], edges: list[int], gain: float
) -> None:
    waveform, _ = recording
    blocks = np.split(waveform * np.float32(gain), sorted(edge % (len(waveform) + 1) for edge in edges))
    streamed, whole = list(cut(iter(blocks), CONFIG)), cut_whole(waveform)
    assert [(p.start, p.overlap, len(p.waveform)) for p in streamed] == [
        (p.start, p.overlap, len(p.waveform)) for p in whole
    ]


@pytest.mark.parametrize("level", [0, 1e-4], ids=["digital silence", "noise"])
def test_pieces_end_in_pauses(level: float) -> None:
    lengths = [3.0, 5.0, 0.4, 8.0, 12.0, 2.0, 7.0]
    waveform = np.concatenate([np.append(speech(each), room(1.2, level)) for each in lengths])
    begins = np.cumsum([0, *lengths]) + 1.2 * np.arange(len(lengths) + 1)
    found = spans(cut_whole(waveform))
    assert len(found) == len(lengths)
    for (start, end), begin, length in zip(found, begins, lengths, strict=False):
        assert begin - 0.35 <= start <= begin
        assert begin + length <= end <= begin + length + 0.35


def test_the_longest_pause_ends_a_piece_that_becomes_too_long() -> None:
    pauses = [0.16, 0.2, 0.16, 0.28, 0.16, 0.16, 0.2, 0.16, 0.16, 0.16]
    waveform = np.concatenate([np.append(speech(3.95, seed=i), room(pause)) for i, pause in enumerate(pauses)])
    found = spans(cut_whole(waveform))
    longest = 4 * 3.95 + sum(pauses[:4]) - 0.14
    assert found[0][0] == 0.0
    assert found[0][1] == pytest.approx(longest, abs=0.08)
    assert found[1][0] == found[0][1], "a short pause is halved"


def test_without_pauses_pieces_overlap() -> None:
    pieces = cut_whole(speech(100))
    assert spans(pieces) == [(0, 20), (16, 36), (32, 52), (48, 68), (64, 84), (80, 100)]
    assert [piece.overlap for piece in pieces] == [0, *[100] * 5]


@pytest.mark.parametrize("kind", ["noise", "tone", "hum and noise"])
def test_steady_sound_without_speech_is_no_silence(kind: str) -> None:
    time = np.arange(60 * RATE) / RATE
    waveform = {
        "noise": room(60, 0.1),
        "tone": 0.1 * np.sin(2 * np.pi * 440 * time).astype(np.float32),
        "hum and noise": (0.1 * np.sin(2 * np.pi * 50 * time)).astype(np.float32) + room(60, 0.01),
    }[kind]
    assert not uncovered(cut_whole(waveform), len(waveform)).any()


def test_a_break_is_left_out() -> None:
    waveform = np.concatenate([speech(30), room(120, 2e-4), speech(30), np.zeros(100 * RATE, np.float32)])
    pieces = cut_whole(waveform)
    assert sum(len(piece.waveform) for piece in pieces) < 75 * RATE
    left_out = uncovered(pieces, len(waveform))
    assert not left_out[: 30 * RATE].any()
    assert not left_out[150 * RATE : 180 * RATE].any()


@pytest.mark.parametrize("noise", [1e-4, 1e-3])
def test_quiet_speech_after_loud_is_kept(noise: float) -> None:
    """25 dB below; with the room's noise rising meanwhile, too."""
    quiet = speech(20, 0.1 * 10 ** (-25 / 20), seed=2) + room(20, noise)
    waveform = np.concatenate([speech(60) + room(60), room(3, 1e-4), quiet, room(3, noise)])
    assert not uncovered(cut_whole(waveform), len(waveform))[63 * RATE : 83 * RATE].any()


def test_silence_alone_gives_no_piece_and_a_short_recording_is_one() -> None:
    assert cut_whole(np.zeros(600 * RATE, np.float32)) == []
    assert cut_whole(np.full(600 * RATE, 0.25, np.float32)) == [], "a dead microphone's offset"
    assert cut_whole(np.zeros(35 * RATE, np.float32)) == []
    assert list(cut([], CONFIG)) == []
    assert [len(piece.waveform) for piece in cut_whole(room(35, 1e-4))] == [35 * RATE]


def test_clicks_in_a_pause_are_silence() -> None:
    pause = room(3)
    pause[RATE + 100 : RATE + 110] = 0.5
    found = spans(cut_whole(np.concatenate([speech(18, seed=1), pause, speech(17, seed=2)])))
    assert len(found) == 2
    assert found[1][0] > 20.6


def test_a_short_faint_sound_is_heard_with_its_nearer_neighbour() -> None:
    """It lies 40 dB below speech."""
    for before, after in [(1.2, 1.9), (1.9, 0.9)]:
        breath = np.concatenate([room(before), room(0.2, 1e-3), room(after)])
        found = spans(cut_whole(np.concatenate([speech(18, seed=1), breath, speech(18, seed=2)])))
        assert len(found) == 2
        sound = 18 + before
        assert any(start <= sound and sound + 0.2 <= end for start, end in found)
        assert found[0][1] > sound if before < after else found[1][0] < sound


def planted(text: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Makes log-probabilities [T', 5] float32 with each label on one or two frames, and three to six blanks between."""
    path = [label for each in text for label in [each] * rng.integers(1, 3) + [0] * rng.integers(3, 7)]
    probs = np.full((len(path), 5), 0.01) + 0.95 * np.eye(5)[path]
    return np.log(probs / probs.sum(1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 10_000))
def test_joining_loses_and_doubles_nothing(seed: int) -> None:
    """Even if each piece is unsure near its ends, and places labels up to one frame apart."""
    rng = np.random.default_rng(seed)
    text = list(rng.integers(1, 5, 200))
    whole = planted(text, rng)
    overlap, length = 40, 160
    pieces, parts = [], []
    for start in range(0, len(whole) - overlap, length - overlap):
        part = np.roll(whole, rng.integers(0, 2), axis=0)[start : start + length + 1].copy()
        part[: 9 if start else 0] = np.log(rng.dirichlet(np.ones(5), 9))[: 9 if start else 0]
        if start + length < len(whole):
            part[-9:] = np.log(rng.dirichlet(np.ones(5), 9))
        pieces.append(Piece(start, overlap if start else 0, np.zeros(0, np.float32)))
        parts.append(part)
    joined = join(pieces, parts)
    assert len(joined) == len(whole)
    assert [span.label for span in greedy_decode(joined)][:-1] == text[:-1]  # a shift may move the last one out


def test_one_piece_is_joined_to_itself() -> None:
    log_probs = planted([1, 2, 3], np.random.default_rng(0))
    np.testing.assert_array_equal(join([Piece(7, 0, np.zeros(9, np.float32))], [log_probs]), log_probs)


@pytest.mark.slow
def test_real_speech_end_to_end(an4_archive: Path) -> None:
    """Every pause of a second is left out except its margins, and everything left out is 15 dB below loud speech."""
    rng = np.random.default_rng(0)
    utterances: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    pauses: list[tuple[int, int]] = []
    with tarfile.open(an4_archive) as archive:
        for member in archive:
            if member.name.endswith(".sph") and len(utterances) < 60:
                stream = archive.extractfile(member)
                assert stream is not None
                utterances.append(np.frombuffer(stream.read()[1024:], "<i2") / np.float32(2**15))
    for utterance in utterances:
        begin = sum(map(len, parts)) + len(utterance)
        parts += [utterance, np.zeros(rng.integers(16_000, 48_000), np.float32)]
        pauses.append((begin, begin + len(parts[-1])))
    waveform = np.concatenate(parts)
    pieces = list(cut(np.array_split(waveform, 99), Config()))
    left_out = np.ones(len(waveform), bool)
    for piece in pieces:
        left_out[piece.start * 320 : piece.start * 320 + len(piece.waveform)] = False
    assert all(left_out[begin + 6_000 : behind - 6_000].all() for begin, behind in pauses)
    power = np.square(waveform[: len(waveform) // 320 * 320]).reshape(-1, 320).mean(1)
    loud = np.quantile(power[power > 0], 0.9)
    assert power[left_out[: len(power) * 320].reshape(-1, 320).all(1)].max() < loud / 10**1.5

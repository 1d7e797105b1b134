"""Decoding in parts gives what decoding the whole gives, and final text is never taken back."""

import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.config import Config, DataConfig
from ds2_jax.decoding.decoder import Decoder, make_decoder
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.decoding.stream import Partial, StreamDecoder
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.beam_models import one_hot, random_log_probs, spoken
from tests.decoding.ngram.test_kenlm_model import CONTENT, WORDS, FakeModel, FakeState
from tests.decoding.test_decoder import ARPA

WITH_SPACE, SPACELESS = Config(data=DataConfig(alphabet="AB ")), Config(data=DataConfig(alphabet="ABC"))
KENLM_ALPHABET = Alphabet("ACEHST ")
PIECES = Config(data=DataConfig(alphabet="AB ", units="unigram ▁:-3 A:-2 B:-2 ▁A:-1 ▁AB:-1 BA:-2"))
BLANK, A, B, SPACE = range(4)
NAMES = ["greedy", "beam", "lm", "closed", "hot", "characters", "characters, closed", "kenlm", "pieces", "pieces, lm"]
Decoders = dict[str, Decoder]


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoders]:
    folder = tmp_path_factory.mktemp("lm")
    lm, characters, kenlm = folder / "lm.arpa", folder / "characters.arpa", folder / "kenlm"
    lm.write_text(ARPA.format(other="BA"))
    characters.write_text(ARPA.format(other="B").replace("AB", "A"))  # C is unknown
    kenlm.write_bytes(CONTENT + WORDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setitem(sys.modules, "kenlm", types.SimpleNamespace(Model=FakeModel, State=FakeState))
        yield {
            "greedy": make_decoder(WITH_SPACE),
            "beam": make_decoder(WITH_SPACE, DecodingOptions(num_best=4, beam_width=8)),
            "lm": make_decoder(WITH_SPACE, DecodingOptions(lm=lm, num_best=4, beam_width=8)),
            "closed": make_decoder(WITH_SPACE, DecodingOptions(lm=lm, closed_vocabulary=True, num_best=4)),
            "hot": make_decoder(WITH_SPACE, DecodingOptions(lm=lm, hot_word=("B A=4", "BB=2"), num_best=4)),
            "characters": make_decoder(SPACELESS, DecodingOptions(lm=characters, num_best=4)),
            "characters, closed": make_decoder(
                SPACELESS, DecodingOptions(lm=characters, closed_vocabulary=True, num_best=4)
            ),
            "pieces": make_decoder(PIECES),
            "pieces, lm": make_decoder(PIECES, DecodingOptions(lm=lm, hot_word=("B A=4",), num_best=4, beam_width=8)),
            "kenlm": make_decoder(
                Config(data=DataConfig(alphabet=KENLM_ALPHABET.characters)),
                DecodingOptions(lm=kenlm, alpha=2.0, num_best=4, beam_width=8),
            ),
        }


def alphabet_of(name: str) -> Alphabet:
    """Returns the alphabet of a decoder."""
    if name == "kenlm":
        return KENLM_ALPHABET
    return Alphabet.of((PIECES if "pieces" in name else SPACELESS if "characters" in name else WITH_SPACE).data)


@st.composite
def utterances(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    """Draws a decoder's name and log-probabilities: drawn texts or noise, repeated frames, silence, and ties."""
    name = draw(st.sampled_from(NAMES))
    alphabet = alphabet_of(name)
    seed, peak = draw(st.integers(0, 10_000)), draw(st.floats(0.1, 8))
    if draw(st.booleans()):
        labels = draw(st.lists(st.integers(1, alphabet.size - 1), min_size=1, max_size=20))
        log_probs = spoken(labels, alphabet, peak, seed)
    else:
        log_probs = random_log_probs(draw(st.integers(1, 10)), alphabet.size, seed, peak)
        log_probs = log_probs[draw(st.lists(st.integers(0, len(log_probs) - 1), max_size=40))]
    return name, log_probs.round() if draw(st.booleans()) else log_probs


def parts(log_probs: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    """Cuts an utterance into parts of these sizes and the rest."""
    start = 0
    for size in sizes:
        yield log_probs[start : start + size]
        start += size
    yield log_probs[start:]


def read_all(stream: StreamDecoder, log_probs: np.ndarray) -> list[Partial]:
    """Reads frame by frame; returns the text after each."""
    partials = []
    for frame in log_probs:
        stream.read(frame[None])
        partials.append(stream.partial())
    return partials


@given(utterances(), st.lists(st.integers(0, 6), max_size=30), st.sampled_from([None, 0.3, 2.0]), st.booleans())
def test_parts_of_any_size_give_what_the_whole_gives(
    decoders: Decoders, utterance: tuple[str, np.ndarray], sizes: list[int], duration: float | None, show: bool
) -> None:
    name, log_probs = utterance
    stream = decoders[name].start()
    for part in parts(log_probs, sizes):
        stream.read(part)
        if show:
            stream.partial()
    assert stream.finish(duration) == decoders[name](log_probs, duration)


@given(utterances(), st.integers(0, 40))
def test_a_reading_on_the_way_is_that_of_the_frames_so_far(
    decoders: Decoders, utterance: tuple[str, np.ndarray], num_read: int
) -> None:
    name, log_probs = utterance
    decoder = decoders[name]
    stream = decoder.start()
    stream.read(log_probs[:num_read])
    assert stream.reading() == decoder(log_probs[:num_read])[0]
    stream.read(log_probs[num_read:])
    assert stream.finish() == decoder(log_probs)


@given(utterances())
def test_final_text_only_grows_and_begins_all_later_text(decoders: Decoders, utterance: tuple[str, np.ndarray]) -> None:
    name, log_probs = utterance
    stream = decoders[name].start()
    final = ""
    for partial in read_all(stream, log_probs):
        assert partial.final.startswith(final)
        whole = partial.final + partial.open
        assert whole == " ".join(whole.split())
        final = partial.final
        assert final == final.rstrip()
    text = stream.finish()[0].text
    assert text.startswith(final) or ("closed" in name and text == "")


@pytest.mark.parametrize("name", NAMES[:6])
def test_where_outputs_are_clear_text_is_final_at_once(decoders: Decoders, name: str) -> None:
    config = SPACELESS if name == "characters" else WITH_SPACE
    frames = [A, A, BLANK, B, *([BLANK] if name == "characters" else [SPACE, SPACE]), B, A, BLANK]
    partials = read_all(decoders[name].start(), one_hot(frames, 1 + len(config.data.alphabet)))
    middle = "" if name == "characters" else " "
    finals = ["A", "A", "A", "AB", "AB", *(["AB"] if middle else []), f"AB{middle}B", *[f"AB{middle}BA"] * 2]
    assert partials == [Partial(final, "") for final in finals]


@given(st.lists(st.integers(0, 3), max_size=30))
def test_greedy_text_is_final(decoders: Decoders, frames: list[int]) -> None:
    stream = decoders["greedy"].start()
    log_probs = one_hot(frames, 4).reshape(-1, 4)
    for count, partial in enumerate(read_all(stream, log_probs), start=1):
        labels = [span.label for span in greedy_decode(log_probs[:count])]
        assert partial == Partial(" ".join(Alphabet("AB ").decode(labels).split()), "")


def test_what_is_undecided_is_open(decoders: Decoders) -> None:
    log_probs = np.log(np.array([[0, 1, 0, 0], [0, 0, 0, 1], [0, 0.4, 0.6, 0]], np.float32) + 1e-30)
    stream = decoders["beam"].start()
    assert read_all(stream, log_probs) == [Partial("A", ""), Partial("A", ""), Partial("A", " B")]
    assert read_all(stream, one_hot([BLANK, B], 4)) == [Partial("A", " B"), Partial("A", " BB")]
    assert [each.text for each in stream.finish()] == ["A BB", "A AB"]


def test_a_word_that_may_go_on_is_shown(decoders: Decoders) -> None:
    log_probs = np.log(np.array([[0.01, 0.97, 0.01, 0.01]], np.float32))
    stream = decoders["closed"].start()
    stream.read(log_probs)
    partial = stream.partial()
    assert partial.final + partial.open == "A"  # no word, but AB is one


def test_when_no_text_is_possible_in_the_end_final_text_stays_and_the_hypothesis_is_empty(decoders: Decoders) -> None:
    stream = decoders["closed"].start()
    assert read_all(stream, one_hot([A, B, SPACE, B], 4))[-1] == Partial("AB B", "")
    (found,) = stream.finish()
    assert found.text == ""
    stream = decoders["beam"].start()
    stream.read(one_hot([A, B], 4))
    assert stream.partial() == Partial("AB", "")
    stream.read(np.full((1, 4), -np.inf, np.float32))
    assert stream.partial() == Partial("AB", "")


@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 4), max_size=10))
def test_blanks_at_the_end_and_text_are_known(decoders: Decoders, frames: list[int], sizes: list[int]) -> None:
    for name in ("greedy", "beam"):
        stream = decoders[name].start()
        assert (stream.trailing_blanks, stream.has_text) == (0, False)
        count = 0
        for part in parts(one_hot(frames, 4).reshape(-1, 4), sizes):
            stream.read(part)
            count += len(part)
            read = frames[:count]
            blanks = next((place for place, label in enumerate(reversed(read)) if label != BLANK), len(read))
            assert stream.trailing_blanks == blanks
            assert stream.has_text == bool({A, B} & set(read))


@pytest.mark.parametrize("name", NAMES)
def test_streams_of_one_decoder_run_side_by_side(decoders: Decoders, name: str) -> None:
    decode = decoders[name]
    alphabet = alphabet_of(name)
    letters = alphabet.characters
    heard = [spoken("".join(np.random.default_rng(seed).choice([*letters], 20)), alphabet, 3.0) for seed in range(3)]
    alone = [decode(log_probs) for log_probs in heard]
    texts = [read_all(decode.start(), log_probs) for log_probs in heard]
    streams: list[StreamDecoder] = []
    shown: list[list[Partial]] = [[], [], []]
    for turn in range(len(heard[0]) + 10):
        for late in range(3):
            if turn == 5 * late:
                streams.append(decode.start())
            if turn >= 5 * late:
                shown[late] += read_all(streams[late], heard[late][turn - 5 * late :][:1])
    assert shown == texts
    assert [stream.finish() for stream in streams] == alone


def test_frames_that_are_no_numbers_are_not_read(decoders: Decoders) -> None:
    stream = decoders["beam"].start()
    stream.read(one_hot([A, BLANK], 4))
    with pytest.raises(InputError, match="The model's output must be numbers below infinity, got nan in frame 1 of 2"):
        stream.read(np.array([[0, -1, -1, -1], [0, np.nan, 0, 0]], np.float32))
    assert (stream.partial(), stream.trailing_blanks) == (Partial("A", ""), 1)
    stream.read(one_hot([B], 4))
    assert stream.finish() == decoders["beam"](one_hot([A, BLANK, B], 4))


def test_the_caller_may_use_its_array_again(decoders: Decoders) -> None:
    log_probs = one_hot([A, BLANK, B], 4)
    stream = decoders["greedy"].start()
    stream.read(log_probs)
    log_probs[:] = 0
    assert stream.finish()[0].text == "AB"


def test_a_finished_utterance_is_over(decoders: Decoders) -> None:
    for name in ("greedy", "beam"):
        stream = decoders[name].start()
        (empty,) = stream.finish()
        assert empty.text == ""
        with pytest.raises(AssertionError, match="the utterance is finished"):
            stream.read(one_hot([A], 4))
        with pytest.raises(AssertionError, match="the utterance is finished"):
            stream.finish()

"""Scores equal stored scores of KenLM and the definition of backing off."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.ngram.arpa import SPECIALS, read_arpa
from ds2_jax.decoding.ngram.language_model import WordScore
from ds2_jax.decoding.ngram.model import NGramModel, load
from ds2_jax.decoding.ngram.trie import build, next_word
from ds2_jax.system.errors import InputError
from tests.decoding.ngram.test_arpa import HAND_LISTED, Listed
from tests.golden import ngram_inputs
from tests.golden.ngram_inputs import HAND, NGram

WORDS = ("<unk>", "<s>", "</s>", "a", "b", "c")


def make(folder: Path, text: str) -> NGramModel:
    path = folder / "model.arpa"
    path.write_text(text, encoding="utf-8")
    arpa = read_arpa(path)
    return NGramModel(arpa.words[: -len(SPECIALS)], *build(arpa))


def written(listed: Listed, order: int) -> str:
    sections = [[words for words in listed if len(words) == length] for length in range(1, order + 1)]
    counts = [f"ngram {length}={len(section)}" for length, section in enumerate(sections, start=1)]
    lines = ["\\data\\", *counts]
    for length, section in enumerate(sections, start=1):
        lines.append(f"\\{length}-grams:")
        for words in section:
            log10, backoff = listed[words]
            lines.append("\t".join([repr(log10), " ".join(words), *([repr(backoff)] if backoff else [])]))
    return "\n".join([*lines, "\\end\\"])


def defined(listed: Listed, context: NGram, word: str) -> float:
    """Returns the listed log-probability, or backs off to a shorter context and adds the longer one's weight."""
    if (*context, word) in listed:
        return listed[(*context, word)][0]
    _, weight = listed.get(context, (0, 0))
    return weight + defined(listed, context[1:], word)


def defined_scores(listed: Listed, order: int, words: NGram) -> list[float]:
    """Returns the log10 probability of each word after the words before it."""
    known = [word if (word,) in listed else "<unk>" for word in words]
    contexts = [tuple(known[max(0, index - order + 1) : index]) for index in range(len(known))]
    return [defined(listed, context, word) for context, word in zip(contexts, known, strict=True)]


@st.composite
def listings(draw: st.DrawFn) -> tuple[Listed, int]:
    """Draws any n-grams with any numbers: beginnings and ends may be missing, and weights may be above 1."""
    order = draw(st.integers(1, 4))
    numbers = st.integers(-64, 0).map(lambda n: n / 16)  # exact in float32, and so are their sums
    weights = st.integers(-8, 4).map(lambda n: n / 16) | st.just(0.0)
    longer = st.lists(st.sampled_from(WORDS), min_size=2, max_size=order).map(tuple)
    ngrams = {(word,): None for word in WORDS} | dict.fromkeys(draw(st.lists(longer, max_size=25)) if order > 1 else [])
    return {words: (draw(numbers), draw(weights) if len(words) < order else 0.0) for words in ngrams}, order


@pytest.mark.parametrize("name", ngram_inputs.models())
def test_scores_are_kenlms(name: str, tmp_path: Path) -> None:
    model = make(tmp_path, ngram_inputs.models()[name])
    with np.load(Path(__file__).parents[2] / "golden" / "ngram.npz") as stored:
        kenlms = {key.partition("/")[2]: stored[key] for key in stored if key.startswith(f"{name}/")}
    sentences = ngram_inputs.sentences(name)
    words = [word for sentence in sentences for word in model.word_scores(sentence)]
    np.testing.assert_allclose([word.log10 for word in words], kenlms["log10"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal([word.unknown for word in words], kenlms["unknown"])
    np.testing.assert_allclose([model.score(each) for each in sentences], kenlms["totals"], rtol=0, atol=1e-4)
    bare = [model.score(each, begin=False, end=False) for each in sentences]
    np.testing.assert_allclose(bare, kenlms["bare_totals"], rtol=0, atol=1e-4)


@given(listing=listings(), sentence=st.lists(st.sampled_from((*WORDS, "zebra")), max_size=12).map(tuple))
def test_scores_are_those_of_the_definition(
    listing: tuple[Listed, int], sentence: NGram, tmp_path_factory: pytest.TempPathFactory
) -> None:
    listed, order = listing
    model = make(tmp_path_factory.mktemp("model"), written(listed, order))
    scores = [word.log10 for word in model.word_scores(sentence)]
    assert scores == defined_scores(listed, order, ("<s>", *sentence, "</s>"))[1:]
    scores = [word.log10 for word in model.word_scores(sentence, begin=False, end=False)]
    assert scores == defined_scores(listed, order, sentence)


@given(listing=listings())
def test_equal_states_have_equal_futures_and_needless_ones_are_none(
    listing: tuple[Listed, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A state is the shortest suffix of a context that gives all future words the same scores as the context."""
    listed, order = listing
    model = make(tmp_path_factory.mktemp("model"), written(listed, order))
    begins = {words[:length] for words in listed for length in range(1, len(words))}
    weighty = {words for words, (_, weight) in listed.items() if weight}
    states: dict[NGram, int] = {}
    for context in itertools.product(WORDS, repeat=min(order, 3)):
        ends = (context[first:] for first in range(max(0, len(context) - order + 1), len(context) + 1))
        kept = next(end for end in ends if not end or end in begins or end in weighty)
        state = 0
        for word in context:
            _, state = model.next_word(state, word)
        assert states.setdefault(kept, state) == state
    assert len(set(states.values())) == len(states)


def test_probabilities_of_all_words_sum_to_one(tmp_path: Path) -> None:
    """The model's weights are chosen for this, and the ends of some n-grams are not listed."""
    rng = np.random.default_rng(0)
    words = ["</s>", "<unk>", *"abcdefgh"]
    listed: Listed = {(word,): (math.log10(p), 0.0) for word, p in zip(words, rng.dirichlet(np.ones(10)), strict=True)}
    listed["<s>",] = (-99, 0.0)
    for order in (2, 3, 4):
        contexts = [each for each in listed if len(each) == order - 1 and each[-1] != "</s>"]
        for context in contexts:
            followers = rng.choice(words, size=rng.integers(1, 4), replace=False).tolist()
            left_below = 1 - sum(10 ** defined(listed, context[1:], word) for word in followers)
            shares = rng.dirichlet(np.ones(len(followers) + 1))
            for word, share in zip(followers, shares[1:], strict=True):
                listed[(*context, word)] = (math.log10(share), 0.0)
            listed[context] = (listed[context][0], math.log10(shares[0] / left_below))
    model = make(tmp_path, written(listed, 4))
    for _ in range(200):
        state = model.begin_state
        for word in rng.choice([*words[1:], "zebra"], size=rng.integers(0, 6)).tolist():
            _, state = model.next_word(state, word)
        assert sum(10 ** model.next_word(state, word)[0] for word in words) == pytest.approx(1, abs=1e-5)


def test_word_ids_and_states(tmp_path: Path) -> None:
    model = make(tmp_path, HAND)
    assert model.order == 3
    assert model.vocabulary == ("CAT", "SAT", "THE")
    assert [model.word_id(word) for word in ("CAT", "SAT", "THE", "<s>", "</s>", "<unk>", "cat")] == [
        0,
        1,
        2,
        3,
        4,
        5,
        5,
    ]
    assert (model.begin_word, model.end_word, model.unknown_word) == (3, 4, 5)
    for word, number in model.word_ids.items():
        assert model.arrays.log10[1 + number] == np.float32(HAND_LISTED[word,][0])
        assert next_word(model.arrays, model.begin_state, number) == model.next_word(model.begin_state, word)


def test_scores_of_words(tmp_path: Path) -> None:
    model = make(tmp_path, HAND)
    assert model.word_scores("THE CAT SAT") == [
        WordScore(-0.25, 2, False),
        WordScore(-0.0625, 3, False),
        WordScore(-0.03125, 3, False),
        WordScore(-0.875, 2, False),
    ]
    assert model.word_scores("DOG", end=False) == [WordScore(-0.5 - 1.25, 1, True)]
    assert model.score("THE CAT SAT") == -0.25 - 0.0625 - 0.03125 - 0.875
    assert model.score("  THE\n\tCAT ") == model.score(["THE", "CAT"]) == -0.25 - 0.0625 - 0.0625 + 0.125 - 0.75
    assert model.score("") == -0.5 - 0.75
    assert model.score("", begin=False, end=False) == 0


def test_characters_are_scored_one_by_one(tmp_path: Path) -> None:
    model = make(tmp_path, ngram_inputs.models()["characters"])
    assert model.score([*"山のねなに"]) == model.score("山 の ね な に")
    assert not any(score.unknown for score in model.word_scores([*"山のねなに"]))
    assert model.word_scores("山の", end=False)[0].unknown


def test_perplexity(tmp_path: Path) -> None:
    model = make(tmp_path, HAND)
    assert model.perplexity(["THE CAT SAT", ""]) == pytest.approx(10 ** ((1.21875 + 1.25) / 5))
    with pytest.raises(InputError, match=r"The text must hold a sentence, got none\. Name another file\."):
        model.perplexity([])


def test_a_file_is_read_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.txt"
    path.write_text(HAND)
    model = load(path)
    assert isinstance(model, NGramModel)
    assert model.score("THE CAT SAT") == make(tmp_path, HAND).score("THE CAT SAT")
    with pytest.raises(
        InputError, match=r"nowhere\.arpa must be readable, got: No such file or directory\. Correct this or"
    ):
        load(tmp_path / "nowhere.arpa")
    with pytest.raises(InputError, match="must be readable, got: Is a directory"):
        load(tmp_path)

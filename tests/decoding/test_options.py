"""The decoding options of `evaluate` and `transcribe`, and the errors for values out of range."""

import math
from pathlib import Path
from typing import Any

import pytest
import tyro

from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.system.errors import InputError

LM = Path("model.arpa")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_width": 0}, "--beam-width must be 1 to 65536, got 0."),
        ({"beam_width": 10**9}, "--beam-width must be 1 to 65536, got 1000000000."),
        ({"num_best": 10**9}, "--num-best must be at most 65536, got 1000000000."),
        ({"beam_threshold": 0.0}, "--beam-threshold must be above 0, got 0.0."),
        ({"beam_threshold": math.nan}, "--beam-threshold must be above 0, got nan."),
        ({"max_labels": 0}, "--max-labels must be at least 1, got 0."),
        ({"label_threshold": 0.5}, "--label-threshold must be at most 0, got 0.5."),
        ({"lm": LM, "alpha": -0.1}, "--alpha must be 0 to 1000, got -0.1."),
        ({"lm": LM, "alpha": math.inf}, "--alpha must be 0 to 1000, got inf."),
        ({"lm": LM, "alpha": math.nan}, "--alpha must be 0 to 1000, got nan."),
        ({"lm": LM, "beta": math.nan}, "--beta must be -1000 to 1000, got nan."),
        ({"lm": LM, "alpha": 1e308}, "--alpha must be 0 to 1000, got 1e+308."),
        ({"lm": LM, "beta": -1e308}, "--beta must be -1000 to 1000, got -1e+308."),
        ({"alpha": 0.5}, "--alpha must be used with a language model, got 0.5. Add --lm FILE."),
        ({"beta": 0.0}, "--beta must be used with a language model, got 0.0. Add --lm FILE."),
        (
            {"closed_vocabulary": True},
            "--closed-vocabulary must be used with a language model, got True. Add --lm FILE.",
        ),
        ({"unknown_penalty": -1.0}, "--unknown-penalty must be 0 to 1000, got -1.0."),
        ({"unknown_penalty": math.inf}, "--unknown-penalty must be 0 to 1000, got inf."),
        ({"num_best": 0}, "--num-best must be at least 1, got 0."),
        (
            {"num_best": 9, "beam_width": 8},
            "--num-best must be at most the beam's width, got 9. Widen the beam: --beam-width 9.",
        ),
        (
            {"hot_word": ("NEW YORK",)},
            "--hot-word must be WORD=BOOST, with the boost in nats, got 'NEW YORK'. Try --hot-word 'NEW YORK=3'.",
        ),
        (
            {"hot_word": ("YORK=much",)},
            "--hot-word must be WORD=BOOST, with the boost in nats, got 'YORK=much'. Try --hot-word YORK=3.",
        ),
        (
            {"hot_word": ("",)},
            "--hot-word must be WORD=BOOST, with the boost in nats, got ''. Try --hot-word WORD=3.",
        ),
        ({"hot_word": ("=2",)}, "--hot-word must be WORD=BOOST, got '=2'."),
        ({"hot_word": ("A=2", "A=3")}, "--hot-word must name each word once, got 'A=2, A=3'."),
    ],
)
def test_options_out_of_range_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        DecodingOptions(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("words", "beam"),
    [
        ((), False),
        (("--lm", "model.arpa"), True),
        (("--hot-word", "NEW YORK=2", "--hot-word", "YORK=-1.5"), True),
        (("--num-best", "3"), True),
        (("--beam-width", "8"), True),
        (("--beam-threshold", "8"), False),
    ],
)
def test_what_needs_a_beam_asks_for_one(words: tuple[str, ...], beam: bool) -> None:
    options = tyro.cli(DecodingOptions, args=words)
    assert options.beam == beam
    assert options.hot_words == ({"NEW YORK": 2.0, "YORK": -1.5} if "--hot-word" in words else {})
    assert options.width == (8 if "--beam-width" in words else 128)


def test_options_are_told_in_a_line() -> None:
    assert str(DecodingOptions()) == "greedy"
    assert str(DecodingOptions(lm=Path("a.arpa"), alpha=0.7, beam_width=64)) == (
        "beam search, lm a.arpa, alpha 0.7, beam width 64"
    )

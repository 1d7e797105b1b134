"""The model `spelling` of the package, on speech and sounds that it was not trained on."""

import functools
import random
from pathlib import Path

import numpy as np
import pytest

import ds2_jax
from ds2_jax.audio import made_noise
from ds2_jax.corpora import an4, spelling, synthetic
from ds2_jax.data.manifest import read_manifest
from ds2_jax.evaluation.error_rates import ErrorCount, word_errors
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.runs.named import find_model
from tests.decoding.test_decoder import ARPA

RATE = 16_000


@functools.cache
def model() -> Recogniser:
    return ds2_jax.load("spelling")


def test_it_is_small_and_its_card_and_notice_lie_beside_it() -> None:
    file = find_model(Path("spelling"))
    assert file.stat().st_size <= 4.1e6  # a wheel compresses it to less than 4 MB
    assert "Carnegie Mellon University" in file.with_name("AN4-LICENSE").read_text()
    card = file.with_suffix(".md").read_text()
    assert "AN4-LICENSE" in card
    assert "# spelling\n" in card
    assert "transcribe spelling recording.wav" in card
    assert "<!--" not in card  # nothing is left to fill in


def test_messages_call_it_by_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lm.arpa").write_text(ARPA.format(other="ONE"))
    with caplog.at_level("INFO"):
        ds2_jax.load("spelling", lm=tmp_path / "lm.arpa")
    assert "lm tune spelling --lm" in caplog.text


def test_it_can_stream() -> None:
    assert model().streams.steps
    stream = model().stream(RATE)
    assert stream.feed(np.zeros(RATE, np.float32)) == stream.finish() == []


def test_it_knows_the_nine_speakers_that_it_was_trained_without(an4_archive: Path, tmp_path: Path) -> None:
    utterances = read_manifest(an4.prepare(tmp_path, an4_archive) / "test.jsonl")
    texts = [model().transcribe(utterance.audio).text for utterance in utterances]
    errors = [word_errors(utterance.transcript, text) for utterance, text in zip(utterances, texts, strict=True)]
    assert sum(errors, ErrorCount()).rate < 0.15


def test_it_knows_voices_that_it_has_not_heard() -> None:
    errors = ErrorCount()
    for voice in synthetic.VOICES["test"]:
        rng = random.Random(f"unheard {voice}")
        prompts = [synthetic.prompt(rng, spelling.sentence(rng)) for _ in range(12)]
        for prompt, waveform in zip(prompts, synthetic.speak(voice, prompts), strict=True):
            errors += word_errors(prompt.transcript, model().transcribe(waveform, RATE).text)
    assert errors.rate < 0.27


@pytest.mark.parametrize("kind", made_noise.KINDS)
def test_it_writes_nothing_where_nobody_speaks(kind: str) -> None:
    texts = []
    for seed in range(20):
        rng = np.random.default_rng(1000 + seed)
        piece = made_noise.with_level(made_noise.KINDS[kind](10 * RATE, rng), 10 ** rng.uniform(-2.5, -0.75))
        texts.append(model().transcribe(piece, RATE).text)
    assert texts.count("") >= 19, texts

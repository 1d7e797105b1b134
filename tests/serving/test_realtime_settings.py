"""Settings of a Realtime session: what an update changes, what is in effect, and that nothing else is raised."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.recognition.endpoints import ENDPOINTS, Endpoints
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.realtime_settings import LOGPROBS, ServerVad, Settings

PLAIN = Settings("m")
NAMES = st.sampled_from(
    "type audio input format rate transcription model prompt keywords turn_detection silence_duration_ms threshold "
    "prefix_padding_ms include input_audio_format input_audio_transcription noise_reduction".split()
)
WORDS = st.sampled_from(["transcription", "audio/pcm", "audio/pcmu", "pcm16", "server_vad", "semantic_vad", LOGPROBS])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | WORDS
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))


def updated(before: Settings = PLAIN, **inputs: Any) -> Settings:
    return before.updated({"audio": {"input": inputs}})


def test_an_update_changes_only_what_it_names() -> None:
    changes: dict[str, Any] = {
        "model": "n",
        "audio_format": "audio/pcma",
        "vad": None,
        "prompt": "one",
        "keywords": ("two",),
        "logprobs": True,
    }
    updates: dict[str, Any] = {
        "model": {"audio": {"input": {"transcription": {"model": "n"}}}},
        "audio_format": {"audio": {"input": {"format": {"type": "audio/pcma"}}}},
        "vad": {"audio": {"input": {"turn_detection": None}}},
        "prompt": {"audio": {"input": {"transcription": {"prompt": "one", "keywords": None, "delay": "low"}}}},
        "keywords": {"audio": {"input": {"transcription": {"keywords": ["two"], "language": "en"}}}},
        "logprobs": {"include": [LOGPROBS, "another"]},
    }
    all_ = Settings(**changes)
    for name, update in updates.items():
        assert PLAIN.updated(update) == Settings(**{"model": "m", name: changes[name]})
        if name != "prompt":  # it also empties the keywords
            assert all_.updated(update) == all_
    assert all_.updated({}) == all_.updated({"audio": None}) == all_.updated(None) == all_


@pytest.mark.parametrize(
    ("given_", "effect"),
    [
        ({"type": "server_vad"}, ServerVad(500, 300)),
        ({"type": "semantic_vad", "eagerness": "low"}, ServerVad(500, 300)),
        ({"silence_duration_ms": 1000.7, "threshold": 0.9}, ServerVad(1000, 300)),
        ({"silence_duration_ms": 0, "prefix_padding_ms": 0}, ServerVad(100, 0)),
        ({"silence_duration_ms": float("inf"), "prefix_padding_ms": 10**400}, ServerVad(10_000, 10_000)),
        ({"silence_duration_ms": None}, ServerVad(500, 300)),
    ],
)
def test_turn_detection_is_what_is_in_effect(given_: dict[str, Any], effect: ServerVad) -> None:
    assert updated(turn_detection=given_).vad == effect


def test_a_turn_ends_at_its_pause_or_where_the_stream_would_anyway() -> None:
    assert updated(turn_detection=None).endpoints == ENDPOINTS
    assert updated(turn_detection={"silence_duration_ms": 500}).endpoints == Endpoints(pause=0.5)
    assert updated(turn_detection={"silence_duration_ms": 2000}).endpoints == Endpoints(pause=2.0, no_labels=4.0)


def test_a_value_too_deep_to_be_shown_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(
        RequestError, match=r"^session must be an object, got a list that is nested too deeply\. Correct"
    ):
        PLAIN.updated(deep)


INPUTS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "format": JSON | st.fixed_dictionaries({"type": JSON, "rate": JSON | st.just(24_000)}),
        "transcription": JSON | st.fixed_dictionaries({"prompt": JSON, "keywords": JSON | st.lists(st.text())}),
        "turn_detection": JSON | st.fixed_dictionaries({"silence_duration_ms": JSON, "prefix_padding_ms": JSON}),
    },
)


@given(JSON | INPUTS.map(lambda inputs: {"audio": {"input": inputs}}))
def test_any_update_is_taken_or_refused(session: Any) -> None:
    try:
        settings = PLAIN.updated(session)
    except RequestError as error:
        problem = error
    else:
        for beta in (False, True):
            described = settings.described("s", beta=beta)
            assert settings.updated(described) == settings  # what is shown is what is in effect
        return
    assert problem.status == 400
    assert problem.message.startswith(f"{problem.param} must ")

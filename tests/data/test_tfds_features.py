"""Finding the features of a TFDS set that hold the audio and the transcript."""

import re
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ds2_jax.data.tfds import Features, find_features
from ds2_jax.system.errors import InputError


def spec(**features: Any) -> tfds.features.FeaturesDict:
    kinds = {
        "audio": lambda: tfds.features.Audio(sample_rate=8_000),
        "rateless": tfds.features.Audio,
        "text": tfds.features.Text,
        "bytes": lambda: tfds.features.Tensor(shape=(), dtype=np.object_),
        "label": lambda: tfds.features.ClassLabel(names=["f", "m"]),
        "str": lambda: np.str_,
        "int": lambda: np.int64,
    }
    return tfds.features.FeaturesDict({name: kinds[kind]() for name, kind in features.items()})


@pytest.mark.parametrize(
    ("features", "supervised", "expected"),
    [
        (  # librispeech
            {"speech": "audio", "text": "text", "speaker_id": "int", "chapter_id": "int", "id": "str"},
            ("speech", "text"),
            Features("speech", "text", "id", "speaker_id", 8_000),
        ),
        (  # ljspeech
            {"id": "str", "speech": "audio", "text": "text", "text_normalized": "text"},
            ("text_normalized", "speech"),
            Features("speech", "text_normalized", "id", "", 8_000),
        ),
        (  # common_voice, with a sample rate
            {
                "client_id": "text",
                "age": "text",
                "gender": "label",
                "accent": "text",
                "sentence": "text",
                "voice": "audio",
            },
            None,
            Features("voice", "sentence", "", "client_id", 8_000),
        ),
        (  # vctk
            {"id": "str", "speech": "audio", "text": "text", "speaker": "label", "gender": "label"},
            ("text", "speech"),
            Features("speech", "text", "id", "speaker", 8_000),
        ),
        ({"audio": "bytes", "text": "text", "id": "text"}, None, Features("audio", "text", "id", "", None)),
        ({"sound": "audio", "said": "text"}, None, Features("sound", "said", "", "", 8_000)),
    ],
)
def test_features_of_published_sets(
    features: dict[str, str], supervised: tuple[str, str] | None, expected: Features
) -> None:
    assert find_features(spec(**features), supervised, "tfds:x#y") == expected


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"audio": "audio", "labels": "label"}, "must have one feature that is the transcript, got none among "),
        (
            {"text": "text", "id": "str"},
            "must have one feature that is the audio, got none among text (Text), id (Tensor)",
        ),
        (
            {"left": "audio", "right": "audio", "text": "text"},
            "must have one feature that is the audio, got left and right among left (Audio), right (Audio), ",
        ),
        (
            {"audio": "audio", "said": "text", "meant": "text"},
            "must have one feature that is the transcript, got said and meant among ",
        ),
        (
            {"audio": "rateless", "text": "text"},
            ": the feature audio must state its sample rate, got none. Prepare the set again with "
            "features.Audio(sample_rate=...).",
        ),
    ],
)
def test_features_that_are_not_clear_are_listed(features: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=f"^tfds:x#y ?{re.escape(message)}"):
        find_features(spec(**features), None, "tfds:x#y")

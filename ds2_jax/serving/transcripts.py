"""Writes transcripts as OpenAI's API answers."""

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition.transcript import Segment, Transcript

LEAST = 1e-10
"""The smallest confidence, so that its logarithm is finite."""


def usage(transcript: Transcript) -> dict[str, Any]:
    """States how much audio was recognised."""
    return {"type": "duration", "seconds": round(transcript.duration, 3)}


def logprobs(words: Iterable[Word], first: bool = True) -> list[dict[str, Any]]:
    """Lists words as tokens with their log-probabilities.

    Args:
        words: the words.
        first: whether the first word begins the text; every other token begins with a space.
    """
    tokens = []
    for index, word in enumerate(words):
        token = word.text if first and not index else f" {word.text}"
        tokens.append({"token": token, "logprob": _log(word.confidence), "bytes": list(token.encode())})
    return tokens


def verbose(transcript: Transcript, language: str | None, granularities: Sequence[str]) -> dict[str, Any]:
    """Writes the format verbose_json. Words have a confidence, which OpenAI's lack.

    Args:
        transcript: what was recognised.
        language: what the request says; the model does not recognise it.
        granularities: word, segment or both.
    """
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": language or "unknown",
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "usage": usage(transcript),
    }
    if "word" in granularities:
        answer["words"] = [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": round(word.confidence, 4),
            }
            for word in transcript.words
        ]
    if "segment" in granularities:
        spoken = [each for each in transcript.segments if each.readings[0].text]
        answer["segments"] = [_segment(index, each) for index, each in enumerate(spoken)]
    return answer


def _segment(index: int, segment: Segment) -> dict[str, Any]:
    """Writes a segment. OpenAI's clients require the fields of Whisper, which here mean little."""
    best = segment.readings[0]
    content = best.text.encode()
    logs = [_log(word.confidence) for word in best.words]
    return {
        "id": index,
        "seek": 0,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": best.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logs) / len(logs), 4) if logs else 0.0,
        "compression_ratio": round(len(content) / len(zlib.compress(content)), 4),
        "no_speech_prob": 0.0,
        "confidence": round(best.confidence, 4),
    }


def _log(confidence: float) -> float:
    return round(math.log(max(confidence, LEAST)), 4)

"""A child process that measures how far the text of live recognition is behind the speech of a split.

The recordings are fed as several microphones would give them, in chunks, but without waiting: what a user would wait
for the speech itself follows from the times of the samples, and what they would wait for the computer is timed.
"""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ds2_jax.bench import child
from ds2_jax.corpora import split_manifests
from ds2_jax.data.splits import read_split
from ds2_jax.decoding.hypothesis import Word
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import Event, FinalText, PartialText, Stream
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

CHUNK_SECONDS = 0.02
SILENCE_SECONDS = 2.0
"""Digital silence behind each recording, in which its segment ends."""


class Shown(NamedTuple):
    """A text that a user sees.

    Attributes:
        words: its words.
        heard: seconds of the recording that had been heard.
        computing: seconds that the chunk took.
        is_final: whether a segment has ended.
    """

    words: list[str]
    heard: float
    computing: float
    is_final: bool


def measure(run: str, manifest: str | None, lm: str | None, num_streams: int) -> dict[str, Any]:
    """Recognises a split, `num_streams` recordings at once, with a language model if `lm` names one.

    Returns:
        seconds behind the speech by what they are (`first`: the first partial text after the first word's start;
        `words`: each right word after its end; `final`: the final text after the last word's end), each as
        `heard` and `computing`; `endpoint`, seconds of computing of the chunks in which a segment ended; and
        `unstable`, the share of shown words that changed later.

    Raises:
        InputError: the run has no test split, or it cannot be read.
    """
    recogniser = Recogniser(Path(run), DecodingOptions(Path(lm)) if lm else GREEDY)
    config = recogniser.config
    path = Path(manifest) if manifest else split_manifests(config.data, build=False).test
    if path is None:
        raise InputError("--manifest must be given, got none: the run names no data.test. Add --manifest FILE.")
    split = read_split(path, config, Alphabet.of(config.data), prune=False)
    rate = config.features.sample_rate
    found: dict[str, list[tuple[float, float]]] = {"first": [], "words": [], "final": []}
    endpoints, changed, num_words = [], 0, 0
    waveforms = (each.read(rate) for each in split.utterances)
    _shown(recogniser, [np.zeros(rate, np.float32)] * num_streams)  # the first step of a size may compile
    while group := list(itertools.islice(waveforms, num_streams)):
        for waveform, shown in zip(group, _shown(recogniser, group), strict=True):
            finals = [each for each in shown if each.is_final]
            endpoints += [each.computing for each in finals]
            partials = [each for each in shown if not each.is_final and each.words]
            text = " ".join(word for each in finals for word in each.words)
            if not text:
                continue
            words = recogniser.align(waveform, text, rate).words
            if partials:
                found["first"].append((partials[0].heard - words[0].start, partials[0].computing))
            found["final"].append((finals[-1].heard - words[-1].end, finals[-1].computing))
            if len(finals) == 1:
                own, unstable = _words(words, partials, finals[0])
                found["words"] += own
                changed += unstable
                num_words += len(words)
    return {
        **found,
        "endpoint": endpoints,
        "unstable": changed / max(num_words, 1),
        "utterances": len(split.utterances),
    }


def _shown(recogniser: Recogniser, waveforms: list[np.ndarray]) -> list[list[Shown]]:
    """Feeds waveforms with silence behind them, all at once, chunk by chunk."""
    rate = recogniser.config.features.sample_rate
    size = round(CHUNK_SECONDS * rate)
    streams = [recogniser.stream() for _ in waveforms]
    padded = [np.pad(each, (0, round(SILENCE_SECONDS * rate))) for each in waveforms]
    shown: dict[Stream, list[Shown]] = {stream: [] for stream in streams}

    def note(events: dict[Stream, list[Event]], seconds: float) -> None:
        for stream, own in events.items():
            for event in own:
                is_final = isinstance(event, FinalText)
                text = event.final + event.open if isinstance(event, PartialText) else event.text
                shown[stream].append(Shown(text.split(), event.time, seconds, is_final))

    for start in range(0, max(map(len, padded)), size):
        chunks = {
            stream: each[start : start + size]
            for stream, each in zip(streams, padded, strict=True)
            if start < len(each)
        }
        began = time.perf_counter()
        events = recogniser.streams.feed(chunks)
        note(events, time.perf_counter() - began)
    began = time.perf_counter()
    events = recogniser.streams.finish(streams)
    note(events, time.perf_counter() - began)
    return [shown[stream] for stream in streams]


def _words(words: Sequence[Word], partials: list[Shown], final: Shown) -> tuple[list[tuple[float, float]], int]:
    """Finds when each word of a segment was first shown at its place, and counts the words that changed when shown."""
    found, unstable = [], 0
    for place, word in enumerate(words):
        first = next((each for each in [*partials, final] if each.words[place : place + 1] == [word.text]), final)
        found.append((first.heard - word.end, first.computing))
        seen = [each.words[place] for each in partials if len(each.words) > place]
        # A word that grows at the end of the text is not one that changes.
        unstable += any(not word.text.startswith(each) for each in seen)
    return found, unstable


if __name__ == "__main__":
    child.serve({"measure": measure, "peak_memory": child.peak_memory})

"""Makes the quick-start corpus: digit strings and short commands, spoken by espeak-ng in many voices.

It has 28 words and no spelled letters. No sentence and no voice occurs in two of train, dev and test. The vocal tract
of a test voice (its variant, after the `+`) does not occur elsewhere, and the Scottish accent occurs only in test.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from ds2_jax.corpora import espeak
from ds2_jax.corpora.build import ANOTHER_FOLDER, building, read_source
from ds2_jax.data.manifest import TimedWord, Utterance, write_manifest
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import write_text, writing

logger = logging.getLogger(__package__)

SAMPLE_RATE = 16_000
"""Sample rate of the files in Hz; espeak-ng speaks at 22.05 kHz."""

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
NUM_DIGITS = (2, 5)
"""The fewest and most words of a digit string."""

PHRASES = (
    "TURN ON|OFF THE LIGHT|RADIO",
    "TURN ON|OFF LIGHT #",
    "OPEN|CLOSE THE DOOR",
    "OPEN|CLOSE DOOR #",
    "START|STOP THE MUSIC|RADIO",
    "GO|TURN LEFT|RIGHT",
    "GO UP|DOWN|LEFT|RIGHT #",
)
"""Commands. One of the words between bars is drawn, and a digit for each #. Two commands are joined with AND."""
SHARE_OF_SINGLES = 0.15
"""The fraction of commands with one phrase; only 94 such commands exist."""

VOICES = {
    "train": (
        "en",
        "en+m7",
        "en+f2",
        "en+Michael",
        "en-us",
        "en-us+m1",
        "en-us+f1",
        "en-us+belinda",
        "en-us-nyc",
        "en-us-nyc+m2",
        "en-us-nyc+f2",
        "en-us-nyc+Alex",
        "en-gb-x-rp",
        "en-gb-x-rp+m5",
        "en-gb-x-rp+f5",
        "en-gb-x-rp+linda",
        "en-gb-x-gbclan",
        "en-gb-x-gbclan+m1",
        "en-gb-x-gbclan+f5",
        "en-gb-x-gbcwmd+m2",
        "en-gb-x-gbcwmd+f1",
        "en-029",
        "en-029+m7",
        "en-029+aunty",
    ),
    "dev": ("en-us+m4", "en-gb-x-rp+steph", "en-029+Mike"),
    "test": ("en-us+f4", "en-gb-x-rp+m6", "en-gb-scotland+f3", "en-gb-scotland+m3"),
}
"""espeak-ng's names of the voices: `LANGUAGE` or `LANGUAGE+VARIANT`, that is, the accent and the vocal tract. The
accents are British, American, New York, received pronunciation, Lancaster, West Midlands, Caribbean and, only in test,
Scottish."""

NUM_SENTENCES = {"train": 50, "dev": 20, "test": 45}
"""The number of utterances of each voice. The test voices say the same sentences, so that you can compare them."""

RATES = (115, 165)
"""The slowest and the fastest rate. At faster rates, some utterances would have more labels than frames of 40 ms."""
PITCHES = (35, 65)
LEVELS = (0.25, 0.9)

RESPELLED = {"A": "EH", "RUBOUT": "RUB-OUT"}
"""How espeak-ng must read words that it would say otherwise: it takes an A between two letters for the article."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A sentence to say, and how to say it.

    Attributes:
        transcript: the sentence, in capital letters and spaces.
        rate: words per minute, as espeak-ng counts them.
        pitch: pitch from 0 to 100; 50 is the voice's own pitch.
        level: largest absolute value of a sample.
    """

    transcript: str
    rate: int
    pitch: int
    level: float


class Speech(NamedTuple):
    """A spoken prompt.

    Attributes:
        waveform: [S] float32 in [-1, 1] at `SAMPLE_RATE`.
        words: the words with their times; empty if espeak-ng does not give the times.
    """

    waveform: np.ndarray
    words: tuple[TimedWord, ...]


def prepare(root: Path = Path("datasets")) -> Path:
    """Makes ROOT/synthetic: train.jsonl, dev.jsonl, test.jsonl and their audio, always with the same bytes.

    The bytes are reproducible on one machine with one version of espeakng-loader; others may round differently. The
    folder appears when it is complete. A complete folder is not changed, even if an older version made it without
    word times.

    Args:
        root: folder of the prepared corpora.

    Returns:
        The folder ROOT/synthetic.

    Raises:
        InputError: espeakng-loader is missing or lacks a voice; or ROOT/synthetic exists and is not this corpus.
    """
    folder = root / "synthetic"
    prompts = script()
    rows = [
        [split, voice, *map(dataclasses.astuple, said)] for split in prompts for voice, said in prompts[split].items()
    ]
    older: dict[str, object] = {"prompts_sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}
    source = older | {"word_times": True}
    if not folder.exists():
        with building(folder) as partial:
            if not folder.exists():
                voices = [len(said) for split in prompts.values() for said in split.values()]
                counts = f"{sum(voices):,} utterances in {len(voices)} voices"
                logger.info(f"building the quick-start corpus: {counts} ...")
                build(partial, prompts)
                write_text(partial / "source.json", json.dumps(source) + "\n")
                with writing(folder):
                    partial.rename(folder)
    found = read_source(folder, "the quick-start corpus")
    if found == older:
        advice = "delete the folder and prepare it again to get them"
        logger.info(f"{folder} has no word times, which this version writes: {advice}.")
    elif found != source:
        raise InputError(f"{folder} must hold the quick-start corpus of this version, got another. {ANOTHER_FOLDER}")
    return folder


def script() -> dict[str, dict[str, list[Prompt]]]:
    """Makes the prompts of every voice of every split, always the same."""
    rng = random.Random(0)
    fresh = _distinct_sentences(rng)
    prompts: dict[str, dict[str, list[Prompt]]] = {}
    for split in ("test", "dev", "train"):  # train last, because single phrases may run out
        number = NUM_SENTENCES[split]
        shared = list(itertools.islice(fresh, number)) if split == "test" else []
        prompts[split] = {
            voice: [prompt(rng, sentence) for sentence in shared or itertools.islice(fresh, number)]
            for voice in VOICES[split]
        }
    return prompts


def build(folder: Path, prompts: dict[str, dict[str, list[Prompt]]]) -> None:
    """Speaks `prompts` into FOLDER/audio and lists each split in FOLDER/SPLIT.jsonl, several voices at a time.

    Raises:
        InputError: espeakng-loader is missing or lacks a voice.
    """
    audio = folder / "audio"
    audio.mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, voices in prompts.items():
            spoken = pool.map(lambda voice, said: _record(audio, voice, said), voices, voices.values())
            write_manifest(folder / f"{split}.jsonl", itertools.chain.from_iterable(spoken))


def speak(voice: str, prompts: list[Prompt]) -> list[np.ndarray]:
    """Speaks as `speak_words` does, and returns only the waveforms."""
    return [speech.waveform for speech in speak_words(voice, prompts)]


def speak_words(voice: str, prompts: list[Prompt]) -> list[Speech]:
    """Speaks with one voice, in a new process, in the given order.

    Args:
        voice: a voice as in `VOICES`.
        prompts: one or more prompts.

    Returns:
        The speech of each prompt.

    Raises:
        InputError: espeakng-loader is missing or lacks the voice.
    """
    library, data = find_espeak()
    job = {
        "library": library,
        "data": data,
        "voice": voice,
        "requests": [(_respelled(prompt.transcript), prompt.rate, prompt.pitch) for prompt in prompts],
    }
    child = subprocess.run(
        [sys.executable, "-I", espeak.__file__], input=json.dumps(job).encode(), capture_output=True, check=False
    )
    if child.returncode:
        finding = child.stderr.decode(errors="replace").strip() or f"exit status {child.returncode}"
        raise InputError(
            f"espeak-ng must speak with the voice {voice!r}, got {finding}. Reinstall espeakng-loader, version 0.2.4."
        )
    line, _, samples = child.stdout.partition(b"\n")
    header = json.loads(line)
    spoken = np.frombuffer(samples, np.int16).astype(np.float32) / 2**15
    waveforms = np.split(spoken, np.cumsum(header["num_samples"])[:-1])
    speeches = []
    for prompt, spoken_at_its_rate, spans in zip(prompts, waveforms, header["words"], strict=True):
        waveform = soxr.resample(spoken_at_its_rate, header["sample_rate"], SAMPLE_RATE, "HQ")
        waveform = waveform * np.float32(prompt.level / np.abs(waveform).max())
        times = np.minimum(np.round(np.array(spans) / header["sample_rate"], 4), len(waveform) / SAMPLE_RATE)
        words = zip(prompt.transcript.split(), times.tolist(), strict=len(times) > 0)
        speeches.append(Speech(waveform, tuple(TimedWord(word, *span) for word, span in words)))
    return speeches


def find_espeak() -> tuple[str, str]:
    """Returns the paths of espeak-ng's library and of its data.

    Raises:
        InputError: espeakng-loader is missing.
    """
    try:
        import espeakng_loader
    except ModuleNotFoundError as error:
        raise InputError(
            "Synthesised voices must have the package espeakng-loader, got none. "
            "Install it: pip install espeakng-loader==0.2.4 (it carries espeak-ng, under the GPL)."
        ) from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


def _respelled(transcript: str) -> str:
    return " ".join(RESPELLED.get(word, word) for word in transcript.split())


def _record(folder: Path, voice: str, prompts: list[Prompt]) -> list[Utterance]:
    utterances = []
    for index, (prompt, speech) in enumerate(zip(prompts, speak_words(voice, prompts), strict=True)):
        name = f"{voice}-{index:02d}"
        path = folder / f"{name}.wav"
        encoded = io.BytesIO()  # libsndfile would report a full disk with its own error
        soundfile.write(encoded, speech.waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        with writing(path):
            path.write_bytes(encoded.getvalue())
        duration = len(speech.waveform) / SAMPLE_RATE
        utterances.append(Utterance(path, duration, prompt.transcript, name, voice, words=speech.words))
    return utterances


def _distinct_sentences(rng: random.Random) -> Iterator[str]:
    """Yields digit strings and commands alternately, without end, none of them twice."""
    said: set[str] = set()
    for draw in itertools.cycle((_digit_string, _command)):
        sentence = draw(rng)
        while sentence in said:
            sentence = draw(rng)
        said.add(sentence)
        yield sentence


def _digit_string(rng: random.Random) -> str:
    return " ".join(rng.choice(DIGITS) for _ in range(rng.randint(*NUM_DIGITS)))


def _command(rng: random.Random) -> str:
    phrases = rng.sample(PHRASES, 1 if rng.random() < SHARE_OF_SINGLES else 2)
    words = " AND ".join(phrases).replace("#", "|".join(DIGITS)).split()
    return " ".join(rng.choice(word.split("|")) for word in words)


def prompt(rng: random.Random, transcript: str) -> Prompt:
    """Draws how a sentence is said."""
    return Prompt(transcript, rng.randint(*RATES), rng.randint(*PITCHES), rng.uniform(*LEVELS))

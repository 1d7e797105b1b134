"""Makes the corpus of the model `spelling`: AN4 and synthesised voices, with silence, noise and music around them.

The speakers of train and dev are those of AN4's splits and the quick start's training and dev voices. The quick start's
test voices are in neither. The voices say spelled letters, numbers, dates, and the commands of AN4 and of the quick
start.
"""

import io
import json
import logging
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from ds2_jax.audio import made_noise
from ds2_jax.audio.reading import read_audio
from ds2_jax.corpora import an4, synthetic
from ds2_jax.corpora.build import ANOTHER_FOLDER, building, read_source
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import write_text, writing

logger = logging.getLogger(__package__)

VERSION = 1
"""Changes if the corpus becomes another."""
SAMPLE_RATE = synthetic.SAMPLE_RATE
NUM_SENTENCES = {"train": 30, "dev": 20, "voices": 45}
"""The number of utterances of each voice."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEENS = ("TEN", "ELEVEN", "TWELVE", "THIRTEEN", "FOURTEEN", "FIFTEEN", "SIXTEEN", "SEVENTEEN", "EIGHTEEN", "NINETEEN")
TENS = ("TWENTY", "THIRTY", "FORTY", "FIFTY", "SIXTY", "SEVENTY", "EIGHTY", "NINETY")
DIGITS = (*synthetic.DIGITS, "OH")
MONTHS = "JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER".split()
ORDINALS = (
    "FIRST SECOND THIRD FOURTH FIFTH SIXTH SEVENTH EIGHTH NINTH TENTH ELEVENTH TWELFTH TWENTIETH THIRTIETH".split()
)
COMMANDS = ("YES", "NO", "GO", "START", "STOP", "HELP", "ERASE", "REPEAT", "ENTER", "RUBOUT")

AROUND = ("silence", "noise", "noise", "music")
"""What is around the speech, each as often as it stands here."""
SHARE_LONG = 0.45
"""The fraction of utterances with long silence or noise before and after them."""
SHARE_LOUD = 0.5
"""The fraction of these whose noise ends where the speech begins. It may be louder than the speech."""
LONG, SHORT = (0.5, 4.5), (0.0, 0.4)
"""The least and most seconds before and after an utterance."""
SPEECH_TO_NOISE = (8.0, 40.0)
"""The least and most decibels between the speech and the noise below it."""
LOUD = (-12.0, 12.0)
"""The same for noise that ends where the speech begins."""
NUM_PIECES, PIECE_SECONDS = 40, 10
"""The number of pieces of each kind in which nobody speaks, and their duration."""


def prepare(root: Path = Path("datasets"), archive: Path | None = None) -> Path:
    """Makes ROOT/spelling: train.jsonl, dev.jsonl, test.jsonl, voices.jsonl, the audio, and a folder nobody.

    test.jsonl lists the test split of AN4, as recorded. voices.jsonl lists voices that are in no other split. In the
    recordings of nobody, nobody speaks: they are 10 s each of silence, noise and music.

    Args:
        root: folder of the prepared corpora. AN4 is prepared there too.
        archive: a copy of AN4's published archive, used instead of a download.

    Returns:
        The folder ROOT/spelling.

    Raises:
        InputError: AN4 cannot be prepared, espeakng-loader is missing or lacks a voice, or ROOT/spelling exists and is
            not this corpus.
    """
    synthetic.find_espeak()  # before AN4 is downloaded
    recorded = an4.prepare(root, archive)
    folder = root / "spelling"
    source: dict[str, object] = {"version": VERSION, "an4": read_source(recorded, "AN4").get("sha256")}
    if not folder.exists():
        with building(folder) as partial:
            if not folder.exists():
                logger.info("building the spelling corpus ...")
                _build(partial, recorded)
                write_text(partial / "source.json", json.dumps(source) + "\n")
                with writing(folder):
                    partial.rename(folder)
    if read_source(folder, "the spelling corpus") != source:
        raise InputError(f"{folder} must hold the spelling corpus of this version, got another. {ANOTHER_FOLDER}")
    return folder


def sentence(rng: random.Random) -> str:
    """Draws what a voice says."""
    kinds: Sequence[Callable[[random.Random], str]] = (_spelled, _spelled, _digits, _number, _date, _command, _phrase)
    return rng.choice(kinds)(rng)


def surrounded(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Puts speech [S] into silence, noise or music; returns float32, at least as long."""
    long = rng.random() < SHARE_LONG
    before, after = (round(SAMPLE_RATE * rng.uniform(*(LONG if long else SHORT))) for _ in range(2))
    padded = np.pad(speech, (before, after)).astype(np.float32)
    kind = AROUND[rng.integers(len(AROUND))]
    around = made_noise.KINDS[kind](len(padded), rng)
    loudness = float(np.sqrt(np.mean(np.square(speech))))
    if kind == "silence":
        around = made_noise.with_level(around, loudness * 10 ** (-rng.uniform(35, 70) / 20))
    elif long and rng.random() < SHARE_LOUD:
        around = made_noise.with_level(around, loudness * 10 ** (-rng.uniform(*LOUD) / 20))
        around[before : before + len(speech)] = 0
    else:
        around = made_noise.with_level(around, loudness * 10 ** (-rng.uniform(*SPEECH_TO_NOISE) / 20))
    mixed: np.ndarray = padded + around
    mixed /= max(1.0, float(np.abs(mixed).max()))
    return mixed


def _build(folder: Path, recorded: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in ("train", "dev", "voices"):
            voices = synthetic.VOICES["test" if split == "voices" else split]
            place = folder / "audio" / split
            place.mkdir(parents=True)
            spoken = pool.map(lambda voice, split=split, place=place: _speak(place, split, voice), voices)
            utterances = [each for voice in spoken for each in voice]
            if split != "voices":
                heard = read_manifest(recorded / f"{split}.jsonl")
                utterances += pool.map(lambda each, place=place: _record(place, each), heard)
            write_manifest(folder / f"{split}.jsonl", utterances)
    write_manifest(folder / "test.jsonl", read_manifest(recorded / "test.jsonl"))
    nobody = folder / "nobody"
    nobody.mkdir()
    for kind, make in made_noise.KINDS.items():
        for i in range(NUM_PIECES):
            rng = _generator(f"nobody {kind} {i}")
            piece = make(PIECE_SECONDS * SAMPLE_RATE, rng)
            decibels = rng.uniform(-80, -50) if kind == "silence" else rng.uniform(-45, -15)
            _write(nobody / f"{kind}-{i:02d}.flac", made_noise.with_level(piece, 10 ** (decibels / 20)))


def _speak(folder: Path, split: str, voice: str) -> list[Utterance]:
    """Makes the utterances of a voice. Those of the unheard voices have no noise."""
    rng = random.Random(f"{split} {voice}")
    prompts = [synthetic.prompt(rng, sentence(rng)) for _ in range(NUM_SENTENCES[split])]
    utterances = []
    for i, (prompt, waveform) in enumerate(zip(prompts, synthetic.speak(voice, prompts), strict=True)):
        name = f"{voice}-{i:02d}"
        heard = waveform if split == "voices" else surrounded(waveform, _generator(name))
        utterances.append(_utterance(folder / f"{name}.flac", heard, prompt.transcript, name, voice))
    return utterances


def _record(folder: Path, utterance: Utterance) -> Utterance:
    heard = surrounded(read_audio(utterance.audio, SAMPLE_RATE), _generator(utterance.id))
    path = folder / f"{utterance.id}.flac"
    return _utterance(path, heard, utterance.transcript, utterance.id, utterance.speaker)


def _utterance(path: Path, waveform: np.ndarray, transcript: str, name: str, speaker: str) -> Utterance:
    _write(path, waveform)
    return Utterance(path, len(waveform) / SAMPLE_RATE, transcript, name, speaker)


def _write(path: Path, waveform: np.ndarray) -> None:
    encoded = io.BytesIO()  # libsndfile would report a full disk with its own error
    soundfile.write(encoded, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with writing(path):
        path.write_bytes(encoded.getvalue())


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))


def _spelled(rng: random.Random) -> str:
    return " ".join(_draw(rng, LETTERS, 2, 8))


def _digits(rng: random.Random) -> str:
    return " ".join(_draw(rng, DIGITS, 1, 7))


def _number(rng: random.Random) -> str:
    return " ".join(word for _ in range(rng.randint(1, 3)) for word in _below_hundred(rng))


def _date(rng: random.Random) -> str:
    day = [rng.choice(ORDINALS)] if rng.random() < 0.5 else _below_hundred(rng)
    return " ".join([rng.choice(MONTHS), *day, *(["NINETEEN", *_below_hundred(rng)] if rng.random() < 0.5 else [])])


def _command(rng: random.Random) -> str:
    """Draws a command of AN4; ENTER and RUBOUT have letters and digits behind them."""
    command = rng.choice(COMMANDS)
    letters = _draw(rng, LETTERS, 1, 5) if command in ("ENTER", "RUBOUT") else []
    digits = _draw(rng, DIGITS, 0, 3) if letters or rng.random() < 0.2 else []
    return " ".join([command, *letters, *digits])


def _phrase(rng: random.Random) -> str:
    phrases = " AND ".join(rng.sample(synthetic.PHRASES, rng.randint(1, 2)))
    words = phrases.replace("#", "|".join(synthetic.DIGITS)).split()
    return " ".join(rng.choice(word.split("|")) for word in words)


def _below_hundred(rng: random.Random) -> list[str]:
    if rng.random() < 0.3:
        return [rng.choice(TEENS)]
    return [rng.choice(TENS), *_draw(rng, synthetic.DIGITS[1:], 0, 1)]


def _draw(rng: random.Random, choices: Sequence[str], fewest: int, most: int) -> list[str]:
    return rng.choices(choices, k=rng.randint(fewest, most))

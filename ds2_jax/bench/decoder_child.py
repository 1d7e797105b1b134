"""A child process that stores a model's outputs and decodes them with one decoder at a time."""

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ds2_jax.bench import child
from ds2_jax.config import Config
from ds2_jax.corpora import split_manifests
from ds2_jax.data.splits import read_split
from ds2_jax.decoding.beam.search import BeamSearch
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.ngram.model import load as load_language_model
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.evaluation.split_outputs import split_outputs
from ds2_jax.lm.build import make_model
from ds2_jax.lm.kneser_ney import write_arpa
from ds2_jax.lm.text import read_texts
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import find_model
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

VOCABULARY_SIZE, SENTENCE_WORDS, NUM_SENTENCES, NUM_FOLLOWERS = 5000, 10, 20_000, 20
"""Sizes of the synthetic text from which the language model of the synthetic outputs is built."""
LETTER_FRAMES = 3.5
"""Frames of 20 ms for each letter. This gives 14 letters a second, as in read English."""


@dataclasses.dataclass
class Outputs:
    """A model's outputs for utterances ([T', V] float32 each), the transcripts, and the total seconds of audio."""

    config: Config
    log_probs: list[np.ndarray]
    references: list[str]
    audio_seconds: float
    lm: Path

    @functools.cached_property
    def alphabet(self) -> Alphabet:
        """The model's alphabet."""
        return Alphabet.of(self.config.data)


def outputs_of(run: Path, manifest: Path | None, lm: Path | None, folder: Path) -> Outputs:
    """Computes the outputs of a run's model for the run's test split, or for another manifest.

    Args:
        run: the folder of a training run.
        manifest: a manifest to use instead of the test split.
        lm: the language model; None to build a 3-gram model from the run's training transcripts.
        folder: the folder in which to build this model.

    Raises:
        InputError: there is no run or no split, or an audio file cannot be read.
    """
    run = find_model(run)
    config = read_config(run)
    alphabet = Alphabet.of(config.data)
    splits = split_manifests(config.data, build=False)
    manifest = manifest or splits.test
    if manifest is None:
        raise InputError("--manifest must be given, got none: the run names no data.test. Add --manifest FILE.")
    split = read_split(manifest, config, alphabet, prune=False)
    if not split.utterances:
        raise InputError(f"{manifest} must hold an utterance that can be decoded, got none. Give another manifest.")
    if lm is None:
        if splits.train is None:
            raise InputError("--lm must be given, got none: the run names no data.train. Add --lm FILE.")
        lm = folder / "train.arpa"
        _build_trigram(splits.train, alphabet, lm)
    outputs = split_outputs(TrainedModel.load(run), split, title="evaluating")
    log_probs = {index: each.copy() for index, each, _ in outputs}
    references = [alphabet.normalise(utterance.transcript) for utterance in split.utterances]
    seconds = sum(utterance.duration for utterance in split.utterances)
    return Outputs(config, [log_probs[index] for index in range(len(references))], references, seconds, lm)


def made_outputs(seconds: float, folder: Path) -> Outputs:
    """Makes synthetic outputs like those of a CTC model, and a 3-gram model of 200,000 synthetic words.

    Each letter peaks in one frame, and the frames between are blank. Noise makes some frames uncertain and a few wrong.
    """
    config = Config()
    alphabet = Alphabet.of(config.data)
    rng = np.random.default_rng(0)
    letters = np.array(list(alphabet.characters.strip("' ")))
    words = sorted({"".join(rng.choice(letters, rng.integers(1, 10))) for _ in range(VOCABULARY_SIZE)})
    followers = rng.integers(0, len(words), (len(words), NUM_FOLLOWERS))
    weights = 1 / np.arange(1, len(words) + 1)  # Zipf's law

    def sentence() -> str:
        drawn = rng.choice(len(words), SENTENCE_WORDS, p=weights / weights.sum()).tolist()
        for place in range(1, SENTENCE_WORDS):
            if rng.random() < 0.5:
                drawn[place] = int(rng.choice(followers[drawn[place - 1]]))
        return " ".join(words[word] for word in drawn)

    text, lm = folder / "made.txt", folder / "made.arpa"
    text.write_text("\n".join(sentence() for _ in range(NUM_SENTENCES)))
    _build_trigram(text, alphabet, lm)
    log_probs: list[np.ndarray] = []
    references: list[str] = []
    while sum(map(len, log_probs)) * config.seconds_per_frame < seconds:
        references.append(sentence())
        labels = alphabet.encode(references[-1])
        targets = np.zeros(round(len(labels) * LETTER_FRAMES), np.int64)
        targets[np.arange(len(labels)) * len(targets) // len(labels)] = labels
        logits = rng.normal(0, 1.5, (len(targets), alphabet.size))
        logits[np.arange(len(targets)), targets] += rng.uniform(4, 16, len(targets))
        log_probs.append((logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32))
    return Outputs(config, log_probs, references, sum(map(len, log_probs)) * config.seconds_per_frame, lm)


def _build_trigram(source: Path, alphabet: Alphabet, out: Path) -> None:
    """Builds a model like `lm build`, but prints no report, because the file is deleted when `bench` ends."""
    text = read_texts([source], alphabet, "skip")
    write_arpa(out, make_model(text, 3), text.words)


def decoder_of(outputs: Outputs, name: str, options: dict[str, Any]) -> Callable[[np.ndarray], str]:
    """Makes a decoder from log-probabilities to text, ready to be timed.

    Args:
        outputs: the outputs to decode, with their alphabet and language model.
        name: greedy, beam, lm (beam search with the language model) or peer (fast-ctc-decode).
        options: arguments of `DecodingOptions`. The peer uses only the beam width and the label threshold.
    """
    alphabet = outputs.alphabet
    if name == "greedy":
        return lambda log_probs: _text([span.label for span in greedy_decode(log_probs)], alphabet)
    settings = DecodingOptions(**options, lm=outputs.lm if name == "lm" else None)
    if name == "peer":
        from fast_ctc_decode import beam_search

        letters = ["", *alphabet.units]
        least = float(np.exp(settings.label_threshold))
        return lambda log_probs: _tidy(beam_search(np.exp(log_probs), letters, settings.width, least)[0])
    search = BeamSearch(alphabet, settings, load_language_model(outputs.lm) if name == "lm" else None)
    return lambda log_probs: _text(search(log_probs)[0].labels, alphabet)


def _text(labels: list[int], alphabet: Alphabet) -> str:
    return _tidy(alphabet.decode(labels))


def _tidy(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Serves requests for `Outputs`: load, then decode and describe."""
    loaded: list[Outputs] = []

    def load(run: str | None, manifest: str | None, lm: str | None, seconds: float, folder: str) -> dict[str, Any]:
        if run is None:
            loaded.append(made_outputs(seconds, Path(folder)))
        else:
            other, model = (None if path is None else Path(path) for path in (manifest, lm))
            loaded.append(outputs_of(Path(run), other, model, Path(folder)))
        outputs = loaded[0]
        return {
            "references": outputs.references,
            "audio_seconds": outputs.audio_seconds,
            "seconds_per_frame": outputs.config.seconds_per_frame,
            "certainty": float(np.concatenate([np.exp(each.max(1)) for each in outputs.log_probs]).mean()),
        }

    def decode(name: str, options: dict[str, Any], runs: int) -> dict[str, Any]:
        decoder = decoder_of(loaded[0], name, options)
        decoder(loaded[0].log_probs[0])  # compiles
        times = []
        for _ in range(runs):
            started = time.process_time()
            texts = [decoder(log_probs) for log_probs in loaded[0].log_probs]
            times.append(time.process_time() - started)
        return {"times": times, "texts": texts}

    def describe() -> str:
        peer = importlib.util.find_spec("fast_ctc_decode")
        return f"fast-ctc-decode {version('fast-ctc-decode')}" if peer else ""

    child.serve({"load": load, "decode": decode, "describe": describe, "peak_memory": child.peak_memory})


if __name__ == "__main__":
    main()

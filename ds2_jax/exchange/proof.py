"""Compares a written model with the run that it comes from, on the run's test split or on made speech."""

import collections
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds2_jax.audio import made_speech
from ds2_jax.config import Config
from ds2_jax.config.live import STEP_SECONDS
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.splits import Split, read_split
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.evaluation.error_rates import ErrorCount, word_errors
from ds2_jax.evaluation.report.bootstrap import MIN_SPEAKERS, Interval
from ds2_jax.evaluation.split_outputs import split_outputs
from ds2_jax.recognition.stream_steps import StepInput, StreamSteps
from ds2_jax.runs.model import Model
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.text.alphabet import Alphabet

LARGEST_DIFFERENCE = 1e-3
"""In log-probability. Trained models of 3 million weights differ by 2e-5."""
MORE_ERRORS = 0.01
"""A quantised model, or one for a program that changes the waveform, may have so much higher a WER."""
NUM_MADE, NUM_STREAMED = 8, 8
"""Utterances of made speech, and those that are also recognised step by step."""
NUM_LEVELS = 200
USUAL_LEVEL = 0.05
"""Root mean square of speech whose loudest sample is about 0.5."""


class Comparison(NamedTuple):
    """What was found.

    Attributes:
        where: the manifest, or what else was compared on.
        num_utterances: number of utterances.
        same_texts: utterances for which both models write the same.
        difference: largest difference in log-probability; None if the written model gets another waveform.
        streamed: the same between steps of a stream and whole utterances; None without a graph of a step.
        errors: word errors of the run and of the written model; None without transcripts.
        interval: 95 % interval of the written model's WER; None without transcripts.
    """

    where: str
    num_utterances: int
    same_texts: int
    difference: float | None
    streamed: float | None
    errors: tuple[ErrorCount, ErrorCount] | None
    interval: Interval | None

    @property
    def lines(self) -> list[str]:
        """Describes the comparison, without the place of the manifest."""
        found = [f"compared on {Path(self.where).name}: {self.same_texts} of {self.num_utterances} texts are the same"]
        if self.difference is not None:
            found.append(f"largest difference in log-probability: {self.difference:.1e}")
        if self.streamed is not None:
            found.append(f"the same, step by step: {self.streamed:.1e}")
        if self.errors is not None:
            run, written = self.errors
            found.append(f"WER {written.rate:.2%}, the run's {run.rate:.2%}")
        return found

    def fault(self, *, exact: bool) -> str:
        """Says in what the written model disagrees with the run; "" if it does not. A rounded model is not exact."""
        if exact and self.difference is not None:
            for what, difference in (("log-probabilities", self.difference), ("those of steps", self.streamed or 0.0)):
                if not difference <= LARGEST_DIFFERENCE:  # NaN too
                    return f"{what} that differ by {difference:.1e}"
        if self.errors is not None:
            run, written = self.errors
            if written.rate > run.rate + MORE_ERRORS:
                return f"a WER of {written.rate:.2%} instead of {run.rate:.2%}"
        return ""


def compare(reference: Model, written: Model, manifest: Path | None, *, same_waveform: bool = True) -> Comparison:
    """Runs both models on the utterances of a manifest, or without one on made speech.

    Args:
        reference: the run.
        written: what was written.
        manifest: a manifest or tfds:NAME#SPLIT.
        same_waveform: whether the written model gets the waveform as it is.

    Raises:
        InputError: the manifest or its recordings cannot be read, or the written model cannot be run.
    """
    decode = make_decoder(reference.config)
    worst, same, number = 0.0, 0, 0
    counts = [ErrorCount(), ErrorCount()]
    errors: list[tuple[str, ErrorCount]] = []
    for one, other, utterance in _pairs(reference, written, manifest):
        number += 1
        texts = [decode(each)[0].text for each in (one, other)]
        same += texts[0] == texts[1]
        worst = max(worst, float(np.abs(one - other).max(initial=0))) if one.shape == other.shape else np.inf
        if utterance is not None:
            transcript = reference.alphabet.normalise(utterance.transcript)
            own = [word_errors(transcript, text) for text in texts]
            counts = [count + error for count, error in zip(counts, own, strict=True)]
            errors.append((utterance.speaker, own[1]))
    where = str(manifest) if manifest else f"{NUM_MADE} made utterances"
    streamed = _streamed(reference, written, manifest) if written.can_stream else None
    known = manifest is not None and counts[0].reference_length > 0
    return Comparison(
        where,
        number,
        same,
        worst if same_waveform else None,
        streamed,
        (counts[0], counts[1]) if known else None,
        _interval(errors) if known else None,
    )


def level(config: Config, manifest: Path | None) -> float:
    """Measures the usual root mean square of a manifest's recordings."""
    if manifest is None:
        return USUAL_LEVEL
    split = read_split(manifest, config, Alphabet.of(config.data), prune=False)
    waveforms = itertools.islice(_waveforms(split, config), NUM_LEVELS)
    return float(np.median([np.sqrt(np.square(each).mean()) for each in waveforms]))


def _pairs(
    reference: Model, written: Model, manifest: Path | None
) -> Iterator[tuple[np.ndarray, np.ndarray, Utterance | None]]:
    """Yields the log-probabilities of both models for each utterance, and the utterance if it is not made."""
    if manifest is None:
        waveforms = list(_made(reference.config))
        batch = np.stack([np.pad(each, (0, len(waveforms[-1]) - len(each))) for each in waveforms])
        num_samples = np.array([len(each) for each in waveforms], np.int32)
        (ones, lengths), (others, _) = (each.log_probs(batch, num_samples) for each in (reference, written))
        for one, other, length in zip(ones, others, lengths, strict=True):
            yield one[:length], other[:length], None
        return
    split = read_split(manifest, reference.config, reference.alphabet, prune=False)
    models = [TrainedModel.by_engine(each) for each in (reference, written)]
    outputs = [split_outputs(each, split, title="comparing") for each in models]
    for one, other in zip(*outputs, strict=True):  # in the order of the same batches
        assert one.utterance_index == other.utterance_index
        yield one.log_probs, other.log_probs, split.utterances[one.utterance_index]


def _streamed(reference: Model, written: Model, manifest: Path | None) -> float:
    """Returns the largest difference between steps of the written model and the run on whole utterances."""
    config = reference.config
    frame = config.model.time_reduction * config.features.hop_length
    steps = StreamSteps(written, max(1, round(STEP_SECONDS * config.features.sample_rate / frame)))
    waveforms = _made(config)
    if manifest is not None:
        waveforms = _waveforms(read_split(manifest, config, reference.alphabet, prune=False), config)
    worst = 0.0
    for waveform in itertools.islice(waveforms, NUM_STREAMED):
        slot, outputs = steps.open(), []
        for i in range(steps.num_steps(len(waveform))):
            own = waveform[i * steps.samples : (i + 1) * steps.samples]
            known = len(waveform) if (i + 1) * steps.samples >= len(waveform) else -1
            padded = np.pad(own, (0, steps.samples - len(own)))
            outputs += steps.run([StepInput(slot, padded, known, i == 0)])
        steps.close(slot)
        expected = reference.log_probs(waveform[None], np.array([len(waveform)], np.int32))[0][0]
        found = np.concatenate(outputs)[steps.delay :][: len(expected)]
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def _made(config: Config) -> Iterator[np.ndarray]:
    """Makes utterances of 2 to 9 s, if played at the model's sample rate."""
    for seed in range(NUM_MADE):
        yield made_speech.utterance((2 + seed) * config.features.sample_rate / made_speech.SAMPLE_RATE, seed)


def _waveforms(split: Split, config: Config) -> Iterator[np.ndarray]:
    for utterance in split.utterances:
        yield utterance.read(config.features.sample_rate)


def _interval(errors: list[tuple[str, ErrorCount]]) -> Interval:
    """Draws speakers with replacement, or utterances if speakers are unknown or few, as `evaluate` does."""
    counts: dict[str, ErrorCount] = collections.defaultdict(ErrorCount)
    by_speaker = all(speaker for speaker, _ in errors) and len({speaker for speaker, _ in errors}) >= MIN_SPEAKERS
    for i, (speaker, error) in enumerate(errors):
        counts[speaker if by_speaker else str(i)] += error
    edits, lengths = (
        np.array([getattr(each, name) for each in counts.values()]) for name in ("edits", "reference_length")
    )
    drawn = np.random.default_rng(0).integers(0, len(counts), (1000, len(counts)))
    return Interval.of(edits[drawn].sum(axis=1) / np.maximum(lengths[drawn].sum(axis=1), 1))

"""Fits the calibration of a run: the temperature of its confidences and the offsets of its word times."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds2_jax.config import Config
from ds2_jax.corpora import unseen_dev
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.splits import Split, read_split
from ds2_jax.decoding.calibration import MAX_OFFSET, UNCALIBRATED, Calibration
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import (
    LabelSpan,
    label_confidences,
    strip_spaces,
    with_spaces,
    word_confidence,
    word_slices,
)
from ds2_jax.decoding.word_times import word_times
from ds2_jax.engines.engine import EngineName
from ds2_jax.evaluation.provenance import manifest_name
from ds2_jax.evaluation.reliability import reliability, right_words
from ds2_jax.evaluation.split_outputs import UtteranceOutput, split_outputs
from ds2_jax.evaluation.time_errors import TimeErrors, gather, time_errors
from ds2_jax.parallel.processes import is_primary
from ds2_jax.runs import run_folder
from ds2_jax.runs.fitted import write_calibration
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import home
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import make_writable
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)


TEMPERATURES = 2.0 ** (np.arange(-32, 33) / 16)
"""The temperatures to try, from 1/4 to 4; each is 2 ** (1/16) times the one before."""
NEUTRAL = 32
"""The index of temperature 1."""
MIN_WORDS = 10
"""The number of right words, and of wrong words, that fitting a temperature needs. With two wrong words in the dev
split of the quick start, the temperature was 0.65 and raised the calibration error on new voices."""
HIGHEST = math.log1p(-1e-6)
"""The highest log-confidence in the fit: a confidence of 1 in a wrong word would make the loss infinite."""


class BestPath(NamedTuple):
    """An utterance and the labels of its best path with their frames, without spaces at either end."""

    utterance: Utterance
    reference: str
    spans: Sequence[LabelSpan]


def calibrate(run: Path, manifest: Path | None, engine: EngineName = "jax") -> None:
    """Fits the calibration of a run to `manifest`, or to the run's dev split."""
    config = read_config(run)
    path = manifest or unseen_dev(config.data)
    if path is None:
        raise InputError(
            "--manifest must be given, got none: the run has no dev split, or trained on it. Add --manifest FILE."
        )
    split = read_split(path, config, Alphabet.of(config.data), prune=False)
    model = TrainedModel.load(run, engine=engine)
    make_writable(home(run))  # now, because running the model may take long
    step = run_folder.best_step(run) or 0  # an exported model has no steps
    calibrate_model(model, split, step, manifest_name(manifest) if manifest else "dev")


def calibrate_model(
    model: TrainedModel, split: Split, step: int, name: str, on_problem: Callable[[Problem], None] | None = None
) -> None:
    """Fits a calibration to a split, saves it in the model's run, and logs how good it is on the split.

    Args:
        model: the model with the best weights of a run.
        split: utterances that training did not use; if it is empty, the run gets no calibration.
        step: the step of the checkpoint.
        name: the name of the split.
        on_problem: see `split_outputs`.
    """
    assert model.run is not None, "the model has no run that could keep the calibration"
    if not split.utterances:
        logger.info("calibration: no dev split, so confidences and word times stay uncalibrated")
        return
    outputs = split_outputs(model, split, title="calibrating", on_problem=on_problem)
    calibration, findings = fit_calibration(outputs, split, model.config, step, name)
    if is_primary():
        path = write_calibration(model.run, calibration)
        logger.info(f"calibration on {name}, saved in {path}:")
    for finding in findings:
        logger.info(f"  {finding}")


def fit_calibration(
    outputs: Iterable[UtteranceOutput], split: Split, config: Config, step: int, name: str
) -> tuple[Calibration, Sequence[str]]:
    """Fits a calibration to the model's outputs for a split, decoded greedily.

    The temperature is the one with the highest likelihood of which words are right and which are wrong. It stays 1 with
    fewer than `MIN_WORDS` of either. An offset is minus the median time error of the right words, which minimises the
    mean absolute error.

    Returns:
        The calibration, and lines of text that describe it.
    """
    heard, confidences, right = _best_paths(outputs, split, config)
    enough = min(right.count(False), right.count(True)) >= MIN_WORDS
    chosen = best_temperature(confidences, right) if enough else NEUTRAL
    errors = _errors(heard, config, UNCALIBRATED)
    calibration = Calibration(
        float(TEMPERATURES[chosen]),
        start_offset=0.0 if errors is None else _offset(errors.starts),
        end_offset=0.0 if errors is None else _offset(errors.ends),
        step=step,
        fitted_on=name,
        num_words=len(right),
        num_timed_words=0 if errors is None else len(errors.starts),
    )
    findings = [f"uncalibrated confidences: {_reliability(confidences, right, NEUTRAL)}"]
    if enough:
        findings.append(f"at temperature {calibration.temperature:.2f}: {_reliability(confidences, right, chosen)}")
    else:
        counts = f"{right.count(True)} right words and {right.count(False)} wrong ones"
        findings.append(f"{counts}: a temperature needs {MIN_WORDS} of each, so it stays 1")
    if errors is None:
        return calibration, [*findings, "the manifest has no times of a right word, so the offsets stay 0"]
    start, end = 1000 * calibration.start_offset, 1000 * calibration.end_offset
    found = f"with {start:+.0f} ms for starts and {end:+.0f} ms for ends"
    after = _errors(heard, config, calibration)
    return calibration, [*findings, f"uncalibrated word times: {errors}", f"{found}: {after}"]


def best_temperature(confidences: np.ndarray, right: Sequence[bool]) -> int:
    """Finds the index in `TEMPERATURES` of the one with the highest likelihood.

    Args:
        confidences: [K, W] float64, natural logarithms of the confidence of every word at every temperature.
        right: [W], whether each word is right.
    """
    logs = np.minimum(confidences, HIGHEST)
    return int(np.where(np.asarray(right), logs, np.log1p(-np.exp(logs))).sum(axis=1).argmax())


def _offset(errors: np.ndarray) -> float:
    return round(float(np.clip(-np.median(errors), -MAX_OFFSET, MAX_OFFSET)), 4)


def _best_paths(
    outputs: Iterable[UtteranceOutput], split: Split, config: Config
) -> tuple[list[BestPath], np.ndarray, list[bool]]:
    """Decodes the utterances; also gives the log-confidences of all words [K, W] and whether each word is right."""
    alphabet = Alphabet.of(config.data)
    heard, right = [], []
    confidences: list[np.ndarray] = [np.zeros((len(TEMPERATURES), 0))]
    for index, log_probs, _ in outputs:
        utterance = split.utterances[index]
        spans = strip_spaces(greedy_decode(log_probs), alphabet)
        each = BestPath(utterance, alphabet.normalise(utterance.transcript), spans)
        heard.append(each)
        right += right_words(each.reference, alphabet.decode(span.label for span in spans))
        words = [with_spaces(word, spans, alphabet) for word in word_slices(spans, alphabet)]
        by_temperature = [label_confidences(spans, log_probs, temperature) for temperature in TEMPERATURES.tolist()]
        confidences.append(np.array([[word_confidence(labels[word]) for word in words] for labels in by_temperature]))
    return heard, np.concatenate(confidences, axis=1), right


def _errors(heard: Sequence[BestPath], config: Config, calibration: Calibration) -> TimeErrors | None:
    alphabet = Alphabet.of(config.data)
    errors = []
    for utterance, reference, labels in heard:
        words = [labels[word] for word in word_slices(labels, alphabet)]
        times = word_times(words, utterance.duration, config.seconds_per_frame, calibration)
        spans = [(word[0][0], word[-1][1]) for word in times]
        errors += time_errors(utterance, reference, alphabet.decode(each.label for each in labels), spans)
    return gather(errors)


def _reliability(confidences: np.ndarray, right: Sequence[bool], index: int) -> str:
    return str(reliability(np.exp(confidences[index]).tolist(), right) or "none")

"""Finds the utterances of a manifest that cannot be used, and why."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from ds2_jax.audio.reading import audio_duration
from ds2_jax.config.frames import conv_output_lengths, count_frames, ctc_min_frames
from ds2_jax.data.manifest import EXAMPLE_LENGTH, NUM_EXAMPLES, Problem, Reason, Utterance, count_reasons
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.alphabet import Alphabet

SHORTEST = 0.9
"""A recording must last at least this fraction of its stated duration. Codecs shorten recordings by less."""


def check_utterances(
    utterances: Iterable[Utterance],
    alphabet: Alphabet,
    *,
    sample_rate: int,
    hop_length: int,
    time_reduction: int,
    min_duration: float,
    max_duration: float,
) -> list[Problem]:
    """Finds the utterances that cannot be trained on. Audio is not decoded, except records without a duration.

    Args:
        utterances: the utterances of a manifest.
        alphabet: the alphabet of the transcripts.
        sample_rate: sample rate of the model in Hz.
        hop_length: samples between spectrogram frames.
        time_reduction: spectrogram frames per output frame.
        min_duration: shortest duration in seconds.
        max_duration: longest duration in seconds.

    Returns:
        The first problem of each utterance that has one.
    """
    problems = []
    lengths = functools.lru_cache(maxsize=None)(audio_duration)  # many segments may share a file
    for utterance in utterances:
        labels = [] if (unknown := alphabet.unknown(utterance.transcript)) else alphabet.encode(utterance.transcript)
        num_samples = utterance.num_samples(sample_rate)
        reason: Reason
        # Path.is_file and Path.exists raise if the name is too long.
        if utterance.record is None and not os.path.isfile(utterance.audio):  # noqa: PTH113
            finding = "is not a file" if os.path.exists(utterance.audio) else "does not exist"  # noqa: PTH110
            reason, detail = "missing audio", f"{utterance.audio} {finding}"
        elif utterance.duration == 0 and (error := _why_unreadable(utterance, sample_rate)):
            reason, detail = "unreadable audio", error
        elif problem := _outside(utterance, hop_length / sample_rate, lengths):
            problems.append(problem)
            continue
        elif unknown:
            reason, detail = "unknown characters", f"{unknown} in {shorten(repr(utterance.transcript))}"
        elif not labels:
            reason, detail = "empty transcript", repr(utterance.transcript)
        elif not min_duration <= utterance.duration <= max_duration:
            reason = "duration outside the limits"
            detail = f"{utterance.duration} s, limits {min_duration} to {max_duration} s"
        elif problem := too_few_frames(utterance, labels, num_samples, hop_length, time_reduction):
            problems.append(problem)
            continue
        else:
            continue
        problems.append(Problem(utterance.id, str(utterance.audio), reason, detail))
    return problems


def too_few_frames(
    utterance: Utterance, labels: Sequence[int], num_samples: int, hop_length: int, time_reduction: int
) -> Problem | None:
    """Explains why CTC cannot align `labels` with the output frames of `num_samples`; None if it can."""
    output_frames = conv_output_lengths(count_frames(num_samples, hop_length), time_reduction)
    min_frames = ctc_min_frames(labels)
    if output_frames >= min_frames:
        return None
    detail = f"{shorten(repr(utterance.transcript))} must have {min_frames} output frames, got {output_frames}"
    return Problem(utterance.id, str(utterance.audio), "too few output frames", detail)


def wrong_duration(utterance: Utterance, num_samples: int, sample_rate: int, hop_length: int) -> Problem | None:
    """Explains how a recording of `num_samples` at `sample_rate` (Hz) differs from its manifest; None if it agrees.

    The check compares with the manifest's duration, not with the room in the batch, which differs between epochs.
    """
    promised = utterance.num_samples(sample_rate)
    shortest = promised if utterance.offset else promised * SHORTEST  # the end of a segment must exist
    if shortest - hop_length < num_samples < promised + hop_length:
        return None
    if utterance.offset:
        return _ends_too_late(utterance, utterance.offset + num_samples / sample_rate)
    rule = f"last the {utterance.duration:g} s that its manifest says, got {num_samples / sample_rate:.3f} s"
    detail = f"{utterance.audio} must {rule}. Correct the duration in the manifest."
    return Problem(utterance.id, str(utterance.audio), "wrong duration", detail)


def _outside(utterance: Utterance, rounding: float, lengths: Callable[[Path], float]) -> Problem | None:
    """Explains why a segment is not inside its file, without decoding it; None if it is, or for a whole file.

    Args:
        utterance: the utterance.
        rounding: seconds by which the segment may be longer, because times are rounded.
        lengths: gives the duration of a file.
    """
    if not utterance.offset or utterance.record is not None:
        return None
    try:
        length = lengths(utterance.audio)
    except InputError as error:
        return Problem(utterance.id, str(utterance.audio), "unreadable audio", str(error))
    return None if utterance.offset + utterance.duration < length + rounding else _ends_too_late(utterance, length)


def _ends_too_late(utterance: Utterance, length: float) -> Problem:
    assert utterance.offset is not None
    rule = f"hold the segment from {utterance.offset:g} to {utterance.offset + utterance.duration:g} s"
    advice = "Correct offset and duration"
    where = f" in {utterance.place} of the manifest" if utterance.place else ""
    detail = f"{utterance.audio} must {rule}, got {length:.3f} s. {advice}{where}."
    return Problem(utterance.id, str(utterance.audio), "outside the recording", detail)


def usable_utterances(
    utterances: Sequence[Utterance],
    problems: Sequence[Problem],
    alphabet: Alphabet,
    *,
    on_bad_utterance: Literal["error", "skip"],
    manifest: Path,
) -> list[Utterance]:
    """Lists the utterances without a problem.

    Raises:
        InputError: there are problems and `on_bad_utterance` is "error", or no utterance is left.
    """
    bad = {problem.id for problem in problems}
    usable = [utterance for utterance in utterances if utterance.id not in bad]
    if problems and (on_bad_utterance == "error" or not usable):
        rule = "hold only usable utterances" if usable else "hold at least one usable utterance"
        advice = "Correct them, or leave them out with --data.on-bad-utterance skip" if usable else "Correct them"
        strange = {problem.id for problem in problems if problem.reason == "unknown characters"}
        if unknown := alphabet.unknown("".join(u.transcript for u in utterances if u.id in strange)):
            characters = shorten(str(unknown), EXAMPLE_LENGTH)
            advice += f", or add {characters} to --data.alphabet or --data.remove (see data alphabet)"
        places = {utterance.id: utterance.place or shorten(utterance.id) for utterance in utterances}
        examples = "; ".join(
            f"{places[p.id]} ({p.reason}: {shorten(p.detail, EXAMPLE_LENGTH)})" for p in problems[:NUM_EXAMPLES]
        )
        raise InputError(
            f"{manifest} must {rule}, got {len(bad)} of {len(utterances)} that are not: {count_reasons(problems)}. "
            f"{advice}. The first: {examples}."
        )
    return usable


def _why_unreadable(utterance: Utterance, sample_rate: int) -> str:
    """Explains why the audio gives no duration; "" if it does."""
    try:
        if utterance.record is None:
            audio_duration(utterance.audio)
        else:
            utterance.record.read(sample_rate)
    except InputError as error:
        return str(error)
    return ""

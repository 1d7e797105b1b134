"""Writes utterances before and after the changes of training, as WAV files and pictures."""

import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ds2_jax.audio.ffmpeg import FFMPEG_SUFFIXES
from ds2_jax.audio.reading import AUDIO_SUFFIXES, audio_duration
from ds2_jax.audio.waveform import mono_waveform
from ds2_jax.config import Config
from ds2_jax.curation.preview.look import describe, looker
from ds2_jax.curation.preview.mixing import write_wav
from ds2_jax.curation.preview.picture import draw
from ds2_jax.data.draw import drawn_order
from ds2_jax.data.epochs import perturber_of
from ds2_jax.data.manifest import Utterance, count_reasons
from ds2_jax.data.perturb import Perturbation, Perturber
from ds2_jax.data.perturb import perturb as apply_perturbation
from ds2_jax.data.splits import Split, find_problems, read_utterances
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.program import command
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

LONGEST_NAME = 100
"""The number of characters of an id in file names."""


def read_source(source: Path, settings: Config, *, trained: bool) -> tuple[Split, Perturber]:
    """Reads the utterances of a manifest, or an audio file as one utterance, and makes their `Perturber`.

    Args:
        source: manifest or audio file.
        settings: the configuration with the perturbations.
        trained: whether the settings are those of a training run. If so, utterances that training cannot use are left
            out, and transcripts limit the speed. Otherwise only utterances without readable audio are left out.

    Raises:
        InputError: the source cannot be read, or holds no usable utterance.
    """
    if source.suffix.lower() in AUDIO_SUFFIXES | FFMPEG_SUFFIXES:
        utterances, trained = [Utterance(source, audio_duration(source), "", source.stem)], False
    else:
        utterances = read_utterances(source)
    alphabet = Alphabet.of(settings.data)
    problems = find_problems(utterances, settings, alphabet, prune=trained)
    bad = {problem.id for problem in problems}
    split = Split([each for each in utterances if each.id not in bad], alphabet, problems)
    if problems:
        told = f"{len(bad)} of {len(utterances)} are left out: {count_reasons(problems)}"
        if not split.utterances:
            raise InputError(
                f"{source} must hold usable utterances, got none: {told}. Run {command('data', 'check', source)}."
            )
        logger.info(f"{source}: {told}")
    if trained:
        return split, perturber_of(settings, split)
    sample_rate = settings.features.sample_rate
    num_samples = split.num_samples(sample_rate)
    return split, Perturber(settings.perturb, sample_rate, settings.seed, num_samples, np.ones_like(num_samples))


def choose(utterances: Sequence[Utterance], ids: Sequence[str], count: int, seed: int) -> list[int]:
    """Returns the indices of the utterances that `ids` names, or else of `count` random ones.

    Raises:
        InputError: no utterance has that id.
    """
    places = {utterance.id: place for place, utterance in enumerate(utterances)}
    for name in ids:
        near = ", ".join(difflib.get_close_matches(name, places, cutoff=0.0))
        require(name in places, "--ids", "name utterances that can be used", name, f"Similar ids: {near}.")
    return [places[name] for name in ids or drawn_order(places, seed)[:count]]


def show(
    utterances: Sequence[Utterance],
    chosen: Sequence[int],
    perturber: Perturber,
    settings: Config,
    epoch: int,
    out: Path,
) -> Iterator[str | InputError]:
    """Writes the files of the chosen utterances; yields a line with the changes of each, or an error.

    Args:
        utterances: the utterances of the manifest.
        chosen: indices of the utterances to write.
        perturber: the perturbations of all utterances.
        settings: the configuration with features, SpecAugment and seed.
        epoch: the epoch, counted from 0.
        out: folder for the files.

    Raises:
        InputError: a file cannot be written.
    """
    features = settings.features
    look = looker(settings)
    for number, index in enumerate(chosen, start=1):
        utterance, perturbation = utterances[index], perturber.perturbation(epoch, index)
        try:
            before = mono_waveform(*utterance.samples(), features.sample_rate, str(utterance.audio))
            after = apply_perturbation(before, features.sample_rate, perturbation)
        except InputError as error:
            yield error
            continue
        name = f"{number:02d}_" + re.sub(r"[^\w.+-]", "_", utterance.id)[:LONGEST_NAME]
        for kind, waveform in (("before", before), ("after", after)):
            write_wav(out / f"{name}.{kind}.wav", waveform, features.sample_rate, "FLOAT")
        seen = look(before, after, epoch, index)
        unchanged = str(Perturbation())
        changes = [each for each in (str(perturbation), *describe(seen, features)) if each != unchanged]
        told = ", ".join(changes) or unchanged
        old, new = (f"{len(waveform) / features.sample_rate:.2f} s" for waveform in (before, after))
        captions = f"before, {old}", f"after, {new}: {told}"
        draw(out / f"{name}.png", utterance.transcript or utterance.id, captions, seen, features)
        yield f"{out / name}  {old} -> {new}: {told}"

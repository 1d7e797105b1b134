"""The command: which utterances, with which settings, into which files."""

import dataclasses
import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from ds2_jax.audio.reading import AUDIO_SUFFIXES, audio_duration, read_audio
from ds2_jax.config import AugmentConfig, Config, PerturbConfig, load_config
from ds2_jax.curation.preview.look import describe, looker
from ds2_jax.curation.preview.mixing import mix, write_wav
from ds2_jax.curation.preview.picture import draw
from ds2_jax.data.draw import drawn_order
from ds2_jax.data.epochs import perturber_of
from ds2_jax.data.manifest import Utterance, count_reasons, read_manifest
from ds2_jax.data.perturb import Perturbation, Perturber
from ds2_jax.data.perturb import perturb as apply_perturbation
from ds2_jax.data.splits import Split, find_problems
from ds2_jax.system import compilation
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

SHOWN_PERTURB = PerturbConfig(
    speed_probability=0.5, tempo_probability=0.5, response_probability=1.0, noise_probability=1.0, gain_probability=1.0
)
SHOWN_AUGMENT = AugmentConfig(2, 27, 2, 40, time_mask_share=0.2, time_warp_frames=20)
"""Without a configuration: enough to show in an utterance of a second or two."""
DEFAULT_SNR = 10.0
LONGEST_NAME = 100
"""Characters of an id in the names of files."""
SOURCE = tyro.conf.arg(metavar="MANIFEST|AUDIO")


def preview(
    source: Annotated[Path, tyro.conf.Positional, SOURCE],
    out: Path,
    config: Path | None = None,
    count: int = 4,
    ids: tuple[str, ...] = (),
    epoch: int = 1,
    seed: int | None = None,
    perturb: PerturbConfig = SHOWN_PERTURB,
    augment: AugmentConfig = SHOWN_AUGMENT,
    noise: Path | None = None,
    snr: float | None = None,
) -> int:
    """Write utterances before and after what training changes: WAV files, pictures, and a line about what was drawn.

    NN_ID.before.wav is the recording; NN_ID.after.wav has its speed, tempo, room, noise and gain changed, in samples
    of 32 bits that nothing clips. NN_ID.png shows the spectrograms of both, the second also warped and masked, which
    cannot be heard. With --config the settings are those of the file, and its training manifest is changed just as
    that epoch of training changes it; the options below change single settings.

    With --noise, AUDIO is written to the WAV file --out with that noise, and nothing else.

    Args:
        source: a manifest, or one audio file.
        out: folder that takes the files; those of the same names are replaced.
        config: configuration file; by default settings that change much.
        count: utterances, drawn.
        ids: of the utterances, instead of --count.
        epoch: counted from 1, as training prints it.
        seed: of all draws; by default the configuration's, or 0.
        perturb: changes of the waveform.
        augment: SpecAugment.
        noise: recording that is added to AUDIO from a drawn place, again and again where it is shorter.
        snr: dB, ratio of the mean powers of AUDIO and noise; 10 by default.

    Returns:
        1 where a recording could not be read, else 0.
    """
    settings = load_config(config) if config else Config()
    seed = settings.seed if seed is None else seed
    settings = dataclasses.replace(settings, seed=seed, perturb=perturb, augment=augment)
    if noise is not None:
        print(mix(source, noise, DEFAULT_SNR if snr is None else snr, out, seed))
        return 0
    require(snr is None, "--snr", "be left out without --noise", snr, "Name a recording with --noise.")
    require(count >= 1, "--count", "be at least 1", count)
    require(1 <= epoch < 2**31, "--epoch", "be 1, the first, or a later one below 2^31", epoch)
    split, perturber = read_source(source, settings, trained=config is not None)
    chosen = choose(split.utterances, ids, count, seed)
    compilation.enable_cache()
    failed = 0
    for told in show(split.utterances, chosen, perturber, settings, epoch - 1, out):
        if isinstance(told, InputError):
            failed += 1
            logger.error(told)
        else:
            print(told, flush=True)
    return 1 if failed else 0


def read_source(source: Path, settings: Config, *, trained: bool) -> tuple[Split, Perturber]:
    """The utterances of a manifest, or an audio file as one, and what changes them.

    Args:
        source: manifest or audio file.
        settings: with the perturbations.
        trained: the settings are those of a training run: what it cannot use is left out, and the transcripts limit
            the speed. Otherwise only missing recordings are left out.

    Raises:
        InputError: it cannot be read, or holds nothing that can be used.
    """
    if source.suffix.lower() in AUDIO_SUFFIXES:
        utterances, trained = [Utterance(source, audio_duration(source), "", source.stem)], False
    else:
        utterances = read_manifest(source)
    problems = find_problems(utterances, settings, Alphabet.of(settings.data), prune=trained)
    bad = {problem.id for problem in problems}
    split = Split([each for each in utterances if each.id not in bad], problems)
    if problems:
        told = f"{len(bad)} of {len(utterances)} left out: {count_reasons(problems)}"
        if not split.utterances:
            raise InputError(f"{source} must hold usable utterances, got {told}. Ask `data check {source}`.")
        logger.info(f"{source}: {told}")
    if trained:
        return split, perturber_of(settings, split)
    sample_rate = settings.features.sample_rate
    num_samples = split.num_samples(sample_rate)
    return split, Perturber(settings.perturb, sample_rate, settings.seed, num_samples, np.ones_like(num_samples))


def choose(utterances: Sequence[Utterance], ids: Sequence[str], count: int, seed: int) -> list[int]:
    """Places of the utterances named by `ids`, or else of `count` that are drawn.

    Raises:
        InputError: there is no utterance of that id.
    """
    places = {utterance.id: place for place, utterance in enumerate(utterances)}
    for name in ids:
        near = ", ".join(difflib.get_close_matches(name, places, cutoff=0.0))
        require(name in places, "--ids", "name utterances that can be used", name, f"Near it: {near}.")
    return [places[name] for name in ids or drawn_order(places, seed)[:count]]


def show(
    utterances: Sequence[Utterance],
    chosen: Sequence[int],
    perturber: Perturber,
    settings: Config,
    epoch: int,
    out: Path,
) -> Iterator[str | InputError]:
    """Writes the files of the chosen utterances; yields what was done to each, or why it could not be read.

    Args:
        utterances: of the manifest.
        chosen: places of some of them.
        perturber: of all of them.
        settings: features, SpecAugment and seed.
        epoch: counted from 0.
        out: folder.

    Raises:
        InputError: a file cannot be written.
    """
    features = settings.features
    look = looker(settings)
    for number, index in enumerate(chosen, start=1):
        utterance, perturbation = utterances[index], perturber.perturbation(epoch, index)
        try:
            before = read_audio(utterance.audio, features.sample_rate)
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

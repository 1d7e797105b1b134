"""Declares the command `data preview`. Slow modules are imported only after the options have been checked."""

import dataclasses
import logging
from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.config import AugmentConfig, Config, PerturbConfig, load_config
from ds2_jax.config.places import is_tfds
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import check_is_readable

logger = logging.getLogger(__package__)

SHOWN_PERTURB = PerturbConfig(
    speed_probability=0.5, tempo_probability=0.5, response_probability=1.0, noise_probability=1.0, gain_probability=1.0
)
SHOWN_AUGMENT = AugmentConfig(2, 27, 2, 40, time_mask_share=0.2, time_warp_frames=20)
"""Used without a configuration; strong enough to show in an utterance of a second or two."""
DEFAULT_SNR = 10.0
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
    """Write utterances before and after the random changes of training: WAV files and pictures. Print the changes.

    NN_ID.before.wav is the recording. In NN_ID.after.wav, speed, tempo, room, noise and gain are changed; its samples
    have 32 bits and are not clipped. NN_ID.png shows both spectrograms; the second one is also warped and masked, which
    you cannot hear. With --config, the settings come from that file. If SOURCE is its training manifest, the changes
    are exactly those of that epoch of training. The options below change single settings.

    With --noise, the only output is the WAV file --out: AUDIO with that noise.

    Args:
        source: A manifest, tfds:NAME#SPLIT, or one audio file.
        out: Folder for the files; files of the same names are replaced.
        config: Configuration file or name of a recipe; by default settings with strong changes.
        count: Number of random utterances.
        ids: Ids of the utterances, instead of --count.
        epoch: Epoch, counted from 1 as training prints it.
        seed: Seed of all draws; by default the configuration's seed, or 0.
        perturb: Changes of the waveform.
        augment: SpecAugment.
        noise: Recording to add to AUDIO, from a random position; it repeats if it is shorter.
        snr: Ratio of the mean powers of AUDIO and noise in dB; 10 by default.

    Returns:
        1 if a recording could not be read, else 0.
    """
    for path in (source, noise):
        if path is not None and not is_tfds(path):
            check_is_readable(path)
    settings = load_config(config) if config else Config()
    seed = settings.seed if seed is None else seed
    settings = dataclasses.replace(settings, seed=seed, perturb=perturb, augment=augment)
    if noise is not None:
        from ds2_jax.curation.preview.mixing import mix

        print(mix(source, noise, DEFAULT_SNR if snr is None else snr, out, seed))
        return 0
    require(snr is None, "--snr", "be left out without --noise", snr, "Name a recording with --noise.")
    require(count >= 1, "--count", "be at least 1", count)
    require(1 <= epoch < 2**31, "--epoch", "be at least 1 and below 2^31", epoch)
    from ds2_jax.curation.preview.utterances import choose, read_source, show
    from ds2_jax.system.compilation import enable_cache

    split, perturber = read_source(source, settings, trained=config is not None)
    chosen = choose(split.utterances, ids, count, seed)
    enable_cache()
    failed = 0
    for told in show(split.utterances, chosen, perturber, settings, epoch - 1, out):
        if isinstance(told, InputError):
            failed += 1
            logger.error(told)
        else:
            print(told, flush=True)
    return 1 if failed else 0

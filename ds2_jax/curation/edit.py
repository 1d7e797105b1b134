"""Runs the commands `data merge` and `data split`, which make new manifests and leave audio where it is."""

import dataclasses
import itertools
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ds2_jax.config.places import is_tfds
from ds2_jax.curation.stats import Manifests, describe, read_manifests, table
from ds2_jax.data.draw import drawn_order
from ds2_jax.data.manifest import NUM_EXAMPLES, Utterance, write_manifest
from ds2_jax.data.splits import read_utterances
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError, shorten

logger = logging.getLogger(__package__)

SPLITS = ("train", "dev", "test")
Manifest = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]


def merge(manifests: Manifests, out: Path) -> int:
    """Merges several manifests into one, in order. Audio is neither copied nor linked.

    Recordings of a TensorFlow data set are listed as tfds:NAME#SPLIT[NUMBER], so do not move the set.

    An id that an earlier manifest already has becomes "NAME-ID", where NAME is the name of its manifest's file without
    suffix. Recordings that are listed more than once are kept and reported; data check also finds the same recording
    under two names. Only audio, offset, duration, transcript, id, speaker and words are written.

    Args:
        manifests: manifests in any format that training reads, and tfds:NAME#SPLIT.
        out: manifest to write; it must not exist.

    Returns:
        The exit code 0.

    Raises:
        InputError: a manifest cannot be read or is named twice; or `out` exists or cannot be written.

    Differs: deepspeech.pytorch links the files of all manifests into one folder, where only one file of each name
        remains.
    """
    require_new(out, "--out")
    rows = read_manifests(manifests)
    merged, renamed = with_distinct_ids(rows)
    write_manifest(out, merged)
    if renamed:
        tell(f"{len(renamed):,} repeated ids were renamed", [f"{was} -> {now}" for was, now in renamed])
    files = Counter((os.path.realpath(utterance.audio), utterance.offset) for utterance in merged)
    if repeated := [path for (path, _), count in files.items() if count > 1]:
        tell(f"{len(repeated):,} recordings are listed more than once", repeated)
    print(f"{out}: {len(merged):,} utterances from {len(rows)} manifests")
    return 0


def split(
    manifest: Manifest,
    out: Path,
    dev: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    by: Literal["speaker", "utterance"] = "speaker",
) -> int:
    """Splits a manifest into OUT/train.jsonl, dev.jsonl and test.jsonl. By default no speaker is in two of them.

    Speakers are drawn in the order of a hash of the seed and their name, so that a new speaker changes little. A
    speaker is taken if that brings the hours of the split nearer to its share.

    Args:
        manifest: a manifest in any format that training reads, or tfds:NAME#SPLIT. The new manifests list the
            recordings of a TensorFlow data set as tfds:NAME#SPLIT[NUMBER], so do not move the set.
        out: folder for the manifests; none of the three may exist yet.
        dev: share of the hours; 0 writes no dev.jsonl.
        test: share of the hours; 0 writes no test.jsonl.
        seed: seed of the draw.
        by: speaker, or utterance for manifests without speakers. With utterance, the splits may share voices, so error
            rates are lower than for new speakers.

    Returns:
        The exit code 0.

    Raises:
        InputError: the manifest cannot be read, does not name every speaker, or has too few speakers or utterances; a
            share is out of range; or a file exists or cannot be written.
    """
    for name, share in (("--dev", dev), ("--test", test)):
        require(0 <= share < 1, name, "be a share of the hours, 0 to below 1", share)
    require(0 < dev + test < 1, "--dev and --test", "add up to a share above 0 and below 1", (dev, test))
    for name in SPLITS:
        require_new(out / f"{name}.jsonl", "--out")
    utterances = read_utterances(manifest)
    keys = [utterance.speaker if by == "speaker" else utterance.id for utterance in utterances]
    if unnamed := keys.count(""):
        raise InputError(
            f"{manifest} must name the speaker of every utterance, got {unnamed} of {len(keys)} without one. Add "
            "them, or split with --by utterance: the splits may then share voices, and error rates come out lower."
        )
    seconds: dict[str, float] = dict.fromkeys(keys, 0.0)
    for key, utterance in zip(keys, utterances, strict=True):
        seconds[key] += utterance.duration
    shares = {name: share for name, share in (("test", test), ("dev", dev)) if share}
    fewest = len(shares) + 1
    advice = "Add some, or leave out a split: --dev 0." if len(seconds) > 1 and fewest > 2 else "Add some."
    if by == "speaker" and len(utterances) >= fewest:
        advice += " Or split with --by utterance: the splits then share voices, and error rates come out lower."
    require(len(seconds) >= fewest, str(manifest), f"hold at least {fewest} {by}s", len(seconds), advice)
    home = draw_split(seconds, shares, seed)
    columns = {}
    for name in [name for name in SPLITS if name in home.values()]:
        rows = [utterance for key, utterance in zip(keys, utterances, strict=True) if home[key] == name]
        write_manifest(out / f"{name}.jsonl", rows)
        share = sum(utterance.duration for utterance in rows) / (sum(seconds.values()) or 1.0)
        asked = shares.get(name, 1 - dev - test)
        columns[name] = {"share of the hours": f"{share:.3f}", "  asked for": f"{asked:.3f}"} | describe(rows)
    print(table(columns))
    print(f"{out}: {', '.join(f'{name}.jsonl' for name in columns)}, by {by}, seed {seed}")
    return 0


def with_distinct_ids(
    manifests: Mapping[Path, Sequence[Utterance]],
) -> tuple[list[Utterance], list[tuple[str, str]]]:
    """Lists the utterances of all manifests with distinct ids, and the changed ids as pairs (old, new)."""
    merged: list[Utterance] = []
    renamed = []
    taken = {utterance.id for rows in manifests.values() for utterance in rows}  # a new id must not be one of these
    used: set[str] = set()
    for path, rows in manifests.items():
        stem = str(path).rpartition("#")[2] if is_tfds(path) else path.stem
        for utterance in rows:
            name = utterance.id
            if name in used:
                numbered = (f"{stem}-{name}-{number}" for number in itertools.count(2))
                name = next(each for each in itertools.chain([f"{stem}-{name}"], numbered) if each not in taken)
                renamed.append((utterance.id, name))
                taken.add(name)
            used.add(name)
            merged.append(dataclasses.replace(utterance, id=name))
    return merged, renamed


def draw_split(seconds: Mapping[str, float], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Assigns every speaker to train or to one of the splits in `shares`; every split gets a speaker.

    Args:
        seconds: seconds of speech of every speaker; more speakers than `shares`.
        shares: the share of the seconds for each split except train.
        seed: seed of the draw.
    """
    left = drawn_order(seconds, seed)
    home = dict.fromkeys(seconds, "train")
    for position, (name, share) in enumerate(shares.items()):
        goal, held, taken = share * sum(seconds.values()), 0.0, list[str]()
        spare = len(left) - (len(shares) - position)  # one speaker is left for train and for each later split
        for speaker in left:
            nearer = abs(held + seconds[speaker] - goal) < abs(held - goal)
            if nearer and len(taken) < spare:
                taken.append(speaker)
                held += seconds[speaker]
        taken = taken or [min(left, key=seconds.__getitem__)]
        home |= dict.fromkeys(taken, name)
        left = [speaker for speaker in left if speaker not in set(taken)]
    return home


def require_new(path: Path, field: str) -> None:
    """Raises InputError if the file exists, so that a typing error does not overwrite a manifest."""
    if os.path.lexists(path):
        raise InputError(f"{field} must not exist yet, got {path}, which does. Delete it, or give another {field}.")


def tell(finding: str, examples: Sequence[str]) -> None:
    """Logs what was found, with the first examples."""
    listed = "".join(f"\n  {shorten(each, 200)}" for each in examples[:NUM_EXAMPLES])
    logger.info(f"{finding}:{listed}" + ("\n  ..." if len(examples) > NUM_EXAMPLES else ""))

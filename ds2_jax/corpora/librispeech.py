"""Prepares LibriSpeech: 1,000 hours of English audiobooks (Panayotov et al., 2015; openslr.org/12; 16 kHz FLAC).

Its licence is CC BY 4.0. An archive PART.tar.gz contains recordings
LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac. The folder of a chapter also
contains SPEAKER-CHAPTER.trans.txt, with a line `SPEAKER-CHAPTER-UTTERANCE TRANSCRIPT` for each recording.
"""

import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from ds2_jax.corpora.archive import extract
from ds2_jax.corpora.build import ANOTHER_FOLDER, building, finish, gather, locked, measure, pair, read_source, report
from ds2_jax.data.manifest import Problem, Utterance, read_manifest, read_text, write_manifest
from ds2_jax.system.download import download, file_md5
from ds2_jax.system.errors import NO_JSON, InputError
from ds2_jax.system.files import search, write_text

logger = logging.getLogger(__package__)

URL = "https://www.openslr.org/resources/12"
OFFLINE = "Run again to resume, or name a folder that contains the archives: prepare librispeech --archives FOLDER."
Part = Literal[
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
]
PARTS: tuple[Part, ...] = get_args(Part)
MD5 = {
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
}
"""The MD5 of each archive, from md5sum.txt beside the archives."""
SPLITS: dict[str, tuple[Part, ...]] = {
    "train": ("train-clean-100", "train-clean-360", "train-other-500"),
    "dev": ("dev-clean", "dev-other"),
    "test-clean": ("test-clean",),
    "test-other": ("test-other",),
}
UTTERANCES = "utterances"
"""The name, without suffix, of the manifest in a part's folder."""


def prepare(root: Path = Path("datasets"), parts: tuple[Part, ...] = PARTS, archives: Path | None = None) -> Path:
    """Makes ROOT/librispeech from the published archives: train.jsonl, dev.jsonl, test-clean.jsonl, test-other.jsonl.

    Every part has a folder ROOT/librispeech/PART with the unchanged FLAC files. This folder appears when it is
    complete, and does not change afterwards. train.jsonl lists the existing train parts, and dev.jsonl the existing dev
    parts; they are updated when you add a part. All readable utterances are included, however long.

    The MD5 of every archive is compared with the published one. A download must match; for a copy, a difference
    is only reported.

    All seven parts take 60 GB to download and as much unpacked. You may delete the archives afterwards.

    Args:
        root: folder of the prepared corpora; downloads are kept in ROOT/librispeech.
        parts: the parts to prepare.
        archives: folder that contains PART.tar.gz for the parts, used instead of downloads.

    Returns:
        The folder ROOT/librispeech.

    Raises:
        InputError: no part is named; an archive does not exist and cannot be downloaded, is damaged, or is not that
            part; or a part was made from another archive.
    """
    folder = root / "librispeech"
    wanted = [part for part in PARTS if part in parts]
    if not wanted:
        raise InputError(f"--parts must name at least one of {', '.join(PARTS)}, got none. Name one or omit --parts.")
    if archives is not None:
        _check_archives(archives, [part for part in wanted if not (folder / part).exists()])
    for part in wanted:
        archive = None if archives is None else archives / f"{part}.tar.gz"
        if not (folder / part).exists():
            with building(folder / part) as partial:
                if not (folder / part).exists():
                    _build(folder / part, partial, archive)
        _check_source(folder / part, archive)
        with locked(folder / part):
            _join(folder)
    return folder


def _check_archives(archives: Path, parts: Sequence[Part]) -> None:
    """Raises InputError if the archive of a part is missing, before hours of work on the others."""
    if missing := [part for part in parts if not (archives / f"{part}.tar.gz").is_file()]:
        found = [part for part in PARTS if (archives / f"{part}.tar.gz").is_file()]
        advice = f"prepare only the existing ones: --parts {' '.join(found)}" if found else "correct --archives"
        raise InputError(
            f"{archives} must hold {', '.join(f'{part}.tar.gz' for part in missing)}, got no such file. "
            f"Copy the missing files there, or {advice}."
        )


def _build(folder: Path, partial: Path, archive: Path | None) -> None:
    part = folder.name
    source = archive if archive is not None else folder.with_name(f"{part}.tar.gz")
    if archive is None:
        download(f"{URL}/{part}.tar.gz", source, MD5[part], OFFLINE)
    if source.stat().st_size > 1 << 30:
        logger.info(f"{source}: computing its MD5 ...")
    md5 = file_md5(source)
    published = md5 == MD5[part]
    if archive is None and not published:  # the file existed before
        raise InputError(f"{source} must have the MD5 {MD5[part]}, got {md5}. Delete it and fetch it again.")
    extract(source, partial)
    corpus = partial / "LibriSpeech" / part
    gathered = gather(_read_part(source, corpus), measure, title=f"reading {part}")
    if not gathered.utterances:
        raise _not_librispeech(source, part, f"at least one usable recording, got none in {corpus.name}")
    for about in corpus.parent.iterdir():  # the licence and the list of speakers
        if about.is_file():
            about.rename(corpus / about.name)
    finish(corpus, folder, {UTTERANCES: gathered}, {"md5": md5, **_stamp(source)})
    which = "as published" if published else f"not the published {MD5[part]}"
    report(folder, f"LibriSpeech from {source} (MD5 {md5}, {which})", {part: gathered})


def _stamp(archive: Path) -> dict[str, int]:
    """Returns the size and modification time, which identify a file faster than its MD5 (a minute for 30 GB)."""
    status = archive.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _check_source(folder: Path, archive: Path | None) -> None:
    """Raises InputError unless the complete `folder` was made from `archive`; a missing archive is no error."""
    made_from = read_source(folder, f"LibriSpeech {folder.name}", [UTTERANCES])
    if archive is None or not archive.is_file() or _stamp(archive).items() <= made_from.items():
        return
    if (md5 := file_md5(archive)) != made_from.get("md5"):
        raise InputError(
            f"{folder} must be made from {archive} (MD5 {md5}), got an archive of MD5 {made_from.get('md5')}. "
            f"{ANOTHER_FOLDER}"
        )


def _read_part(archive: Path, corpus: Path) -> list[Utterance | Problem]:
    """Reads the utterances of the unpacked archive, sorted by name, without durations."""
    part = corpus.name
    others = sorted(path.name for path in corpus.parent.glob("*") if path.is_dir() and path != corpus)
    if others or not corpus.is_dir():
        finding = " and ".join(others) or "none"
        raise _not_librispeech(archive, part, f"LibriSpeech/{part} and no other folder, got {finding}")
    files = sorted(search(corpus))
    recordings = sorted((path for path in files if path.suffix == ".flac"), key=lambda path: path.name)
    transcripts: dict[str, str] = {}
    for path in (path for path in files if path.name.endswith(".trans.txt")):
        try:
            lines = read_text(path).split("\n")
        except InputError as error:
            raise InputError(f"{archive}: {error}") from error
        for line in filter(str.strip, lines):
            name, _, transcript = line.strip().partition(" ")
            if name in transcripts:
                raise _not_librispeech(archive, part, f"one transcript for each utterance, got two of {name}")
            transcripts[name] = transcript
    for path, following in itertools.pairwise(recordings):
        if path.name == following.name:
            raise _not_librispeech(archive, part, f"one recording of each utterance, got two of {path.stem}")
    found = [(path.stem, Utterance(path, 0.0, "", path.stem, path.stem.partition("-")[0])) for path in recordings]
    return pair(found, transcripts)


def _not_librispeech(archive: Path, part: str, finding: str) -> InputError:
    return InputError(f"{archive} must hold {finding}. Use the archive as published: {URL}/{part}.tar.gz.")


def _join(folder: Path) -> None:
    """Writes the manifests of the splits from those of the existing parts, unless they are up to date."""
    parts_of = {
        split: {
            part: read_source(folder / part, f"LibriSpeech {part}", [UTTERANCES]).get("md5")
            for part in parts
            if (folder / part).exists()
        }
        for split, parts in SPLITS.items()
    }
    path = folder / "source.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, *NO_JSON):
        before = None
    if not isinstance(before, dict):
        before = {}
    for split, parts in parts_of.items():
        manifest = folder / f"{split}.jsonl"
        if before and before.get(split) == parts and manifest.is_file() == bool(parts):
            continue
        path.unlink(missing_ok=True)  # so that an interrupted update is not taken for a complete one
        if not parts:
            manifest.unlink(missing_ok=True)
            continue
        rows = [row for part in parts for row in read_manifest(folder / part / f"{UTTERANCES}.jsonl")]
        write_manifest(manifest, rows)
        hours = sum(row.duration for row in rows) / 3600
        logger.info(f"{manifest}: {hours:.2f} h  {len(rows):,} utterances, from {', '.join(parts)}")
    if not path.exists():
        write_text(path, json.dumps(parts_of) + "\n")

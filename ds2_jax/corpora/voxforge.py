"""Prepares VoxForge: English sentences read by volunteers with their own microphones (voxforge.org; 16 kHz, GPL).

A submission is an archive SPEAKER-DATE-xxx.tgz with one folder. wav/ or flac/ contains the recordings. etc/PROMPTS has
a line `PATH/NAME TEXT` for each recording (capitals, no punctuation), or etc/prompts-original has a line `NAME Text.`.
etc/README has a line `User Name:`.
"""

import codecs
import hashlib
import html
import logging
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from ds2_jax.corpora.archive import BadArchiveError, extract
from ds2_jax.corpora.build import (
    ANOTHER_FOLDER,
    Gathered,
    building,
    finish,
    gather,
    in_parallel,
    measure,
    pair,
    read_source,
    report,
)
from ds2_jax.data.draw import drawn_order
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.system.download import download
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import writing

logger = logging.getLogger(__package__)

URL = "http://www.repository.voxforge1.org/downloads/SpeechCorpus/Trunk/Audio/Main/16kHz_16bit/"
OFFLINE = "Run again to resume, or name a folder that contains the submissions: prepare voxforge --archives FOLDER."
NUM_DOWNLOADS = 6
"""The number of simultaneous downloads."""
MAX_SHARE_MISSING = 0.1
"""If a larger fraction of the submissions cannot be fetched, the network is probably down, and nothing is built."""
NOT_HAD = ("missing archive", "unreadable archive")
SPLITS = ("train", "dev", "test")
SUFFIX = ".tgz"


class Submission(NamedTuple):
    """The contents of an archive: the speaker, and the utterances or their problems."""

    speaker: str
    found: Sequence[Utterance | Problem]


def prepare(
    root: Path = Path("datasets"),
    archives: Path | None = None,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Path:
    """Makes ROOT/voxforge from the published submissions: train.jsonl, dev.jsonl, test.jsonl, and the unchanged audio.

    No speaker is in two splits. Each user name, regardless of case, is a speaker. Every anonymous submission counts as
    a speaker, so someone who sent several of them may be in two splits.

    Submissions that are damaged or cannot be fetched, recordings without a prompt, prompts without a recording, and
    unreadable audio are left out, counted and listed in left_out.jsonl. The folder appears when it is complete, and a
    complete folder is not changed.

    Args:
        root: folder of the prepared corpora; downloads are kept in ROOT/voxforge-archives.
        archives: folder of the submissions (.tgz), used instead of downloads.
        shares: shares of the speakers in train, dev and test; a split with share 0 is not made.
        seed: seed of the draw of dev and test speakers.

    Returns:
        The folder ROOT/voxforge.

    Raises:
        InputError: a share is negative or the shares do not sum to 1; there is no submission, or too many cannot be
            fetched; there are too few speakers; or ROOT/voxforge was made from other submissions, or with
            another seed or other shares.
    """
    if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise InputError(
            f"--shares must be three shares of at least 0 that sum to 1, got {shares}. Try --shares 0.8 0.1 0.1."
        )
    folder = root / "voxforge"
    if not folder.exists():
        with building(folder) as partial:
            if not folder.exists():
                _build(folder, partial, archives, shares, seed)
    _check_source(folder, archives, shares, seed)
    return folder


def _build(folder: Path, partial: Path, archives: Path | None, shares: Sequence[float], seed: int) -> None:
    partial.mkdir()
    store = archives if archives is not None else folder.with_name("voxforge-archives")
    missing = _fetch(partial, store) if archives is None else []
    paths = _submissions(store)
    source = _source(_listing(paths), shares, seed)  # before damaged archives are deleted

    def unpack(path: Path) -> Submission:
        return _unpack(path, partial, is_ours=archives is None)

    submissions = in_parallel(paths, unpack, title="unpacking", unit="submissions")
    speakers = [submission.speaker for submission in submissions for _ in submission.found]
    found = [each for submission in submissions for each in submission.found]
    gathered = gather(found, measure, title="reading")
    splits = _split(store, gathered, shares, seed)
    by_split = {each.speaker: split for split, rows in splits.items() for each in rows}
    speaker_of = {each.id: speaker for speaker, each in zip(speakers, found, strict=True)}
    problems = [(by_split.get(speaker_of[problem.id]), problem) for problem in gathered.left_out]
    complete = {
        split: Gathered(rows, [problem for where, problem in problems if where == split])
        for split, rows in splits.items()
    }
    others = [*missing, *(problem for where, problem in problems if where is None)]
    finish(partial, folder, complete, source, others)
    report(folder, f"VoxForge, {len(paths):,} submissions from {store}", complete, others)
    if archives is None and any(problem.reason in NOT_HAD for problem in others):
        logger.info(f"  delete {folder} and run again to fetch the missing submissions; the other downloads are kept")


def _source(listing: str | None, shares: Sequence[float], seed: int) -> dict[str, object]:
    source: dict[str, object] = {"seed": seed, "shares": list(shares)}
    return source if listing is None else source | {"submissions": listing}


def _check_source(folder: Path, archives: Path | None, shares: Sequence[float], seed: int) -> None:
    """Raises InputError unless the complete `folder` was made with these arguments.

    A missing folder of archives is no error.
    """
    made_from = read_source(folder, "VoxForge", [split for split, share in zip(SPLITS, shares, strict=True) if share])
    there = archives is not None and archives.is_dir()
    listing = _listing(_submissions(archives)) if archives is not None and there else None
    for name, value in _source(listing, shares, seed).items():
        if made_from.get(name) != value:
            raise InputError(f"{folder} must be made with {name} {value}, got {made_from.get(name)}. {ANOTHER_FOLDER}")


def _listing(paths: Sequence[Path]) -> str:
    """Computes a digest of the archives' names and sizes, which is quick; their contents are some 10 GB."""
    lines = sorted(f"{path.name} {path.stat().st_size}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _submissions(folder: Path) -> list[Path]:
    """Lists the archives in a folder by name."""
    if not folder.is_dir():
        raise InputError(f"--archives must be a folder of submissions, got {folder}. Correct the path.")
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX) and path.name[0] != ".")
    if not paths:
        raise InputError(f"{folder} must hold submissions ({SUFFIX}), got none. Correct the path.")
    return paths


def _fetch(partial: Path, store: Path) -> list[Problem]:
    """Downloads the published submissions that `store` lacks; returns the problems of those that cannot be fetched.

    Raises:
        InputError: the list of submissions cannot be fetched, or too many submissions cannot.
    """
    index = partial / "index.html"
    download(URL, index, advice=OFFLINE, shows_bar=False)
    text = html.unescape(index.read_text(encoding="utf-8", errors="replace"))
    index.unlink()
    names = _linked(text)
    if not names:
        raise InputError(f"{URL} must list submissions (.tgz), got none. {OFFLINE}")
    with writing(store):
        store.mkdir(exist_ok=True)

    def fetch(name: str) -> Problem | None:
        url = URL + quote(name, safe="!$%&'()*+,;=:@~")  # the link may be percent-encoded already
        try:
            download(url, store / _file_name(name), advice="", shows_bar=False)
        except InputError as error:
            return Problem(_file_name(name), url, "missing archive", str(error).strip())
        return None

    fetched = in_parallel(names, fetch, title="downloading", unit="submissions", num_workers=NUM_DOWNLOADS)
    missing = [problem for problem in fetched if problem is not None]
    if len(missing) > MAX_SHARE_MISSING * len(names):
        number = f"{len(missing):,} of {len(names):,}"
        raise InputError(f"{URL} must serve its submissions, got errors for {number}: {missing[0].detail} {OFFLINE}")
    return missing


def _linked(page: str) -> list[str]:
    """Lists the archives in the same folder that an HTML index links to, as the links spell them, sorted."""
    links = re.findall(r"""href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", page, flags=re.IGNORECASE)
    names = {"".join(link).removeprefix(URL).removeprefix(urlsplit(URL).path).removeprefix("./") for link in links}
    return sorted(name for name in names if re.fullmatch(r"[^/?#]+\.tgz", name) and name[0] != ".")


def _file_name(link: str) -> str:
    """Decodes a link to a file name; a link that would decode to a path stays as it is."""
    try:
        name = unquote(link, errors="strict")
    except UnicodeDecodeError:
        return link
    return link if re.search(r"[/\\\0]", name) or name[0] == "." else name


def _unpack(archive: Path, partial: Path, *, is_ours: bool) -> Submission:
    """Unpacks a submission into its own folder in `partial`, and reads it.

    A damaged archive that was downloaded here is deleted, so that the next build fetches it again.
    """
    name = archive.name.removesuffix(SUFFIX)
    temporary, folder = partial / f".{name}", partial / name
    try:
        extract(archive, temporary, shows_bar=False)
    except BadArchiveError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_ours:
            archive.unlink()
        return Submission("", [Problem(archive.name, str(archive), "unreadable archive", str(error))])
    inside = list(temporary.iterdir()) if temporary.exists() else []
    top = inside[0] if len(inside) == 1 and inside[0].is_dir() else temporary
    with writing(folder):
        top.rename(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    return _read(folder)


def _read(folder: Path) -> Submission:
    """Reads the recordings and prompts of an unpacked submission, without durations."""
    speaker = _speaker(folder)
    audio = next((path for name in ("wav", "flac") for path in _files(folder / name)), None)
    recordings = [] if audio is None else _files(audio.parent)
    prompts, problems = _prompts(folder)
    refused = {problem.id for problem in problems}
    found = [
        (key, Utterance(path, 0.0, "", f"{folder.name}/{path.name}", speaker))
        for path in recordings
        if (key := f"{folder.name}/{path.stem}") not in refused
    ]
    paired = [*pair(found, prompts), *problems]
    if not paired:
        paired = [Problem(folder.name, str(folder), "missing audio", "neither recordings nor prompts in it")]
    return Submission(speaker, paired)


def _speaker(folder: Path) -> str:
    """Finds the name of the speaker, in lower case, in etc/README or in the name of the folder."""
    named = re.match(r"(.+?)-\d{8}", folder.name)
    name = named[1] if named else folder.name
    for readme in _files(folder / "etc", "readme"):
        text = readme.read_text(encoding="utf-8", errors="replace")
        if said := re.search(r"^\s*User Name[ \t]*:[ \t]*(\S.*?)\s*$", text, flags=re.IGNORECASE | re.MULTILINE):
            name = said[1]
    return folder.name if name.casefold() == "anonymous" else name.casefold()


def _prompts(folder: Path) -> tuple[dict[str, str], list[Problem]]:
    """Reads the transcripts by SUBMISSION/NAME, and finds the lines that cannot be used."""
    prompts: dict[str, str] = {}
    problems: dict[str, Problem] = {}
    for path in _files(folder / "etc", "prompts") or _files(folder / "etc", "prompts-original"):
        for line in path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines():
            name, *rest = line.split(maxsplit=1) or [b""]
            if not name:
                continue
            key = f"{folder.name}/{name.decode(errors='replace').split('/')[-1]}"
            detail = ""
            try:
                text = b"".join(rest).decode().strip()
            except UnicodeDecodeError as error:
                detail = f"{path} must be UTF-8 text, got {error.reason} in {line!r}"
            else:
                if prompts.setdefault(key, text) != text:
                    detail = f"{path} must give {key} one transcript, got {prompts[key]!r} and {text!r}"
            if detail:
                problems[key] = Problem(key, str(path), "unreadable transcript", detail)
    return {key: text for key, text in prompts.items() if key not in problems}, list(problems.values())


def _files(folder: Path, name: str | None = None) -> list[Path]:
    """Lists the files of a folder that are not hidden; with `name`, those of that name in upper or lower case."""
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return [path for path in files if name is None or path.name.lower() == name]


def _split(store: Path, gathered: Gathered, shares: Sequence[float], seed: int) -> dict[str, list[Utterance]]:
    """Divides the utterances into the splits that have a share; each gets at least one speaker."""
    speakers = drawn_order((utterance.speaker for utterance in gathered.utterances), seed)
    wanted = {split: share for split, share in zip(SPLITS, shares, strict=True) if share}
    if len(speakers) < len(wanted):
        raise InputError(
            f"{store} must hold readable submissions of {len(wanted)} speakers, for {', '.join(wanted)}, got "
            f"{len(speakers)}. Add submissions, or leave out a split: --shares 1 0 0."
        )
    split_of: dict[str, str] = {}
    order = [split for split in ("test", "dev", "train") if split in wanted]
    for position, split in enumerate(order, start=1):
        left = speakers[len(split_of) :]
        others = len(order) - position  # one speaker is left for each of them
        number = min(max(1, round(wanted[split] * len(speakers))), len(left) - others) if others else len(left)
        split_of |= dict.fromkeys(left[:number], split)
    rows: dict[str, list[Utterance]] = {split: [] for split in wanted}
    for utterance in gathered.utterances:
        rows[split_of[utterance.speaker]].append(utterance)
    return rows

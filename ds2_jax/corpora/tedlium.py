"""Prepares TED-LIUM releases 2 and 3: TED talks in English (University of Le Mans, 2014 and 2018; 16 kHz, NIST Sphere).

The talks are cut into segments, exact to the sample, and stored as 16-bit FLAC. In release 3 the folder data/ holds
every talk once. Links in legacy/train name the talks of the training set, and legacy/dev and legacy/test hold the dev
and test talks of release 2.
"""

import dataclasses
import functools
import io
import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path, PurePosixPath
from tarfile import TarInfo
from typing import Literal

import numpy as np
import soundfile

from ds2_jax.audio.reading import read_audio
from ds2_jax.corpora.archive import extract, fingerprint
from ds2_jax.corpora.build import (
    Journal,
    begin,
    building,
    check_source,
    finish,
    in_parallel,
    is_begun,
    read_source,
    report,
    sort_out,
)
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.system.checks import UNPRINTABLE
from ds2_jax.system.download import download
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.files import write_text, writing

URLS = {
    2: "https://www.openslr.org/resources/19/TEDLIUM_release2.tar.gz",
    3: "https://www.openslr.org/resources/51/TEDLIUM_release-3.tgz",
}
SHA256 = {  # OpenSLR publishes no checksums; these are from torchaudio (src/torchaudio/datasets/tedlium.py)
    2: "93281b5fcaaae5c88671c9d000b443cb3c7ea3499ad12010b3934ca41a7b9c58",
    3: "ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
}
OFFLINE = "Run again to resume, or give a copy of the archive: prepare tedlium --archive FILE."
ROOTS = {2: "TEDLIUM_release2", 3: "TEDLIUM_release-3"}
SPLITS = ("train", "dev", "test")
SAMPLE_RATE = 16_000
"""Sample rate of all talks in Hz."""
MAX_OVERSHOOT = 0.5
"""Seconds by which a segment may exceed its talk. It is then cut at the end, as in Kaldi's extract-segments."""
IGNORED = "ignore_time_segment_in_scoring"
VARIANT = re.compile(r"\(\d+\)")
"""A mark after a word that states which of the dictionary's pronunciations was used."""
MARKUP = re.compile(r"<[^<>]*>|\{[^{}]*\}|\[[^\[\]]*\]")
SUFFIX = re.compile(r" (?='(?:s|re|ve|ll|d|m|t)?(?: |$))")
"""The space before the second half of a contraction, or before the apostrophe of a plural possessive (workers ')."""
STM = "stm"
"""The folder of the STM files in the folder that `building` makes."""
TALKS = "talks"
"""The folder of the talks that are still to cut."""
NAMES = "names.json"
"""The file that lists the names in the archive."""
JOURNAL = "talks.jsonl"
"""The journal of the talks that have been cut."""


@dataclasses.dataclass(frozen=True)
class Talk:
    """A talk of a split: its name, which also names the speaker, and its files in the archive."""

    split: str
    name: str
    stm: str
    sph: str

    @property
    def key(self) -> str:
        """A name that is unique among all talks."""
        return f"{self.split}/{self.name}"


@dataclasses.dataclass(frozen=True)
class StmSegment:
    """A line of an STM file: what is said from sample `start` of its talk up to but not including sample `end`."""

    id: str
    start: int
    end: int
    transcript: str


def prepare(root: Path = Path("datasets"), archive: Path | None = None, release: Literal[2, 3] | None = None) -> Path:
    """Makes ROOT/tedlium from TED-LIUM: train.jsonl, dev.jsonl, test.jsonl, and each segment as a FLAC file.

    Release 2 has 207 hours, release 3 has 452; both have the same dev and test talks. The training set of release 3 is
    the one in its folder legacy. Besides the archive, this command needs about the archive's size on disk while it cuts
    the talks, and half of that at the end. You may delete the archive afterwards.

    Transcripts are cleaned. <unk>, <sil>, {NOISE}, other words in brackets, and marks of pronunciations such as the (2)
    in "a(2)" are removed.
    Contractions written in two halves are joined ("it 's" becomes "it's"). Some segments are left out and listed in
    left_out.jsonl: those marked ignore_time_segment_in_scoring, those without words, and those with times outside the
    talk.

    If the folder is complete, the command does nothing. After an interruption, it continues.

    Args:
        root: folder of the prepared corpora, which also keeps the download.
        archive: a copy of TEDLIUM_release2.tar.gz or TEDLIUM_release-3.tgz, used instead of a download.
        release: the release to download, by default 3; with an archive, the release that it must be.

    Returns:
        The folder ROOT/tedlium.

    Raises:
        InputError: the archive does not exist and cannot be downloaded, is damaged, or is not TED-LIUM; or ROOT/tedlium
            was made from another archive.
    """
    folder = root / "tedlium"
    wanted: dict[str, object] = {} if release is None else {"release": release}
    if not folder.exists() and archive is None:
        archive = root / PurePosixPath(URLS[release or 3]).name
        download(URLS[release or 3], archive, SHA256[release or 3], OFFLINE)
    if archive is not None and (archive.is_file() or not folder.exists()):
        wanted |= fingerprint(archive)
    if not folder.exists() and archive is not None:
        with building(folder, wanted) as partial:
            if not folder.exists():
                _build(folder, partial, archive, wanted)
    check_source(folder, "TED-LIUM", wanted)
    return folder


def _build(folder: Path, partial: Path, archive: Path, wanted: Mapping[str, object]) -> None:
    if not is_begun(partial, wanted):
        files, links = _unpack_lists(archive, partial / STM)
        release = _find_release(archive, files | links, wanted.get("release"))
        for split, items in _find_talks(ROOTS[release], files, links).items():
            if not any(isinstance(each, Talk) for each in items):
                raise InputError(f"{archive} must hold talks for {split}, got none. Use the archive as published.")
        write_text(partial / NAMES, json.dumps([sorted(files), sorted(links)]))
        begin(partial, {**wanted, "release": release})
    source = read_source(partial, "TED-LIUM", manifests=())
    files, links = map(set, json.loads((partial / NAMES).read_text(encoding="utf-8")))
    found = _find_talks(ROOTS[3 if source["release"] == 3 else 2], files, links)
    if not source.get("unpacked"):
        talks = [each for items in found.values() for each in items if isinstance(each, Talk)]
        places = {talk.sph: f"{TALKS}/{talk.key}.sph" for talk in talks}
        extract(archive, partial, lambda member: places.get(str(PurePosixPath(member.name))))
        begin(partial, source | {"unpacked": True})
    splits = {}
    with Journal(partial / JOURNAL) as journal:
        make = functools.partial(_make_utterances, partial, journal)
        for split, items in found.items():
            made = in_parallel(items, make, title=split, unit="talks")
            splits[split] = sort_out(each for utterances in made for each in utterances)
    finish(partial, folder, splits, {name: value for name, value in source.items() if name != "unpacked"})
    shutil.rmtree(folder / TALKS, ignore_errors=True)
    for name in (NAMES, JOURNAL):
        (folder / name).unlink()
    report(folder, f"TED-LIUM release {source['release']}, from {archive}", splits)


def _unpack_lists(archive: Path, folder: Path) -> tuple[set[str], set[str]]:
    """Unpacks the STM files and checks the whole archive.

    Returns:
        The names of the STM and Sphere files, and the names of links to such files.
    """
    files: set[str] = set()
    links: set[str] = set()

    def choose(member: TarInfo) -> str | None:
        path = PurePosixPath(member.name)
        if path.suffix not in (".stm", ".sph"):
            return None
        (files if member.isfile() else links).add(str(path))
        return str(path) if path.suffix == ".stm" else None

    extract(archive, folder, choose)
    return files, links


def _find_release(archive: Path, names: Set[str], wanted: object) -> int:
    """Finds the release that the archive contains.

    Raises:
        InputError: the archive contains no release, or not the wanted one.
    """
    found = [release for release, root in ROOTS.items() if any(name.startswith(f"{root}/") for name in names)]
    if not found:
        raise InputError(
            f"{archive} must hold {' or '.join(ROOTS.values())} with its talks, got neither. Use the archive as "
            f"published: {' or '.join(URLS.values())}."
        )
    if wanted not in (None, found[0]):
        raise InputError(f"{archive} must be release {wanted}, got release {found[0]}. Correct --release or --archive.")
    return found[0]


def _find_talks(root: str, files: Set[str], links: Set[str]) -> dict[str, list[Talk | Problem]]:
    """Lists the talks of each split, sorted by name. A talk that cannot be used becomes a Problem.

    A link in release 3's legacy/ stands for the talk of the same name in data/; its target is ignored. No talk of dev
    or test enters train.

    Differs: TFDS and torchaudio train on all of data/ of release 3. This code trains on legacy/train, as Kaldi and
        lhotse do.
    """
    legacy = root == ROOTS[3]
    folders = {split: [f"{root}/legacy/{split}", f"{root}/data"] if legacy else [f"{root}/{split}"] for split in SPLITS}
    names = {split: _stems(files | links, folders[split][0]) for split in SPLITS}
    everything = _stems(files, f"{root}/data")
    names["train"] = names["train"] or everything
    reserved = names["dev"] | names["test"]
    found: dict[str, list[Talk | Problem]] = {}
    for split in SPLITS:
        usable = names[split] - reserved if split == "train" else names[split]
        found[split] = [_find_files(split, name, folders[split], files) for name in sorted(usable)]
    for name in sorted(names["train"] & reserved | (everything - names["train"] - reserved)):
        detail = "it is in dev or test" if name in reserved else "legacy/train does not name it"
        found["train"].append(Problem(name, f"{root}/data/sph/{name}.sph", "not in the split", detail))
    return found


def _stems(names: Set[str], folder: str) -> set[str]:
    """Returns the names of the talks that have a file in FOLDER/stm or FOLDER/sph."""
    paths = map(PurePosixPath, names)
    return {path.stem for path in paths if str(path.parent) in (f"{folder}/stm", f"{folder}/sph")}


def _find_files(split: str, name: str, folders: Iterable[str], files: Set[str]) -> Talk | Problem:
    """Selects both files of a talk from the first folder that has both: times fit only the recording beside them."""
    pairs = [(f"{folder}/stm/{name}.stm", f"{folder}/sph/{name}.sph") for folder in folders]
    for stm, sph in pairs:
        if stm in files and sph in files:
            return Talk(split, name, stm, sph)
    if any(stm in files for stm, _ in pairs):
        return Problem(name, pairs[0][1], "missing audio", f"the archive holds no recording for {name}.stm")
    return Problem(name, pairs[0][1], "not transcribed", f"the archive holds no {pairs[0][0]}")


def _make_utterances(partial: Path, journal: Journal, talk: Talk | Problem) -> list[Utterance | Problem]:
    """Cuts a talk unless an earlier run did, and deletes its recording."""
    if isinstance(talk, Problem):
        return [talk]
    segments = list(_read_segments(partial / STM / talk.stm, talk))
    recording = partial / TALKS / f"{talk.key}.sph"
    num_samples = journal.once(talk.key, lambda: _cut(recording, partial, talk, segments))
    recording.unlink(missing_ok=True)
    if isinstance(num_samples, str):
        return [Problem(talk.name, talk.sph, "unreadable audio", num_samples)]
    made: list[Utterance | Problem] = []
    for segment in segments:
        fitted = _fit(segment, talk, int(num_samples)) if isinstance(segment, StmSegment) else segment
        if isinstance(fitted, Problem):
            made.append(fitted)
        else:
            duration = (fitted.end - fitted.start) / SAMPLE_RATE
            path = _audio_path(partial, talk, fitted)
            made.append(Utterance(path, duration, fitted.transcript, fitted.id, talk.name))
    return made


def _cut(recording: Path, partial: Path, talk: Talk, segments: Iterable[StmSegment | Problem]) -> int | str:
    """Writes the segments of a talk; returns its number of samples, or why it cannot be read."""
    if not recording.is_file():  # the machine crashed after deleting the recording and before saving the journal
        raise InputError(f"{recording} must exist to be cut, got none. Delete {partial} and run again.")
    try:
        waveform = read_audio(recording, SAMPLE_RATE)
    except InputError as error:
        return str(error).replace(str(recording), talk.sph)
    samples = np.clip(np.rint(waveform * 2**15), -(2**15), 2**15 - 1).astype(np.int16)  # equal to the file's at 16 kHz
    for segment in segments:
        fitted = _fit(segment, talk, len(samples)) if isinstance(segment, StmSegment) else segment
        if isinstance(fitted, StmSegment):
            encoded = io.BytesIO()  # libsndfile would report a full disk with its own error
            soundfile.write(encoded, samples[fitted.start : fitted.end], SAMPLE_RATE, format="FLAC")
            path = _audio_path(partial, talk, fitted)
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded.getvalue())
    return len(samples)


def _audio_path(partial: Path, talk: Talk, segment: StmSegment) -> Path:
    return partial / "audio" / talk.key / f"{segment.id}.flac"


def _read_segments(path: Path, talk: Talk) -> Iterator[StmSegment | Problem]:
    """Yields the segments of a talk, named TALK-LINE. A line without a usable segment becomes a Problem.

    A line is `TALK CHANNEL SPEAKER START END <LABELS> WORDS`, with times in seconds. Lines that begin with ;; are
    comments.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        yield Problem(talk.name, talk.sph, "unusable line", f"{talk.stm} must be UTF-8, got {error.reason}")
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        name = f"{talk.name}-{number:04d}"
        problem = functools.partial(Problem, name, talk.sph)
        where = f"{talk.stm}, line {number}"
        fields = line.split(maxsplit=5)
        try:
            start, end = float(fields[3]), float(fields[4])
        except (IndexError, ValueError):
            start = end = math.nan
        if UNPRINTABLE.search(line):
            yield problem("unusable line", f"{where} must be printable text, got {shorten(repr(line))}")
        elif math.isnan(start + end):
            yield problem("unusable line", f"{where} must give a start and an end, got {shorten(repr(line))}")
        elif IGNORED in line.lower():
            yield problem("not transcribed", f"{where}: {IGNORED}")
        elif not 0 <= start < end < math.inf:
            yield problem(
                "outside the recording", f"{where} must start at 0 s or later and end later, got {start:g} to {end:g} s"
            )
        elif not (transcript := clean("".join(fields[5:]))):
            yield problem("empty transcript", f"{where} has no word: {shorten(repr(line))}")
        else:
            yield StmSegment(name, round(start * SAMPLE_RATE), round(end * SAMPLE_RATE), transcript)


def clean(text: str) -> str:
    """Extracts the spoken words from the labels and words of an STM line.

    It removes words in <>, {} or [] (labels, <unk>, <sil>, {NOISE}) and marks of pronunciations such as (2),
    and joins the halves of contractions.

    Source: Kaldi's egs/tedlium/s5_r3 (prepare_data.sh, join_suffix.py), SpeechBrain's recipe for TED-LIUM 2.
    Differs: Kaldi keeps <unk> and {NOISE} as words, which a character model cannot write. Kaldi also joins every word
        that begins with an apostrophe ("get 'em" becomes "get'em"); SpeechBrain joins only contractions.
    """
    words = MARKUP.sub(" ", VARIANT.sub("", text)).split()
    return SUFFIX.sub("", " ".join(words))


def _fit(segment: StmSegment, talk: Talk, num_samples: int) -> StmSegment | Problem:
    """Cuts a segment at the end of its talk, or explains why it lies outside the talk."""
    end = min(segment.end, num_samples)
    if segment.start < end and segment.end <= num_samples + MAX_OVERSHOOT * SAMPLE_RATE:
        return dataclasses.replace(segment, end=end)
    times = f"{segment.start / SAMPLE_RATE:g} to {segment.end / SAMPLE_RATE:g} s"
    detail = f"must lie within the {num_samples / SAMPLE_RATE:g} s of {talk.sph}, got {times}"
    return Problem(segment.id, talk.sph, "outside the recording", detail)

"""Prepares your own recordings: makes manifests from a folder of audio and transcripts in one of three layouts."""

import collections
import dataclasses
import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Literal, NamedTuple, cast

import tyro

from ds2_jax.audio.reading import AUDIO_SUFFIXES
from ds2_jax.corpora.build import Gathered, building, finish, gather, in_parallel, measure, pair, read_source, report
from ds2_jax.data.manifest import Problem, Utterance, count_reasons, read_text
from ds2_jax.system.checks import UNPRINTABLE
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.files import search
from ds2_jax.system.program import command

logger = logging.getLogger(__package__)

Layout = Literal["metadata", "wav-txt", "beside"]
LAYOUTS: dict[Layout, str] = {
    "metadata": "wavs/a.wav, and a line a|as written|as spoken in metadata.csv",
    "wav-txt": "wav/a.wav, txt/a.txt",
    "beside": "a.wav, a.txt beside it",
}
"""The layouts, in the order in which they are tried."""
METADATA = "metadata.csv"
TEXT_SUFFIX = ".txt"
SPLIT_OF = {"train": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "test": "test"}
"""The split for each folder name. If there is such a folder, folders test_NAME and test-NAME are splits too."""
ALL = "all"
"""The name of the manifest if the source has no splits."""


class Part(NamedTuple):
    """The files of a split, relative to its folder `top` in the source; `top` is "" for the source itself."""

    top: str
    files: Sequence[PurePath]


class Scan(NamedTuple):
    """The contents of a source.

    Attributes:
        source: the folder.
        files: audio and text files, relative to the folder.
        others: the number of other files of each kind.
        parts: the files by split.
    """

    source: Path
    files: Sequence[PurePath]
    others: collections.Counter[str]
    parts: Mapping[str, Part]


def prepare(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    name: str,
    layout: Literal["auto", "beside", "wav-txt", "metadata"] = "auto",
    root: Path = Path("datasets"),
) -> Path:
    """Makes ROOT/NAME from a folder of recordings and transcripts. The manifests refer to the audio, so do not move it.

    The layouts are beside (a.wav, a.txt), wav-txt (wav/a.wav, txt/a.txt, as in deepspeech.pytorch) and metadata
    (wavs/a.wav and a line a|as written|as spoken in metadata.csv, as in LJSpeech). Text must be UTF-8. Audio may be
    WAV, FLAC, OGG, MP3 or NIST Sphere.

    If SOURCE has any of the folders train, dev (or val, valid, validation) and test, each becomes a manifest, and so do
    folders such as test_NAME. Otherwise there is one manifest, all.jsonl. If there are several folders below those, or
    below wav/ and wavs/, they name the speakers: anna/a.wav, ben/a.wav.

    Recordings without a transcript, transcripts without a recording or without text, unreadable audio, and recordings
    outside the splits are left out, counted and listed in left_out.jsonl. Links to folders are followed. Hidden files
    are counted and ignored.

    Args:
        source: folder of recordings and transcripts.
        name: name of the corpus.
        layout: the layout; auto selects the first one that fits. The layout is printed.
        root: folder of the prepared corpora.

    Returns:
        The folder ROOT/NAME.

    Raises:
        InputError: SOURCE is not a folder, does not have the layout, or has a split with nothing usable; `name` is not
            the name of a folder; a text is not UTF-8; or ROOT/NAME is something else, or was made from another folder
            or from an earlier state of it.
    """
    folder = root / name
    _check_place(source, name, folder)
    scan = _scan(source)
    if not folder.exists():
        with building(folder) as partial:
            if not folder.exists():
                _build(folder, partial, scan, layout)
    _check_source(folder, scan, layout)
    return folder


def _check_place(source: Path, name: str, folder: Path) -> None:
    if not source.is_dir():
        raise InputError(f"SOURCE must be a folder, got {source}. Correct the path.")
    if not name or name != Path(name).name or name[0] == "." or UNPRINTABLE.search(name):
        raise InputError(f"--name must be a folder name, without '/' and not hidden, got {name!r}. Try --name mine.")
    if folder.exists() and not (folder / "source.json").is_file():
        raise _in_use(folder)  # it may be the recordings, so no advice to delete it


def _in_use(folder: Path) -> InputError:
    rule = "be new, or that of a corpus made from a folder"
    return InputError(f"--name must {rule}, got {folder.name}: {folder} holds something else. Choose another name.")


def _scan(source: Path) -> Scan:
    """Lists the files below a folder.

    Raises:
        InputError: a folder cannot be read, or two folders hold the same split.
    """
    files: list[PurePath] = []
    others: collections.Counter[str] = collections.Counter()
    for path in search(source):
        file, suffix = PurePath(path).relative_to(source), path.suffix.lower()
        if suffix in AUDIO_SUFFIXES or suffix == TEXT_SUFFIX or file.name == METADATA:
            files.append(file)
        else:
            others[suffix or "without a suffix"] += 1
    return Scan(source.absolute(), files, others, _parts(source, files))


def _parts(source: Path, files: Iterable[PurePath]) -> dict[str, Part]:
    """Groups files by split."""
    below: dict[str, list[PurePath]] = {}
    for file in files:
        below.setdefault(file.parts[0] if len(file.parts) > 1 else "", []).append(file)
    tops: dict[str, str] = {}
    for top in below:
        if split := SPLIT_OF.get(top):
            other = tops.setdefault(split, top)
            if other != top:
                raise InputError(f"{source} must hold one folder for {split}, got {other} and {top}. Rename one.")
    if not tops:
        return {ALL: Part("", list(files))}
    tops |= {top: top for top in below if re.match("test[-_].", top)}
    order = [split for split in dict.fromkeys(SPLIT_OF.values()) if split in tops]
    order += sorted(tops.keys() - order)
    return {split: Part(tops[split], [file.relative_to(tops[split]) for file in below[tops[split]]]) for split in order}


def _build(folder: Path, partial: Path, scan: Scan, wanted: str) -> None:
    layout = _find_layout(scan, wanted)
    logger.info(f"{scan.source}: layout {layout} ({LAYOUTS[layout]})")
    if scan.others:
        logger.info(f"{scan.source}: other files ignored: {_listing(scan.others)}")
    found = _with_speakers({split: _read(scan.source, part, layout) for split, part in scan.parts.items()})
    splits = {split: gather(items, measure, title=f"reading {split}") for split, items in found.items()}
    for split, gathered in splits.items():
        _check_used(scan.source / scan.parts[split].top, gathered)
    outside = [
        Problem(file.as_posix(), str(scan.source / file), "outside the splits", "in no folder that is a split")
        for file in _audio(scan.files)
        if ALL not in splits and file.parts[0] not in {part.top for part in scan.parts.values()}
    ]
    partial.mkdir()
    made_from = {"source": str(scan.source), "layout": layout, "files": _digest(scan)}
    finish(partial, folder, splits, made_from, outside)
    report(folder, f"from {scan.source}", splits, outside)
    if ALL in splits:
        split = command("data", "split", folder / f"{ALL}.jsonl", "--out", "FOLDER")
        logger.info(f"  split it by speaker: {split}")


def _check_source(folder: Path, scan: Scan, layout: str) -> None:
    """Raises InputError unless the complete `folder` was made with these arguments."""
    corpus = f"{scan.source} under the name {folder.name}"
    made_from = read_source(folder, corpus, ())
    if "source" not in made_from:
        raise _in_use(folder)
    wanted = {"source": str(scan.source), "files": _digest(scan)}
    if layout != "auto":
        wanted["layout"] = layout
    for name, value in wanted.items():
        if (found := made_from.get(name)) == value:
            continue
        finding = f"{name} {value}, got {found}"
        if name == "files" and found is not None:
            finding = f"{scan.source} as it is, got an earlier state of it"
        raise InputError(
            f"{folder} must be made from {finding}. Choose another --name, or delete that folder: it holds manifests "
            "and no audio."
        )
    read_source(folder, corpus, scan.parts)


def _digest(scan: Scan) -> str:
    """Computes a digest of the files' paths, sizes and modification times."""
    digest = hashlib.sha256()
    for file in scan.files:
        status = (scan.source / file).lstat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _audio(files: Iterable[PurePath]) -> list[PurePath]:
    return [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]


def _find_layout(scan: Scan, wanted: str) -> Layout:
    """Finds the wanted layout, or the first one that fits.

    Raises:
        InputError: the wanted layout does not fit, or no layout does.
    """
    fitting = [layout for layout in LAYOUTS if any(_fits(part, layout) for part in scan.parts.values())]
    found = _listing(collections.Counter(file.suffix.lower() for file in scan.files) + scan.others) or "no file"
    if wanted == "auto":
        if fitting:
            return fitting[0]
        known = "; ".join(f"{layout}: {about}" for layout, about in LAYOUTS.items())
        raise InputError(
            f"{scan.source} must have one of the layouts {known}; got {found}, and no audio with its transcript. "
            "Rearrange the files, or write a manifest yourself."
        )
    for layout in fitting:
        if layout == wanted:
            return layout
    others = f"--layout {fitting[0]} fits" if fitting else "None of the others fits either"
    about = LAYOUTS[cast(Layout, wanted)]
    raise InputError(f"{scan.source} must have the layout {wanted} ({about}), got {found}. {others}.")


def _fits(part: Part, layout: Layout) -> bool:
    keys = {_audio_key(file, layout) for file in _audio(part.files)} - {""}
    if layout == "metadata":
        return PurePath(METADATA) in part.files and bool(keys)
    return not keys.isdisjoint(_texts(part, layout))


def _audio_key(file: PurePath, layout: Layout) -> str:
    """Returns the key that a recording and its transcript share; "" if the recording is outside the layout's folder."""
    if layout == "metadata":
        return _without(file, "wavs") if file.parts[0] == "wavs" else ""
    return _without(file, "wav" if layout == "wav-txt" else "")


def _texts(part: Part, layout: Layout) -> dict[str, PurePath]:
    """Finds the transcript files by key."""
    files = [file for file in part.files if file.suffix.lower() == TEXT_SUFFIX]
    texts = {_without(file, "txt" if layout == "wav-txt" else ""): file for file in files}
    return {key: file for key, file in texts.items() if key}


def _without(file: PurePath, folder: str) -> str:
    """Removes the suffix and the first folder named `folder` from a path; returns "" if the path has no such folder."""
    *folders, _ = file.parts
    if not folder:
        return file.with_suffix("").as_posix()
    if folder not in folders:
        return ""
    folders.remove(folder)
    return PurePath(*folders, file.stem).as_posix()


def _read(source: Path, part: Part, layout: Layout) -> list[Utterance | Problem]:
    """Reads the utterances of a split, without durations; their ids begin with the split's folder."""
    top = source / part.top
    if layout == "metadata":
        transcripts = _read_metadata(top / METADATA) if PurePath(METADATA) in part.files else {}
    else:
        texts = _texts(part, layout)
        read = in_parallel(
            [top / file for file in texts.values()], read_text, title="reading transcripts", unit="files"
        )
        transcripts = {key: " ".join(text.split()) for key, text in zip(texts, read, strict=True)}
    prefix = f"{part.top}/" if part.top else ""
    recordings = []
    for file in _audio(part.files):
        key = _audio_key(file, layout)
        first, slash, _ = key.partition("/")
        utterance = Utterance(top / file, 0.0, "", f"{prefix}{file.as_posix()}", first if slash else "")
        recordings.append((f"{prefix}{key}", utterance))
    return pair(recordings, {f"{prefix}{key}": transcript for key, transcript in transcripts.items()})


def _with_speakers(found: dict[str, list[Utterance | Problem]]) -> dict[str, list[Utterance | Problem]]:
    """Removes the speaker from every utterance if there is only one: a single folder does not name a speaker."""
    speakers = {each.speaker for items in found.values() for each in items if isinstance(each, Utterance)}
    if len(speakers - {""}) > 1:
        return found
    return {
        split: [dataclasses.replace(each, speaker="") if isinstance(each, Utterance) else each for each in items]
        for split, items in found.items()
    }


def _check_used(folder: Path, gathered: Gathered) -> None:
    if gathered.utterances:
        return
    problems = gathered.left_out
    finding = "none"
    if problems:
        finding = f"{count_reasons(problems)}. The first: {problems[0].id} ({shorten(problems[0].detail, 300)})"
    raise InputError(
        f"{folder} must hold at least one usable recording with its transcript, got {finding}. Correct or add files."
    )


def _listing(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))


def _read_metadata(path: Path) -> dict[str, str]:
    """Reads the transcripts by recording name; the transcript is the last column.

    Raises:
        InputError: a line has no name or not two or three columns, or a name occurs twice.
    """
    transcripts: dict[str, str] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        name, *columns = (column.strip() for column in line.split("|"))
        if not name or len(columns) not in (1, 2):
            raise InputError(
                f"{path}, line {number}, must be NAME|TRANSCRIPT or NAME|WRITTEN|SPOKEN, got {shorten(repr(line))}. "
                "Correct it."
            )
        if name in transcripts:
            raise InputError(f"{path}, line {number}, must name each recording once, got {name!r} again. Remove one.")
        transcripts[name] = columns[-1]
    return transcripts

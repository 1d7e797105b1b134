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

from ds2_jax.corpora.build import Gathered, building, finish, gather, in_parallel, measure, pair, read_source, report
from ds2_jax.corpora.table import NO_COLUMNS, SUFFIXES, Columns, Recordings, find_table, read_transcripts
from ds2_jax.data.manifest import Problem, Utterance, count_reasons, read_text
from ds2_jax.system.checks import UNPRINTABLE
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.files import search
from ds2_jax.system.program import command

logger = logging.getLogger(__package__)

Layout = Literal["metadata", "wav-txt", "beside"]
LAYOUTS: dict[Layout, str] = {
    "metadata": "recordings, and a table of their transcripts such as metadata.csv",
    "wav-txt": "wav/a.wav, txt/a.txt",
    "beside": "a.wav, a.txt beside it",
}
"""The layouts, in the order in which they are tried. A table is tried first if the recordings are in wavs/, as in
LJSpeech, and last otherwise."""
METADATA = "metadata.csv"
TABLES = (METADATA, "metadata.tsv", "transcripts.csv", "transcripts.tsv", "transcript.csv", "transcript.tsv")
"""Names of tables; a table of another name is read if it is the only one, or --metadata names it."""
TABLE_SUFFIXES = (".csv", ".tsv")
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
        table: the table that the user names.
        columns: the columns that the user names.
    """

    source: Path
    files: Sequence[PurePath]
    others: collections.Counter[str]
    parts: Mapping[str, Part]
    table: Path | None = None
    columns: Columns = NO_COLUMNS


def prepare(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    name: str,
    layout: Literal["auto", "beside", "wav-txt", "metadata"] = "auto",
    root: Path = Path("datasets"),
    metadata: Path | None = None,
    audio_column: str | None = None,
    text_column: str | None = None,
) -> Path:
    """Makes ROOT/NAME from a folder of recordings and transcripts. The manifests refer to the audio, so do not move it.

    The layouts are beside (a.wav, a.txt), wav-txt (wav/a.wav, txt/a.txt, as in deepspeech.pytorch) and metadata: a
    table of recordings and transcripts, CSV or TSV, with or without a header, or LJSpeech's name|as written|as spoken.
    It names recordings with or without folder and suffix. Text must be UTF-8. Audio may have any format that
    transcribe reads.

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
        metadata: the table of transcripts, for the layout metadata. Default: metadata.csv, transcripts.csv or the like
            in SOURCE or in the folder of a split, or the only table there.
        audio_column: the table's column of recordings, by name or by number from 1. Default: a name such as path or
            file, else the first column.
        text_column: the table's column of transcripts, by name or by number from 1. Default: a name such as transcript
            or text, else the second column.

    Returns:
        The folder ROOT/NAME.

    Raises:
        InputError: SOURCE is not a folder, does not have the layout, or has a split with nothing usable; `name` is not
            the name of a folder; a text is not UTF-8; or ROOT/NAME is something else, or was made from another folder
            or from an earlier state of it.
    """
    folder = root / name
    _check_place(source, name, folder)
    columns = Columns(audio_column, text_column)
    if metadata is not None or any(columns):
        if layout not in ("auto", "metadata"):
            raise InputError(f"--layout must be metadata if a table or its columns are named, got {layout}. Remove it.")
        layout = "metadata"
    scan = _scan(source, None if metadata is None else find_table(source, metadata), columns)
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


def _scan(source: Path, table: Path | None, columns: Columns) -> Scan:
    """Lists the files below a folder.

    Raises:
        InputError: a folder cannot be read, or two folders hold the same split.
    """
    files: list[PurePath] = []
    others: collections.Counter[str] = collections.Counter()
    for path in search(source):
        file, suffix = PurePath(path).relative_to(source), path.suffix.lower()
        if suffix in SUFFIXES or suffix == TEXT_SUFFIX or suffix in TABLE_SUFFIXES:
            files.append(file)
        else:
            others[suffix or "without a suffix"] += 1
    return Scan(source.absolute(), files, others, _parts(source, files), table, columns)


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
    found = _with_speakers(_read_table(scan) if layout == "metadata" else _read_all(scan, layout))
    splits = {split: gather(items, measure, title=f"reading {split}") for split, items in found.items()}
    for split, gathered in splits.items():
        _check_used(scan.source / scan.parts[split].top, gathered)
    outside = [
        Problem(file.as_posix(), str(scan.source / file), "outside the splits", "in no folder that is a split")
        for file in _audio(scan.files)
        if ALL not in splits and file.parts[0] not in {part.top for part in scan.parts.values()}
    ]
    partial.mkdir()
    made_from = {"source": str(scan.source), "layout": layout, "files": _digest(scan, layout), **_named(scan)}
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
    made_with = "metadata" if made_from.get("layout") == "metadata" else layout
    wanted = {"source": str(scan.source), "files": _digest(scan, made_with), **_named(scan)}
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


def _named(scan: Scan) -> dict[str, str]:
    """Lists the table and the columns that the user names."""
    named = {"metadata": scan.table, "audio_column": scan.columns.audio, "text_column": scan.columns.text}
    return {name: str(value) for name, value in named.items() if value is not None}


def _digest(scan: Scan, layout: str) -> str:
    """Computes a digest of the files' paths, sizes and modification times, without tables that are not used."""
    tables = _tables(scan) if layout == "metadata" else {}
    used = {path for path in tables.values() if path is not None}
    digest = hashlib.sha256()
    for file in [*scan.files, *sorted(used - {scan.source / file for file in scan.files})]:
        if file.suffix.lower() in TABLE_SUFFIXES and file.name != METADATA and scan.source / file not in used:
            continue
        status = (scan.source / file).lstat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _audio(files: Iterable[PurePath]) -> list[PurePath]:
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def _find_layout(scan: Scan, wanted: str) -> Layout:
    """Finds the wanted layout, or the first one that fits.

    Raises:
        InputError: the wanted layout does not fit, or no layout does.
    """
    fitting = [layout for layout in LAYOUTS if any(_fits(part, layout) for part in scan.parts.values())]
    if "metadata" not in fitting and _audio(scan.files) and any(_tables(scan).values()):
        fitting.append("metadata")
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


def _read_all(scan: Scan, layout: Layout) -> dict[str, list[Utterance | Problem]]:
    """Reads the utterances of every split from text files, without durations; see `_recordings`."""
    found = {}
    for split, part in scan.parts.items():
        texts = _texts(part, layout)
        read = in_parallel(
            [scan.source / part.top / file for file in texts.values()],
            read_text,
            title="reading transcripts",
            unit="files",
        )
        prefix = f"{part.top}/" if part.top else ""
        transcripts = {f"{prefix}{key}": " ".join(text.split()) for key, text in zip(texts, read, strict=True)}
        recordings = [(f"{prefix}{_audio_key(file, layout)}", each) for file, each in _recordings(scan, part, layout)]
        found[split] = pair(recordings, transcripts)
    return found


def _recordings(scan: Scan, part: Part, layout: Layout) -> list[tuple[PurePath, Utterance]]:
    """Makes the utterances of a split, without durations and transcripts; their ids begin with the split's folder."""
    made = []
    for file in _audio(part.files):
        key = _audio_key(file, layout) or file.as_posix()
        first, slash, _ = key.partition("/")
        name = (PurePath(part.top) / file).as_posix()
        made.append((file, Utterance(scan.source / name, 0.0, "", name, first if slash else "")))
    return made


def _tables(scan: Scan) -> dict[str, Path | None]:
    """Finds the table of every split: the named one, that in the split's folder, or that in the source."""

    def within(folder: str, files: Iterable[PurePath]) -> Path | None:
        here = [file.name for file in files if len(file.parts) == 1 and file.suffix.lower() in TABLE_SUFFIXES]
        name = next((name for name in TABLES if name in here), here[0] if len(here) == 1 else None)
        return None if name is None else scan.source / folder / name

    shared = scan.table or within("", scan.files)
    return {split: scan.table or within(part.top, part.files) or shared for split, part in scan.parts.items()}


def _read_table(scan: Scan) -> dict[str, list[Utterance | Problem]]:
    """Reads the utterances of every split from tables, without durations; see `_recordings`.

    A line that names no recording is a problem of the first split that uses its table.
    """
    recordings = {split: _recordings(scan, part, "metadata") for split, part in scan.parts.items()}
    tables = _tables(scan)
    found: dict[str, list[Utterance | Problem]] = {}
    for table in dict.fromkeys(tables.values()):
        splits = [split for split in recordings if tables[split] == table]
        files = [PurePath(each.id) for split in splits for _, each in recordings[split]]
        transcripts, speakers = read_transcripts(table, Recordings(scan.source, files), scan.columns)
        for split in splits:
            own = {each.id: each for _, each in recordings[split]}
            own = {
                name: dataclasses.replace(each, speaker=speakers.get(name) or each.speaker)
                for name, each in own.items()
            }
            others = {file.as_posix() for file in files} - own.keys()
            found[split] = pair(own.items(), {name: text for name, text in transcripts.items() if name not in others})
            transcripts = {name: text for name, text in transcripts.items() if name in others}
    return {split: found[split] for split in scan.parts}


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

"""Prepares Common Voice: sentences read aloud by volunteers, in more than a hundred languages (Mozilla; MP3).

The clips stay the MP3 files of the release. MP3 needs 22 to 27 MB per hour, FLAC at 16 kHz 57 MB. A core decodes and
resamples MP3 at 2,100 to 3,000 times real time, FLAC at 6,700 (speech of AN4 as variable-rate MP3 of 32 and 48 kHz,
libsndfile 1.2.2). So MP3 is fast enough for training, needs half the disk space, and saves hours of conversion.
Some MP3 headers only estimate the length. So each clip is decoded once, and the manifest gives the duration that
training will read.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Set
from pathlib import Path, PurePosixPath
from tarfile import TarInfo

from ds2_jax.audio.reading import decoded_duration
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
from ds2_jax.system.errors import InputError, shorten

WHERE = "https://datacollective.mozillafoundation.org"
"""Mozilla's site for the archives, which needs a login."""
SPLITS = ("train", "dev", "test")
COLUMNS = ("client_id", "path", "sentence")
DURATIONS = "durations.jsonl"
MIN_SPEAKER_LENGTH = 8
"""How many of the 128 characters of a client_id are stored; more if two speakers would otherwise be equal."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A row of a split's list: the file's name without its folder, the speaker, and the sentence."""

    name: str
    client_id: str
    sentence: str


def prepare(root: Path = Path("datasets"), archive: Path | None = None, language: str | None = None) -> Path:
    """Makes ROOT/common-voice from a release of Common Voice: train.jsonl, dev.jsonl, test.jsonl, clips/*.mp3.

    Use the archive of one language, such as cv-corpus-22.0-2025-06-20-fr.tar.gz, from any release with lists in .tsv.
    Log in at https://datacollective.mozillafoundation.org and download it there (Common Voice Scripted Speech).

    The splits are the release's train, dev and test. They contain only validated clips. The sentences keep their case
    and punctuation. Only the clips of the three splits are unpacked, as unchanged MP3 files. Rows without a sentence,
    damaged rows, and rows with a missing or unreadable clip are left out and listed in left_out.jsonl.

    If the folder is complete, the command changes nothing. After an interruption, the next call continues.

    Args:
        root: folder of the prepared corpora. It holds one language; use another root for another language.
        archive: the release's .tar.gz; required unless ROOT/common-voice is complete.
        language: the language as the archive names it (fr, zh-CN); needed only if the archive holds several.

    Returns:
        The folder ROOT/common-voice.

    Raises:
        InputError: there is no archive; the archive is damaged, is not a release with splits, lacks `language`, or
            holds several languages and `language` is None; or ROOT/common-voice was made from something else.
    """
    folder = root / "common-voice"
    wanted: dict[str, object] = {} if language is None else {"language": language}
    if archive is not None and (archive.is_file() or not folder.exists()):
        wanted |= fingerprint(archive)
    if not folder.exists():
        if archive is None:
            raise InputError(
                f"--archive must name a release of Common Voice, got none. Log in at {WHERE}, download one language "
                "and give the file: prepare common-voice --archive FILE."
            )
        with building(folder, wanted) as partial:
            if not folder.exists():
                _build(folder, partial, archive, wanted)
    check_source(folder, "Common Voice", wanted)
    return folder


def _build(folder: Path, partial: Path, archive: Path, wanted: dict[str, object]) -> None:
    lists = partial / "lists"
    if not is_begun(partial, wanted):
        corpus = _choose_corpus(archive, _unpack_lists(archive, lists), wanted.get("language"))
        begin(partial, wanted | {"corpus": str(corpus), "language": corpus.name})
    source = read_source(partial, "Common Voice", manifests=())
    corpus = PurePosixPath(str(source["corpus"]))
    rows = {split: list(_read_list(lists / corpus / f"{split}.tsv", folder / "clips")) for split in SPLITS}
    clips = [row for split in SPLITS for row in rows[split] if isinstance(row, Clip)]
    if not source.get("unpacked"):
        extract(archive, partial, functools.partial(_place_of_clip, corpus, {clip.name for clip in clips}))
        begin(partial, source | {"unpacked": True})
    speakers = _shorten({clip.client_id for clip in clips})
    splits = {}
    with Journal(partial / DURATIONS) as durations:
        make = functools.partial(_make_utterance, folder, partial, durations, speakers)
        for split, items in rows.items():
            splits[split] = sort_out(in_parallel(items, make, title=split, unit="clips"))
    finish(partial, folder, splits, {name: value for name, value in source.items() if name != "unpacked"})
    (folder / DURATIONS).unlink()
    report(folder, f"Common Voice, {corpus}, from {archive}", splits)


def _unpack_lists(archive: Path, folder: Path) -> list[PurePosixPath]:
    """Unpacks the lists of the three splits, checks the whole archive, and returns the names of all lists."""
    found: list[PurePosixPath] = []

    def choose(member: TarInfo) -> str | None:
        path = PurePosixPath(member.name)
        if path.suffix not in (".tsv", ".csv"):
            return None
        found.append(path)
        return str(path) if path.suffix == ".tsv" and path.stem in SPLITS else None

    extract(archive, folder, choose)
    return found


def _choose_corpus(archive: Path, lists: list[PurePosixPath], language: object) -> PurePosixPath:
    """Finds the folder RELEASE/LANGUAGE of the archive that contains the splits.

    Raises:
        InputError: there is no such folder, there are several and no language is named, or the language is not there.
    """
    corpora = {path.parent for path in lists if path.name == "train.tsv"}
    for corpus in sorted(corpora):
        for split in SPLITS:
            if corpus / f"{split}.tsv" not in lists:
                raise _no_release(archive, f"hold {corpus / f'{split}.tsv'}, got none")
    if not corpora:
        if any(path.name.startswith("cv-valid-") for path in lists):
            advice = f"Log in at {WHERE} and download a later one."
            raise InputError(f"{archive} must be a release with lists in .tsv, got cv_corpus_v1, of 2017. {advice}")
        got = ", ".join(sorted({path.name for path in lists})) or "no lists"
        raise _no_release(archive, f"hold train.tsv, dev.tsv and test.tsv, got {shorten(got)}")
    named = {corpus.name: corpus for corpus in corpora}
    languages = ", ".join(sorted(named))
    if language is None and len(corpora) > 1:
        raise InputError(f"--language must name one of {languages}, which {archive} holds, got none. Add it.")
    if language is not None and language not in named:
        raise InputError(f"--language must be one that {archive} holds ({languages}), got {language}. Correct it.")
    return named[str(language)] if language is not None else corpora.pop()


def _no_release(archive: Path, finding: str) -> InputError:
    advice = f"Use a whole release of one language (not a delta) from {WHERE}."
    return InputError(f"{archive} must {finding}. {advice}")


def _read_list(path: Path, folder: Path) -> Iterator[Clip | Problem]:
    """Yields the rows of a split's list in order, with a problem for each row that cannot be used.

    The lists use no quoting: quotation marks are part of the text, and every row is one line.

    Differs: deepspeech.pytorch loses the first row of each split, and interprets quotation marks as quoting.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would split at U+2028 in a sentence
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} must be UTF-8, got {error.reason} at byte {error.start}. Download the archive again."
        ) from error
    header = lines[0].rstrip("\r").split("\t")
    if not set(COLUMNS) <= set(header):
        found = shorten(", ".join(header))
        raise InputError(f"{path} must have the columns {', '.join(COLUMNS)}, got {found}. Use a later release.")
    indices = [header.index(column) for column in COLUMNS]
    seen: set[str] = set()
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        where = f"{path.name}, line {number}"
        if len(cells) != len(header):
            detail = f"{where} must have {len(header)} columns, got {len(cells)}: {shorten(repr(line))}"
            yield Problem(where, "", "unusable line", detail)
            continue
        client_id, name, sentence = (cells[index].strip() for index in indices)
        name = name if name.endswith(".mp3") else f"{name}.mp3"
        problem = functools.partial(Problem, name.removesuffix(".mp3"), str(folder / name))
        if name in seen or "/" in name or name == ".mp3" or UNPRINTABLE.search(name + sentence):
            yield problem(
                "unusable line",
                f"{where} must name a clip, without a folder, that no earlier line names, got {shorten(repr(line))}",
            )
        elif not sentence:
            yield problem("empty transcript", f"{where} has no sentence")
        else:
            yield Clip(name, client_id, sentence)
        seen.add(name)


def _place_of_clip(corpus: PurePosixPath, names: Set[str], member: TarInfo) -> str | None:
    path = PurePosixPath(member.name)
    return f"clips/{path.name}" if path.name in names and path.parent == corpus / "clips" else None


def _shorten(client_ids: Set[str]) -> dict[str, str]:
    """Shortens every client_id to the same length: at least MIN_SPEAKER_LENGTH, and enough to keep all distinct."""
    length = MIN_SPEAKER_LENGTH
    while len({client_id[:length] for client_id in client_ids}) < len(client_ids):
        length += 1
    return {client_id: client_id[:length] for client_id in client_ids}


def _make_utterance(
    folder: Path, partial: Path, durations: Journal, speakers: Mapping[str, str], row: Clip | Problem
) -> Utterance | Problem:
    if isinstance(row, Problem):
        return row
    name, path = row.name.removesuffix(".mp3"), partial / "clips" / row.name
    problem = functools.partial(Problem, name, str(folder / "clips" / row.name))
    if not path.is_file():
        return problem("missing audio", f"the archive holds no clips/{row.name}")
    duration = durations.once(row.name, lambda: _duration(path))
    if isinstance(duration, str):
        return problem("unreadable audio", duration.replace(str(path), f"clips/{row.name}"))
    return Utterance(path, duration, row.sentence, name, speakers[row.client_id])


def _duration(path: Path) -> float | str:
    """Computes the duration of a clip in seconds, or explains why it cannot be read."""
    try:
        return decoded_duration(path)
    except InputError as error:
        return str(error)

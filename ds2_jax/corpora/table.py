"""Reads tables of transcripts: CSV, TSV, and LJSpeech's metadata.csv; and finds the recordings that they name."""

import collections
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from ds2_jax.audio.ffmpeg import FFMPEG_SUFFIXES
from ds2_jax.audio.reading import AUDIO_SUFFIXES
from ds2_jax.data.manifest import read_text
from ds2_jax.system.errors import InputError, shorten

SUFFIXES = AUDIO_SUFFIXES | FFMPEG_SUFFIXES
"""Suffixes of recordings."""
AUDIO_NAMES = (
    *("audio", "audio_filepath", "audio_file", "audio_path", "path", "file_path", "filepath", "file", "file_name"),
    *("filename", "wav_filename", "wav_path", "wav", "recording", "clip", "name", "id", "utterance_id"),
)
"""Names of columns with recordings; the first one that a table has is used."""
TEXT_NAMES = (
    *("normalized_text", "normalised_text", "normalized_transcription", "transcript", "transcription", "text"),
    *("sentence", "raw_text", "raw_transcription", "utterance", "label"),
)
"""Names of columns with transcripts; the first one that a table has is used."""
SPEAKER_NAMES = ("speaker", "speaker_id", "client_id")
SEPARATORS = "\t|;,"


class Line(NamedTuple):
    """A line of a table.

    Attributes:
        name: the recording, as written.
        text: the transcript, with single spaces.
        speaker: the speaker; "" if unknown.
        where: file and line for messages.
    """

    name: str
    text: str
    speaker: str
    where: str


class Columns(NamedTuple):
    """Columns that the user names, by the names in the table's first line or by their numbers from 1."""

    audio: str | None = None
    text: str | None = None


NO_COLUMNS = Columns()


def find_table(source: Path, metadata: Path) -> Path:
    """Finds the table that the user names, in the current folder or in the source.

    Raises:
        InputError: it is in neither.
    """
    for path in (metadata, source / metadata):
        if path.is_file():
            return path.absolute()
    raise InputError(f"--metadata must be a file, got {metadata}, which does not exist. Correct the path.")


def read_transcripts(
    table: Path | None, recordings: "Recordings", columns: Columns = NO_COLUMNS
) -> tuple[dict[str, str], dict[str, str]]:
    """Reads the transcripts and speakers of a table.

    Returns:
        Both by the path of the recording, or by its name in the table if there is no such recording.

    Raises:
        InputError: see `read_table` and `Recordings.find`; or a recording has two lines.
    """
    transcripts: dict[str, str] = {}
    speakers: dict[str, str] = {}
    for line in read_table(table, columns) if table else []:
        file = recordings.find(line)
        name = line.name if file is None else file.as_posix()
        if name in transcripts:
            raise InputError(f"{line.where}, must name each recording once, got {line.name!r} again. Remove one.")
        transcripts[name], speakers[name] = line.text, line.speaker
    return transcripts, speakers


def read_table(path: Path, columns: Columns = NO_COLUMNS) -> list[Line]:
    """Reads the lines of a table with a comma, semicolon, tab or | between its columns.

    A table has a header if its first line has a name of `AUDIO_NAMES` or a name in `columns`. Without a header, the
    first column holds the recordings and the second the transcripts. Three columns with | are those of LJSpeech: name,
    text as written, text as spoken.

    Raises:
        InputError: the table is not UTF-8 or has no second column, the columns are not clear, or a line has another
            number of columns or no recording.
    """
    separator, rows = _split(path, read_text(path))
    if not rows:
        raise InputError(f"{path} must hold a line for each recording, got an empty table. Write it again.")
    first = [_plain(cell) for cell in rows[0][1]]
    given = [_plain(column) for column in columns if column is not None and not column.isdecimal()]
    header = bool(given) or any(cell in AUDIO_NAMES for cell in first)
    audio, text, speaker = _find_columns(path, first, columns, header=header, separator=separator)
    expected = len(first)
    lines = []
    for number, cells in rows[1:] if header else rows:
        where = f"{path}, line {number}"
        shown = shorten(repr(separator.join(cells)))
        if separator == "|" and not header and text == -1:
            if not cells[0] or len(cells) not in (2, 3):
                rule = "be NAME|TRANSCRIPT or NAME|WRITTEN|SPOKEN"
                raise InputError(f"{where}, must {rule}, got {shown}. Correct it.")
        elif len(cells) != expected:
            advice = f"Put a text with {separator!r} in double quotes, and double the quotes in it."
            raise InputError(f"{where}, must have {expected} columns as the first line, got {shown}. {advice}")
        elif not cells[audio]:
            raise InputError(f"{where}, must name a recording, got {shown}. Add the name, or remove the line.")
        lines.append(Line(cells[audio], cells[text], cells[speaker] if speaker is not None else "", where))
    return lines


def _split(path: Path, text: str) -> tuple[str, list[tuple[int, list[str]]]]:
    """Finds the separator, and splits a table into numbered rows of cells without white space around them."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    found = [separator for separator in SEPARATORS if separator in first]
    if first and not found:
        rule = "hold recordings and transcripts with a comma, semicolon, tab or | between them"
        raise InputError(
            f"{path} must {rule}, got {shorten(repr(first.strip()))}. Correct it, or give --metadata FILE."
        )
    tables = {separator: _rows(path, text, separator) for separator in found}
    for separator, rows in tables.items():
        if len({len(cells) for _, cells in rows}) == 1:
            return separator, rows
    return next(iter(tables.items()), (",", []))


def _rows(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Splits a table at a separator. Quotes are plain characters where they do not enclose whole cells."""
    try:
        rows = _parse(text, separator, quotes=True)
        plain = separator in "\t|" and any("\n" in cell for _, cells in rows for cell in cells)
    except csv.Error:
        plain = True
    if plain:
        try:
            rows = _parse(text, separator, quotes=False)
        except csv.Error as error:
            raise InputError(f"{path} must be a table of text, got: {error}. Correct it.") from error
    return [(number, [" ".join(cell.split()) for cell in cells]) for number, cells in rows if any(cells)]


def _parse(text: str, separator: str, *, quotes: bool) -> list[tuple[int, list[str]]]:
    lines = (line + "\n" for line in text.replace("\r\n", "\n").split("\n"))
    reader = csv.reader(
        lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, strict=True
    )
    rows, before = [], 0
    for cells in reader:
        rows.append((before + 1, cells))
        before = reader.line_num
    return rows


def _plain(name: str) -> str:
    return "_".join(name.lower().replace("-", " ").split())


def _find_columns(
    path: Path, first: Sequence[str], columns: Columns, *, header: bool, separator: str
) -> tuple[int, int, int | None]:
    """Finds the places of recordings, transcripts and speakers among the columns."""
    places = []
    for option, asked, names in (
        ("--audio-column", columns.audio, AUDIO_NAMES),
        ("--text-column", columns.text, TEXT_NAMES),
    ):
        wanted = [_plain(asked)] if asked is not None else names
        place = next((first.index(name) for name in wanted if name in first), None) if header else None
        if place is None and asked is not None and asked.isdecimal() and 1 <= int(asked) <= len(first):
            place = int(asked) - 1
        if place is None and asked is not None:
            listed = ", ".join(first)
            raise InputError(f"{option} must name a column of {path}, which has {listed}, got {asked}. Correct it.")
        places.append(place)
    audio, text = places
    if audio is None and not header:
        audio = 0
    if text is None and not header and separator == "|":
        text = -1  # the last of two or three
    elif text is None and len(first) == 2 and audio is not None:
        text = 1 - audio
    if audio is None or text is None or audio == text:
        raise InputError(
            f"{path} must have a column of recordings, such as path or file, and one of transcripts, such as text or "
            f"sentence, got {shorten(', '.join(first))} in its first line. Name them, or give their numbers, such as "
            "--audio-column path --text-column 3."
        )
    speaker = next((first.index(name) for name in SPEAKER_NAMES if name in first), None) if header else None
    return audio, text, speaker


class Recordings:
    """Finds recordings by the names that tables give them: with or without folders and suffix.

    Args:
        source: the folder of the files, for names that are absolute paths.
        files: the recordings, relative to `source`.
    """

    def __init__(self, source: Path, files: Iterable[PurePath]) -> None:
        self._source = source
        self._tails: dict[str, list[PurePath]] = collections.defaultdict(list)
        for file in files:
            for start in range(len(file.parts)):
                tail = PurePath(*file.parts[start:])
                self._tails[tail.as_posix()].append(file)
                self._tails[tail.with_suffix("").as_posix()].append(file)

    def find(self, line: Line) -> PurePath | None:
        """Returns the recording that a line names; None if there is none.

        Raises:
            InputError: several recordings have that name.
        """
        name = PurePath(line.name.replace("\\", "/"))
        if name.is_absolute() and name.is_relative_to(self._source):
            name = name.relative_to(self._source)
        stem = name.with_suffix("") if name.suffix.lower() in SUFFIXES else name
        for each in (name, stem):
            found = self._tails.get(each.as_posix(), [])
            whole = [file for file in found if each in (file, file.with_suffix(""))]
            exact = [file for file in whole if file == each] or whole or found
            if len(exact) > 1:
                both = " or ".join(file.as_posix() for file in exact[:2])
                raise InputError(f"{line.where}, must name one recording, got {line.name!r}: {both}? Write its path.")
            if exact:
                return exact[0]
        return None

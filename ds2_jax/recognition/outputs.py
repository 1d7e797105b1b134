"""Writes transcripts to standard output as they are recognised, or to files in a folder."""

import dataclasses
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ds2_jax.recognition.formats import Format, ctm_name, render
from ds2_jax.recognition.inputs import AudioFile
from ds2_jax.recognition.transcript import Transcript
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import write_text, writing

ONE_RECORDING: tuple[Format, ...] = ("srt", "vtt", "tsv")
"""Formats whose output for several recordings cannot be concatenated."""


def open_stdout() -> None:
    """Prepares standard output for transcripts.

    Lines end in LF on every system. The encoding is UTF-8, except on a terminal, which keeps its own. Bytes of a file
    name that are not valid UTF-8 are written unchanged.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="surrogateescape", newline="\n")


@dataclasses.dataclass(frozen=True)
class Output:
    """The formats in which transcripts are written, and the place.

    Attributes:
        formats: one or more formats; exactly one if `folder` is None.
        folder: the folder for the files NAME.FORMAT, one for each recording and format; None for standard output.
    """

    formats: tuple[Format, ...]
    folder: Path | None

    def plan(self, files: Sequence[AudioFile], resume: bool) -> list[AudioFile]:
        """Checks that the results of all recordings can be written, and makes the folder.

        Args:
            files: the recordings.
            resume: whether to leave out recordings whose files all exist.

        Returns:
            The recordings to transcribe, in the order in which to do so.

        Raises:
            InputError: formats, folder, `resume` and the number of recordings do not fit together; the results of two
                recordings would have one name; results exist and `resume` is false; or the folder cannot be made.
        """
        if self.folder is None:
            self._check_stdout(len(files), resume)
            if self.formats == ("ctm",):  # NIST's tools require them sorted by name
                self._check_names({file: ctm_name(file.name) for file in files})
                return sorted(files, key=lambda file: os.fsencode(ctm_name(file.name)))
            return list(files)
        self._check_names({file: os.path.normcase(file.name) for file in files})
        for file in files:  # an id of a manifest can be any text
            # Two ids such as a/b and a//b would be one file.
            plain = os.path.normpath(file.name) == file.name
            if not plain or Path(file.name).is_absolute() or ".." in Path(file.name).parts:
                raise InputError(f"id must be a name inside --output-dir, got {file.name}. Rename it in the manifest.")
        if os.path.exists(self.folder) and not self.folder.is_dir():  # noqa: PTH110 - the name may be too long
            raise InputError(f"--output-dir must be a folder, got the file {self.folder}. Give another.")
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        results = {file: [self._place(file, each) for each in self.formats] for file in files}
        there = [path for paths in results.values() for path in paths if _exists(path)]
        if there and not resume:
            advice = "Add --resume to keep them and do the rest, or name another folder."
            got = f"{len(there)} of them, such as {there[0]}"
            raise InputError(f"--output-dir must not hold results of these recordings yet, got {got}. {advice}")
        return [file for file, paths in results.items() if not set(paths) <= set(there)]

    def _check_stdout(self, num_files: int, resume: bool) -> None:
        advice = "Add --output-dir FOLDER."
        if resume:
            raise InputError(f"--resume must be used with --output-dir, got none. {advice}")
        if len(self.formats) > 1:
            raise InputError(
                f"--format must be a single format on standard output, got {', '.join(self.formats)}. {advice}"
            )
        if self.formats[0] in ONE_RECORDING and num_files > 1:
            got = f"{self.formats[0]} for {num_files}"
            rule = "be txt, json or ctm for several recordings on standard output"
            raise InputError(f"--format must {rule}, got {got}. {advice}")

    def _check_names(self, names: dict[AudioFile, str]) -> None:
        owners: dict[str, AudioFile] = {}
        for file, name in names.items():
            if (other := owners.setdefault(name, file)) is not file:
                got = f"{name} for {other.path} and {file.path}"
                advice = "Give the folder above them or a quoted pattern, so that names include folders; or rename one."
                raise InputError(f"AUDIO must give each result a name of its own, got {got}. {advice}")

    def _place(self, file: AudioFile, output_format: Format) -> Path:
        assert self.folder is not None
        return self.folder / f"{file.name}.{output_format}"

    def write(self, file: AudioFile, transcript: Transcript, with_path: bool) -> None:
        """Writes the results of a recording.

        Args:
            file: the recording.
            transcript: what was recognised in it.
            with_path: whether lines of txt on standard output begin with the path, or the id in a manifest, and a tab.

        Raises:
            InputError: a file cannot be written.
        """
        for each in self.formats:
            text = render(transcript, each, file.name, file.utterance.id if file.utterance else "")
            if self.folder is not None:
                write_text(self._place(file, each), text)
                continue
            if each == "txt" and with_path:  # the path must not add a line or a tab
                shown = file.name if file.utterance else str(file.path)
                sys.stdout.write(shown.translate({9: r"\t", 10: r"\n", 13: r"\r"}) + "\t")
            sys.stdout.write(text)
            sys.stdout.flush()


def _exists(path: Path) -> bool:
    """Whether a file exists. Raises InputError if its name is too long to be written."""
    with writing(path):
        return path.exists()

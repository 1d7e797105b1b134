"""Audio files -> transcripts on standard output."""

import functools
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ds2_jax.audio import AUDIO_SUFFIXES
from ds2_jax.errors import InputError
from ds2_jax.settings import UNPRINTABLE
from ds2_jax.transcriber import Transcriber, Transcript


def find_audio(paths: Sequence[Path]) -> list[Path]:
    """The files named, and all audio files below the folders named, sorted within each.

    What else the folders hold is counted on stderr. Broken links are among the files: reading them fails, and is told.

    Raises:
        InputError: no path is given, one does not exist, or a folder holds no audio.
    """
    if not paths:
        raise InputError("AUDIO must name at least one file or folder, got none. Add it behind RUN.")
    files = []
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - Path's methods raise where the name is too long
            below = sorted(each for each in path.rglob("*") if not each.is_dir())
            found = [each for each in below if each.suffix.lower() in AUDIO_SUFFIXES]
            if others := len(below) - len(found):
                suffixes = sorted({each.suffix.lower() or "no suffix" for each in below} - AUDIO_SUFFIXES)
                print(f"{path}: {others} other files ignored: {', '.join(suffixes)}", file=sys.stderr)
            if not found:
                raise InputError(f"{path} must hold audio files ({' '.join(sorted(AUDIO_SUFFIXES))}), got none.")
            files += found
        elif os.path.exists(path):  # noqa: PTH110
            files.append(path)
        else:
            raise InputError(f"AUDIO must be a file or folder, got {path}, which does not exist. Correct the path.")
    return files


def transcribe(run: Path, audio: Sequence[Path], output_format: Literal["text", "json"]) -> int:
    """Prints the transcripts of files and folders on stdout, the speed on stderr.

    Args:
        run: folder of a training run.
        audio: files and folders.
        output_format: text prints a line a file, with the path and a tab before it where there are several files;
            json prints a JSON object a file, with the span of every word in seconds.

    Returns:
        Exit code: 1 where a file could not be transcribed, else 0.
    """
    files = find_audio(audio)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be UTF-8: its bytes as they are
    write = _write_json if output_format == "json" else functools.partial(_write_text, with_path=len(files) > 1)
    started = time.perf_counter()
    transcriber = Transcriber(run)
    loaded = time.perf_counter()
    seconds, failed = 0.0, 0
    for result in transcriber.transcribe_files(files):
        if isinstance(result, InputError):
            failed += 1
            print(f"error: {result}", file=sys.stderr)
            continue
        seconds += result.duration
        write(result)
    elapsed = time.perf_counter() - loaded
    print(
        f"{len(files) - failed} files, {seconds:.1f} s of audio in {elapsed:.1f} s"
        + (f" (real-time factor {elapsed / seconds:.3f}, compiling included)" if seconds else "")
        + f"; model loaded in {loaded - started:.1f} s"
        + (f"; {failed} files failed" if failed else ""),
        file=sys.stderr,
    )
    return 1 if failed else 0


def _write_text(transcript: Transcript, with_path: bool) -> None:
    path = str(transcript.audio).translate({9: r"\t", 10: r"\n", 13: r"\r"})  # a line stays a line, a tab the only one
    print(f"{path}\t{transcript.text}" if with_path else transcript.text, flush=True)


def _write_json(transcript: Transcript) -> None:
    words = [{"word": w.text, "start": round(w.start, 3), "end": round(w.end, 3)} for w in transcript.words]
    line: dict[str, Any] = {
        "audio": str(transcript.audio),
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
    }
    utf8 = not UNPRINTABLE.search(line["audio"])  # else the name's odd bytes are escaped
    print(json.dumps(line | {"words": words}, ensure_ascii=not utf8), flush=True)

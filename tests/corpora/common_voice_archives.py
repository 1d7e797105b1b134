"""Makes small releases of Common Voice for the tests."""

import functools
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ds2_jax.corpora.synthetic import SAMPLE_RATE, Prompt, speak

FR = "cv-corpus-22.0-2025-06-20/fr"
SPLITS = ("train", "dev", "test")
SENTENCES = {
    "train": ["« Où est l'eau ? »", 'Il a dit "non', "L'arc-en-ciel.", "Quatre\u2028lignes", 'Puis "oui" encore'],
    "dev": ["Bonjour."],
    "test": ["Deux", "Trois"],
}
HEADER = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tvariant"
Files = dict[str, bytes]


@functools.cache
def speech() -> list[np.ndarray]:
    """Speaks eight French sentences, [S] float32 at SAMPLE_RATE."""
    sentences = [sentence for split in SPLITS for sentence in SENTENCES[split]]
    return speak("fr", [Prompt(sentence, 175, 50, 0.5) for sentence in sentences])


@functools.cache
def mp3(index: int, rate: int = 32_000) -> bytes:
    file = io.BytesIO()
    waveform = soxr.resample(speech()[index], SAMPLE_RATE, rate)
    soundfile.write(
        file, waveform, rate, format="MP3", bitrate_mode=("VARIABLE", "CONSTANT")[index % 2], compression_level=0.5
    )
    return file.getvalue()


def client(number: int) -> str:
    """Makes a client_id of 128 characters; those of 0 and 1 share the first nine."""
    return f"{'abcdef012' if number < 2 else f'{number:09d}'}{number:0119d}"


def row(number: int, sentence: str) -> str:
    return (
        f"{client(number)}\tcommon_voice_fr_{number}.mp3\tx{number}\t{sentence}\t\t2\t0\ttwenties\tmale_masculine\t\t"
    )


def release(corpus: str = FR) -> Files:
    """Makes a release: clips of the splits, numbered from 0, then an unvalidated and an invalidated clip."""
    files: Files = {}
    number = 0
    for split, sentences in SENTENCES.items():
        lines = [HEADER]
        for sentence in sentences:
            lines.append(row(number, sentence))
            files[f"{corpus}/clips/common_voice_fr_{number}.mp3"] = mp3(number, 48_000 if number == 3 else 32_000)
            number += 1
        files[f"{corpus}/{split}.tsv"] = ("\n".join(lines) + "\n").encode()
    for name in ("other", "invalidated"):
        files[f"{corpus}/{name}.tsv"] = f"{HEADER}\n{row(number, 'Faux')}\n".encode()
        files[f"{corpus}/clips/common_voice_fr_{number}.mp3"] = mp3(0)
        number += 1
    return files


def write_archive(path: Path, files: Files, links: Sequence[tuple[str, str]] = ()) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def changed(tmp_path: Path, changes: dict[str, bytes | None]) -> Path:
    files = {name: content for name, content in (release() | changes).items() if content is not None}
    return write_archive(tmp_path / "changed.tar.gz", files)


def left_out(folder: Path) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    return {row["id"]: (row["reason"], row["detail"]) for row in rows}

"""Makes small archives of TED-LIUM for the tests."""

import functools
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from ds2_jax.corpora.synthetic import Prompt, speak

RATE = 16_000
SPLITS = ("train", "dev", "test")
TALKS = {"train": ("AnnLee_2009P", "BobRay_2012X"), "dev": ("CatDoe_2010",), "test": ("DanPoe_2011",)}
SENTENCES = ("it is an honour to be here", "so what do we do now", "they all laughed")
PAUSE = 4000
Files = dict[str, bytes]
Links = Sequence[tuple[str, str]]


@functools.cache
def talk(voice: int) -> np.ndarray:
    """Speaks three sentences with pauses between them, [S] int16."""
    spoken = speak("en", [Prompt(sentence, 170 + voice, 50, 0.5) for sentence in SENTENCES])
    padded = [np.pad(waveform, (PAUSE, 0)) for waveform in spoken]
    return (np.concatenate(padded) * 2**15).astype(np.int16)


@functools.cache
def sphere(voice: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, talk(voice), RATE, "PCM_16", endian="BIG", format="NIST")
    assert b"sample_byte_format -s2 10\n" in file.getvalue()
    return file.getvalue()


def stm(name: str, *lines: str) -> bytes:
    """Removes the three fields before the start from `lines`."""
    return "".join(f"{name} 1 {name} {line}\n" for line in lines).encode()


LINES = (
    "0 0.25 <o,,unknown> ignore_time_segment_in_scoring",
    "0.25 1.23456 <o,f0,male> it 's an honour(2) {NOISE} to be <sil> here <unk>",
    "1.5 2.75 <o,f0,male> so what 'd we do",
)


def talks_in(folder: str, split: str) -> Files:
    files: Files = {}
    for name in TALKS[split]:
        voice = [name for names in TALKS.values() for name in names].index(name)
        files[f"{folder}/sph/{name}.sph"] = sphere(voice)
        files[f"{folder}/stm/{name}.stm"] = stm(name, *LINES)
    return files


def release2() -> Files:
    files = {"TEDLIUM_release2/README": b"", "TEDLIUM_release2/TEDLIUM.152k.dic": b"a AH\n"}
    for split in SPLITS:
        files |= talks_in(f"TEDLIUM_release2/{split}", split)
    return files


def write_archive(path: Path, files: Mapping[str, bytes | None], links: Links = ()) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, content in files.items():
            if content is not None:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def left_out(folder: Path) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    return {row["id"]: (row["reason"], row["detail"]) for row in rows}

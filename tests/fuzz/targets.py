"""What is fuzzed: for each kind of file its seeds and what must hold when a damaged one is read.

A reader returns where it accepts a file, having checked what it got, and raises InputError where it refuses it. Heavy
modules are imported where they are used: a process loads those of the targets that it is asked for.
"""

import dataclasses
import functools
import gzip
import importlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ds2_jax import audio
from ds2_jax.errors import InputError
from ds2_jax.headers import AudioBytes
from tests.fuzz import seeds
from tests.fuzz.mutate import mutate

T = TypeVar("T")


class Payload:
    """What runs a command, a harmless one, where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f": {MARK}",)


def _object_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Payload()], object), allow_pickle=True)
    return file.getvalue()


MARK = "was_run"
PICKLE = pickle.dumps(Payload())
PAYLOADS = (PICKLE, _object_array(), f"import os\nos.system(': {MARK}')\n".encode())
"""A pickle, an array of objects as NumPy keeps it, and a program: in place of any file. A worker notices all three."""


def _unchanged(data: bytes) -> bytes:
    return data


def _none() -> Sequence[bytes]:
    return ()


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        file: its name in the folder that it is read in.
        seeds: whole files, which are accepted.
        read: reads the file.
        claims: files made by hand that claim too much, or what no honest file holds.
        mend: makes checksums right behind the damage.
        beside: other files in its folder, by name.
        starts_programs: whether reading it may.
    """

    file: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[Path], None]
    claims: Callable[[], Sequence[bytes]] = _none
    mend: Callable[[bytes], bytes] = _unchanged
    beside: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    starts_programs: bool = False

    def content(self, name: str, number: int) -> bytes:
        """Mutation `number` of the target `name`; below 0, the files of `unchanged`."""
        if number < 0:
            return self.mend(self.unchanged()[-1 - number])
        whole = self.made(self.seeds)
        rng = random.Random(f"{name} {number}")
        seed = rng.choice(whole)
        return self.mend(mutate(seed, whole, rng, is_text=seed.isascii()))

    def unchanged(self) -> Sequence[bytes]:
        """The seeds, the claims, and code that nothing may run."""
        return [*self.made(self.seeds), *self.made(self.claims), *PAYLOADS]

    @staticmethod
    @functools.cache
    def made(make: Callable[[], Sequence[bytes]]) -> Sequence[bytes]:
        """The seeds or claims, made once in a process."""
        return make()


def attempt(path: Path, call: Callable[[], T]) -> T | InputError:
    """What `call` returns, or why it refuses the file, which must name it."""
    try:
        return call()
    except InputError as error:
        if str(path) not in str(error):
            raise AssertionError("names no file") from error
        return error


def accepted(path: Path, call: Callable[[], T]) -> T:
    """What `call` returns."""
    result = attempt(path, call)
    if isinstance(result, InputError):
        raise result
    return result


def _read_audio(path: Path) -> None:
    """All readers of audio agree on whether a file is whole and on what is in it."""
    content = AudioBytes(str(path), path.read_bytes())
    whole = attempt(path, lambda: audio.read_audio(path, seeds.RATE))
    blocks = attempt(path, lambda: np.concatenate(list(audio.read_blocks(path, seeds.RATE))))
    held = attempt(path, lambda: audio.read_audio(content, seeds.RATE))
    excerpt = attempt(path, lambda: audio.read_excerpt(path, seeds.RATE, 1000, 0.5))
    duration = attempt(path, lambda: audio.audio_duration(path))
    flac = attempt(path, lambda: audio.lossless_flac(path))
    assert isinstance(duration, InputError) or 0 < duration < 1e12
    assert isinstance(excerpt, InputError) or (excerpt.shape == (1000,) and np.isfinite(excerpt).all())
    if isinstance(whole, InputError):
        assert isinstance(blocks, InputError), f"refused whole, not by blocks: {whole}"
        assert isinstance(flac, InputError) or flac is None, f"refused, but written as FLAC: {whole}"
        raise whole
    assert whole.dtype == np.float32
    assert whole.ndim == 1
    assert len(whole)
    assert np.isfinite(whole).all()
    assert not isinstance(blocks, InputError), f"accepted whole, not by blocks: {blocks}"
    np.testing.assert_allclose(blocks, whole, atol=1e-5 * max(1, np.abs(whole).max()))
    if not isinstance(held, InputError):
        np.testing.assert_array_equal(held, whole)
    if flac:
        assert not isinstance(flac, InputError)
        np.testing.assert_array_equal(audio.read_audio(AudioBytes("flac", flac), seeds.RATE), whole)


def _wav() -> Sequence[bytes]:
    kinds = (("WAV", "PCM_16", 1), ("WAV", "PCM_16", 2), ("WAV", "PCM_24", 1), ("WAV", "FLOAT", 1), ("WAV", "ULAW", 1))
    more = (("WAVEX", "PCM_16", 2), ("WAV", "IMA_ADPCM", 1), ("WAV", "MS_ADPCM", 1), ("WAV", "GSM610", 1))
    return [seeds.encode(*kind) for kind in (*kinds, *more)]


def _wav_claims() -> Sequence[bytes]:
    wav = seeds.encode("WAV", "PCM_16")  # bytes 22: channels, 24: rate, 32: bytes a frame, 34: bits, 40: data
    channels = [seeds.claim(wav, 22, "<H", value) for value in (0, 255, 256, 1024, 1025, 65535)]
    framed = [seeds.claim(each, 32, "<H", 2 * 1024) for each in channels]
    rates = [seeds.claim(wav, 24, "<I", value) for value in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)]
    sizes = [seeds.claim(wav, 40, "<I", value) for value in (0, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2)]
    widths = [seeds.claim(wav, 34, "<H", value) for value in (0, 1, 64, 65535)]
    wide = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        2**31,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1024,
        16000,
        2**25,
        2048,
        16,
        b"data",
        2048 * 4000,
    ) + bytes(2048 * 4000)
    return [*channels, *framed, *rates, *sizes, *widths, wide]


def _flac() -> Sequence[bytes]:
    return [seeds.encode("FLAC", "PCM_16"), seeds.encode("FLAC", "PCM_24", 2), seeds.encode("FLAC", "PCM_S8", 1, 8000)]


def _flac_claims() -> Sequence[bytes]:
    flac = seeds.encode("FLAC", "PCM_16")  # bytes 18 to 25: rate (20 bits), channels (3), width (5), samples (36)
    fields = int.from_bytes(flac[18:26], "big")
    counts = [fields | 2**36 - 1, fields & ~(2**36 - 1) | 2**31, fields & ~(2**36 - 1) | 2**29, fields & ~(2**36 - 1)]
    wide = fields | 7 << 41 | 2**36 - 1
    return [seeds.claim(flac, 18, ">Q", value) for value in (*counts, wide, fields | 2**64 - 2**44, 0, 2**64 - 1)]


def _ogg() -> Sequence[bytes]:
    return [seeds.encode("OGG", "VORBIS"), seeds.encode("OGG", "VORBIS", 2), seeds.encode("OGG", "OPUS")]


def _ogg_claims() -> Sequence[bytes]:
    """The end of the last page's granule position, and channels and rates of the first."""
    claims = []
    for ogg in _ogg():
        last = ogg.rindex(b"OggS")
        claims += [seeds.claim(ogg, last + 6, "<q", value) for value in (0, -1, 1, 2**31, 2**40, 2**62, 2**63 - 1)]
        claims += [seeds.claim(ogg, 28 + 11, "<B", value) for value in (0, 8, 255)]
        claims += [seeds.claim(ogg, 28 + 12, "<I", value) for value in (0, 1, 2**31, 2**32 - 1)]
    return claims


def _mp3() -> Sequence[bytes]:
    mp3 = seeds.encode("MP3", "MPEG_LAYER_III")
    return [mp3, seeds.id3(mp3), seeds.encode("MP3", "MPEG_LAYER_III", 2, 44_100)]


def _mp3_claims() -> Sequence[bytes]:
    mp3 = _mp3()[0]
    info = max(mp3.find(b"Info"), mp3.find(b"Xing"))
    frames = [seeds.claim(mp3, info + 8, ">I", value) for value in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)]
    return [*frames, b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + mp3, b"ID3\x04\0\0\x7f\x7f\x7f\x7f"]


def _sphere() -> Sequence[bytes]:
    return [seeds.sphere(), seeds.sphere(2), seeds.encode("NIST", "ULAW"), seeds.encode("NIST", "PCM_24")]


def _sphere_claims() -> Sequence[bytes]:
    sphere = seeds.sphere()
    fields = (b"sample_count -i 4000", b"channel_count -i 1", b"sample_rate -i 16000", b"sample_n_bytes -i 2", b"1024")
    values = (b"0", b"-1", b"1024", b"32767", b"2147483647", b"2147483648", b"9" * 30)
    claims = []
    for field in fields:
        name, _, _ = field.rpartition(b" ")
        for value in values:
            head = sphere[:1024].replace(field, name + b" " + value if name else value).rstrip(b"\0 ")
            claims.append(head.ljust(1024)[:1024] + sphere[1024:])
    return claims


def _aiff() -> Sequence[bytes]:
    return [seeds.encode("AIFF", "PCM_16"), seeds.encode("AIFF", "PCM_24", 2), seeds.encode("AIFF", "FLOAT")]


def _aiff_claims() -> Sequence[bytes]:
    aiff = seeds.encode("AIFF", "PCM_16")
    comm = aiff.index(b"COMM")  # channels at 8, frames at 10, width at 14, rate (80 bits) at 16
    channels = [seeds.claim(aiff, comm + 8, ">H", value) for value in (0, 1024, 32767, 32768, 65535)]
    frames = [seeds.claim(aiff, comm + 10, ">I", value) for value in (0, 2**31 - 1, 2**31, 2**32 - 1)]
    rates = [seeds.claim(aiff, comm + 16, ">H", value) for value in (0, 0x7FFF, 0xFFFF, 0x401E, 0x403E)]
    return [*channels, *frames, *rates]


def _other_audio() -> Sequence[bytes]:
    formats = (
        "AU",
        "CAF",
        "W64",
        "RF64",
        "VOC",
        "SVX",
        "MAT4",
        "MAT5",
        "PAF",
        "IRCAM",
        "HTK",
        "SDS",
        "AVR",
        "PVF",
        "XI",
    )
    kinds = [(each, "DPCM_16" if each == "XI" else "PCM_16") for each in (*formats, "MPC2K", "WVE")]
    return [
        seeds.encode(each, "ALAW" if each == "WVE" else kind, rate=8000 if each == "WVE" else 44_100)
        for each, kind in kinds
    ]


AUDIO = {
    "wav": Target("a.wav", _wav, _read_audio, _wav_claims),
    "flac": Target("a.flac", _flac, _read_audio, _flac_claims),
    "ogg": Target("a.ogg", _ogg, _read_audio),
    "ogg, checksums mended": Target("a.ogg", _ogg, _read_audio, _ogg_claims, seeds.mend_ogg),
    "mp3": Target("a.mp3", _mp3, _read_audio, _mp3_claims),
    "sphere": Target("a.sph", _sphere, _read_audio, _sphere_claims),
    "aiff": Target("a.aiff", _aiff, _read_audio, _aiff_claims),
    "other audio": Target("a.audio", _other_audio, _read_audio),
}


def _films() -> Sequence[bytes]:
    def film(suffix: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a.{suffix}"
            tone = ["-f", "lavfi", "-i", "sine=220:d=0.5:r=16000", "-bitexact"]
            subprocess.run(["ffmpeg", "-loglevel", "error", *tone, path], check=True)
            return path.read_bytes()

    return [film(suffix) for suffix in ("m4a", "webm", "mkv", "wma")]


def _read_film(path: Path) -> None:
    """ffmpeg runs under the same limit of memory."""
    from ds2_jax import ffmpeg

    tempfile.tempdir = str(path.parent)
    blocks = accepted(path, lambda: list(ffmpeg.read_blocks(path, seeds.RATE)))
    assert np.isfinite(np.concatenate(blocks)).all()


FILMS = {"film": Target("a.mp4", _films, _read_film, starts_programs=True)} if shutil.which("ffmpeg") else {}
"""Where there is ffmpeg, which no test needs."""


def _read_archive(path: Path) -> None:
    from ds2_jax.corpora.archive import extract

    folder = path.parent / "unpacked"
    whole = attempt(path, lambda: extract(path, folder / "whole", shows_bar=False))
    chosen = attempt(path, lambda: extract(path, folder / "chosen", lambda member: "only/this", shows_bar=False))
    for each in folder.rglob("*"):
        assert each.is_dir() or each.is_file(), each
        assert not each.is_symlink(), each
    for result in (whole, chosen):
        if result is not None:
            raise result


def _members() -> Sequence[tuple[tarfile.TarInfo, bytes]]:
    return [
        seeds.member("an4", b"", type=tarfile.DIRTYPE, mode=0o755),
        seeds.member("an4/etc/an4_train.fileids", b"an4_clstk/fash/an251-fash-b\n" * 9),
        seeds.member("an4/wav/" + "long/" * 30 + "a.sph", seeds.sphere()[:2000]),
        seeds.member("an4/wav/übung.sph", b"x"),
    ]


def _tar() -> Sequence[bytes]:
    return [seeds.archive(_members(), kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]


def _tar_claims() -> Sequence[bytes]:
    """Members that would leave the folder, or that are no files; and sizes that no disk has."""
    up = [
        seeds.member(name) for name in ("../up", "a/../../up", "/tmp/ds2_jax_up", "..", "C:/up", "a\0b", "x" * 5000, "")
    ]
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"?")
    links = [seeds.member("link", b"", type=kind, linkname="../..", devmajor=1, devminor=5) for kind in kinds]
    through = [seeds.member("a", b"", type=tarfile.SYMTYPE, linkname=".."), seeds.member("a/up")]
    twice = [seeds.member("a"), seeds.member("a/b"), seeds.member("a")]
    claims = [seeds.archive([each]) for each in (*up, *links)] + [seeds.archive(through), seeds.archive(twice)]
    one = seeds.archive([seeds.member("a")], tarfile.GNU_FORMAT)
    sizes = (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80\0\0\0\x7f" + b"\xff" * 7)
    for kind in (b"0", b"L", b"K", b"x", b"g", b"S"):
        claims += [one[:124] + size + one[136:156] + kind + one[157:] for size in sizes]
    sparse = seeds.member(
        "a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**62)}
    )
    return [*claims, seeds.archive([sparse])]


ARCHIVES = {
    "gzip": Target("a.tar.gz", lambda: [seeds.mend_tar(each) for each in _tar()], _read_archive),
    "tar": Target("a.tar.gz", _tar, _read_archive, _tar_claims, seeds.mend_tar),
}


def _read_manifest(path: Path) -> None:
    from ds2_jax.alphabet import Alphabet
    from ds2_jax.config import ENGLISH
    from ds2_jax.data.manifest import check_utterances, read_manifest

    utterances = accepted(path.parent, lambda: read_manifest(path))  # a transcript's file may be at fault
    assert len({each.id for each in utterances}) == len(utterances) > 0
    for each in utterances:
        assert each.duration >= 0
        assert isinstance(each.transcript, str)
        each.id.encode()
    limits = {"sample_rate": 16_000, "hop_length": 160, "time_reduction": 2, "min_duration": 0.1, "max_duration": 20.0}
    check_utterances(utterances, Alphabet(ENGLISH), **limits)  # type: ignore[arg-type]


def _manifests() -> Sequence[bytes]:
    words = [["GO", 0.1, 0.2], ["LEFT", 0.25, 0.5]]
    ours = [{"audio": f"{i}.wav", "duration": i + 0.5, "transcript": "GO LEFT"} for i in range(3)]
    ours += [{"audio": "/a.wav", "duration": 1, "transcript": "GO LEFT", "id": "x", "speaker": "s", "words": words}]
    nemo = [{"audio_filepath": f"{i}.wav", "duration": i + 0.5, "text": "go left", "offset": 0} for i in range(3)]
    theirs = {"root_path": ".", "samples": [{"wav_path": "a.wav", "transcript_path": "a.txt"}] * 2}
    return [*("\n".join(map(json.dumps, rows)).encode() for rows in (ours, nemo)), json.dumps(theirs).encode()]


def _read_config(path: Path) -> None:
    from ds2_jax import config, run

    found = accepted(path.parent, lambda: run.load_config(path.parent))
    assert config.from_json(config.to_json(found)) == found


def _configs() -> Sequence[bytes]:
    from ds2_jax.config import Config, to_json

    return [to_json(Config()).encode()]


def _read_calibration(path: Path) -> None:
    from ds2_jax.decoding.calibrated import read_calibration

    assert 0 < accepted(path.parent, lambda: read_calibration(path.parent)).temperature < 10


def _calibrations() -> Sequence[bytes]:
    from ds2_jax.decoding.calibrated import Calibration

    return [json.dumps(dataclasses.asdict(Calibration(1.5, 0.1, 0.1, 7, "dev", 10, 5))).encode()]


def _read_tuned(path: Path) -> None:
    from ds2_jax.decoding.tuned import read_tuned

    for each in accepted(path.parent, lambda: read_tuned(path.parent)).values():
        assert np.isfinite([each.alpha, each.beta]).all()


def _tuned() -> Sequence[bytes]:
    row = {"lm": "a.arpa", "alpha": 0.5, "beta": 1, "wer": 0.1, "cer": 0.1, "num_trials": 100, "checkpoint": 5}
    return [json.dumps({"ab" * 32: row, "cd" * 32: row}).encode()]


def _read_trials(path: Path) -> None:
    from ds2_jax.lm.tune import read_trials

    trials = accepted(path, lambda: read_trials(path, {"lm": "ab", "checkpoint": 5}))
    if trials and trials.trials:
        trials.describe(*trials.errors(trials.best))


def _trials() -> Sequence[bytes]:
    first = {"lm": "ab", "checkpoint": 5, "spaced": True, "words": 9, "characters": 50}
    first |= {"greedy_words": 3, "greedy_characters": 5}
    rows = [{"alpha": 0.5, "beta": 0.1 * i, "word_errors": i, "char_errors": i} for i in range(4)]
    return ["".join(json.dumps(row) + "\n" for row in (first, *rows)).encode()]


def _read_evaluation(path: Path) -> None:
    from ds2_jax.results import read_evaluation

    evaluation = accepted(path, lambda: read_evaluation(path.parent, "dev"))
    assert evaluation is not None
    assert isinstance(str(evaluation), str)
    json.dumps(evaluation.summary, allow_nan=False)


EVALUATION = {"utterances": 2, "unalignable": 0, "left_out": 0, "loss": 1.5, "wer": 0.5}
LINES = "".join(
    json.dumps(
        {"id": f"{i}", "word_errors": 1, "reference": "GO LEFT", "hypothesis": "GO", "speaker": "", "audio": "a"}
    )
    + "\n"
    for i in range(3)
).encode()


def _read_rival(path: Path) -> None:
    from ds2_jax.report.rival import read_rival

    for result in accepted(path, lambda: read_rival(path)).results:
        assert result.words.edits >= 0


def _read_metrics(path: Path) -> None:
    from ds2_jax.progress import MetricLog

    accepted(path, lambda: MetricLog(path.parent, 5, evaluated=True))
    for line in path.read_text().splitlines():
        assert json.loads(line)["step"] <= 5


def _metrics() -> Sequence[bytes]:
    return ["".join(json.dumps({"step": step, "loss": 1.5, "dev_wer": None}) + "\n" for step in range(1, 8)).encode()]


def _read_skipped(path: Path) -> None:
    from ds2_jax.progress import Skipped

    accepted(path, lambda: Skipped(path))


def _problems() -> Sequence[bytes]:
    row = {"id": "a", "audio": "a.wav", "reason": "missing audio", "detail": "a.wav does not exist"}
    return ["".join(json.dumps(row | {"audio": f"{i}.wav"}) + "\n" for i in range(3)).encode()]


def _read_lengths(path: Path) -> None:
    from ds2_jax.data.length_table import parse_table

    rows = parse_table(path.read_text(errors="replace"))
    if rows is None:
        raise InputError(f"{path}: {rows}")


def _lengths() -> Sequence[bytes]:
    row = {"id": "a", "duration": 1.5, "transcript": "GO", "speaker": ""}
    return ["".join(json.dumps(row) + "\n" for _ in range(3)).encode()]


def _read_journal(path: Path) -> None:
    from ds2_jax.corpora.build import Journal, read_source

    with accepted(path, lambda: Journal(path)) as journal:
        assert isinstance(journal.once("new", lambda: 1.5), float)
    accepted(path.parent, lambda: read_source(path.parent, "corpus", ()))


def _read_lists(path: Path) -> None:
    """The transcripts that corpora come with."""
    from ds2_jax.corpora import common_voice, folder, tedlium, voxforge

    etc = path.parent / "etc"
    etc.mkdir()
    (etc / "PROMPTS").write_bytes(path.read_bytes())
    voxforge._prompts(path.parent)
    talk = tedlium.Talk("a", "a.sph", "a.stm", "a")
    list(accepted(path, lambda: list(tedlium._read_segments(path, talk))))
    results = [
        attempt(path, lambda: list(common_voice._read_list(path, path.parent))),
        attempt(path, lambda: folder._read_metadata(path)),
    ]
    if all(isinstance(each, InputError) for each in results):
        raise results[0]  # type: ignore[misc]


def _lists() -> Sequence[bytes]:
    stm = b"Talk_2010 1 Talk_2010 1.5 3.25 <o,f0,male> go left <unk>\n" * 5
    tsv = b"client_id\tpath\tsentence\tup_votes\n" + b"".join(
        b"abc%d\tclip%d.mp3\tGo left\t2\n" % (i, i) for i in range(5)
    )
    csv = b"".join(b"LJ00%d|Go left, 1|Go left, one\n" % i for i in range(5))
    return [tsv, csv, stm.replace(b"\n", b"|\n", 1)[: stm.index(b"\n") + 2]]


def _read_text(path: Path) -> None:
    from ds2_jax.alphabet import Alphabet
    from ds2_jax.config import ENGLISH
    from ds2_jax.lm.text import read_texts

    text = accepted(path, lambda: read_texts([path], Alphabet(ENGLISH), "skip"))
    assert text.tokens.max() < len(text.words)


TEXTS = {
    "manifest": Target(
        "m.jsonl", _manifests, _read_manifest, beside={"a.wav": seeds.encode("WAV", "PCM_16"), "a.txt": b"GO"}
    ),
    "configuration": Target("config.json", _configs, _read_config),
    "calibration": Target("calibration.json", _calibrations, _read_calibration),
    "tuned weights": Target("decoding.json", _tuned, _read_tuned),
    "trials": Target("trials.jsonl", _trials, _read_trials),
    "evaluation": Target(
        "dev.json", lambda: [json.dumps(EVALUATION).encode()], _read_evaluation, beside={"dev.jsonl": LINES}
    ),
    "evaluated utterances": Target(
        "dev.jsonl",
        lambda: [LINES],
        lambda path: _read_evaluation(path.with_suffix(".json")),
        beside={"dev.json": json.dumps(EVALUATION).encode()},
    ),
    "rival": Target("rival.jsonl", lambda: [LINES], _read_rival),
    "metrics": Target("metrics.jsonl", _metrics, _read_metrics),
    "left out": Target("skipped_train.jsonl", _problems, _read_skipped),
    "length table": Target("lengths.jsonl", _lengths, _read_lengths),
    "journal": Target(
        "durations.jsonl",
        lambda: [b'{"a.wav": 1.5}\n{"b.wav": "damaged"}\n'],
        _read_journal,
        beside={"source.json": b'{"seed": 0}'},
    ),
    "corpus lists": Target("list.tsv", _lists, _read_lists),
    "language model text": Target(
        "text.txt", lambda: [b"GO LEFT\nOPEN THE DOOR\n" * 9, gzip.compress(b"GO\n" * 9)], _read_text
    ),
}


def _read_arpa(path: Path) -> None:
    from ds2_jax.ngram.model import load

    model = accepted(path, lambda: load(path))
    scores = model.word_scores("GO LEFT AND UP")
    assert np.isfinite([each.log10 for each in scores]).all()
    cached = next((path.parent / "cache/ds2_jax/ngrams").iterdir())
    content = bytearray(cached.read_bytes())
    content[sum(map(ord, cached.name)) * 7919 % len(content)] ^= 1  # a cache that is damaged is made anew
    cached.write_bytes(content)
    assert load(path).word_scores("GO LEFT AND UP") == scores


ARPA = (
    b"\\data\\\nngram 1=5\nngram 2=3\nngram 3=1\n\n\\1-grams:\n-1.0\t<unk>\n-99\t<s>\t-0.3\n"
    b"-0.8\t</s>\n-0.9\tGO\t-0.25\n-1.1\tLEFT\t-1e-1\n\n"
    b"\\2-grams:\n-0.3\t<s> GO\t-.5\n-0.4\tGO LEFT\t0\n-0.5\tLEFT </s>\n\n"
    b"\\3-grams:\n-0.1\t<s> GO LEFT\n\n\\end\\\n"
)


def _arpa_claims() -> Sequence[bytes]:
    many = b"\\data\\\n" + b"".join(b"ngram %d=0\n" % i for i in range(1, 200_000)) + b"\\1-grams:\n"
    deep = b"\\data\\\n" + b"".join(b"ngram %d=%d\n" % (i, 3 * (i == 1)) for i in range(1, 3001))
    deep += b"\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\ta\n"
    deep += b"".join(b"\\%d-grams:\n" % i for i in range(2, 3000)) + b"\\3000-grams:\n" + b"-1\t<s>\n" * 100_000
    counts = [ARPA.replace(b"1=5", b"1=" + value) for value in (b"0", b"2147483648", b"9" * 18, b"9" * 19, b"-1")]
    bomb = gzip.compress(ARPA.replace(b"\\end\\", b"") + b"-1.0\t<s>\n" * 3_000_000)
    return [many, deep, *counts, bomb, b"\\data\\\n" + b"a" * 2**25]


MODELS = {"arpa": Target("lm.arpa", lambda: [ARPA, gzip.compress(ARPA, mtime=0)], _read_arpa, _arpa_claims)}


@functools.cache
def _run() -> Mapping[str, bytes]:
    """The files of a run with a checkpoint. Some have other names and contents in every process."""
    from tests.small_runs import SMALL_CONFIG, write_untrained_run

    with tempfile.TemporaryDirectory() as folder:
        run = write_untrained_run(Path(folder) / "run", SMALL_CONFIG)
        return {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def _files(kind: str) -> Sequence[bytes]:
    """Files of the run, each behind a line with its place among all: those that this project writes, or the others."""
    ours = ("config.json", "meta/metadata", "metrics/metrics")
    files = enumerate(sorted(_run().items()))
    return [b"%d\n" % place + data for place, (name, data) in files if name.endswith(ours) == (kind == "ours")]


def _read_run(path: Path) -> None:
    """The whole run is read, but for one file that is damaged. Weights are those that were saved, bit for bit."""
    import jax

    from ds2_jax.checkpoint import load_variables
    from ds2_jax.parallel import data_mesh
    from ds2_jax.run import load_config
    from tests.small_runs import SMALL_CONFIG, some_state

    place, _, content = path.read_bytes().partition(b"\n")
    names = sorted(_run())
    damaged = names[int(place) % len(names) if place[:5].isdigit() and len(place) < 5 else 0]
    run = path.parent / "run"
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content if name == damaged else _run()[name])
    mesh = data_mesh(jax.devices()[:1])
    config = accepted(run, lambda: load_config(run))
    variables = accepted(run, lambda: load_variables(run, config, mesh))
    state = some_state(SMALL_CONFIG)
    for saved, read in zip(
        jax.tree.leaves([state.params, state.batch_stats]),
        jax.tree.leaves([variables["params"], variables["batch_stats"]]),
        strict=True,
    ):
        np.testing.assert_array_equal(saved, read)


def _planted() -> Sequence[bytes]:
    """In place of each of them, what would run if it was unpickled or executed."""
    ours, others = (_files(kind) for kind in ("ours", "others"))
    planted = [(file, payload) for file in ours for payload in PAYLOADS] + [(file, PICKLE) for file in others]
    return [file[: file.index(b"\n") + 1] + payload for file, payload in planted]


def _read_failed_step(path: Path) -> None:
    from ds2_jax.batch_file import read_batch

    failed = accepted(path, lambda: read_batch(path))
    assert len(failed.ids) == len(failed.batch["waveforms"])
    assert failed.batch["num_samples"].max() <= failed.batch["waveforms"].shape[1]


def _failed_steps() -> Sequence[bytes]:
    from ds2_jax.batch_file import FailedStep, write_batch

    counts = np.array([100, 50], np.int32)
    batch = {"waveforms": np.zeros((2, 100), np.float32), "num_samples": counts, "indices": counts}
    batch |= {"labels": np.ones((2, 3), np.int32), "num_labels": np.array([3, 2], np.int32)}
    step = FailedStep(3, 0, np.nan, np.inf, 5, 1, 1, 0, "1 x cpu", ["a", "b"], ["a.wav", "b.wav"], batch)
    with tempfile.TemporaryDirectory() as folder:
        return [write_batch(Path(folder), step).read_bytes()]


def _failed_step_claims() -> Sequence[bytes]:
    """Archives of other arrays: compressed, of objects, larger than the file, with a name that leads outside."""
    objects = io.BytesIO()
    np.savez(objects, allow_pickle=True, waveforms=np.array([Payload()], object))
    zeros, outside = io.BytesIO(), io.BytesIO()
    np.savez_compressed(zeros, waveforms=np.zeros(10_000_000))
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("../../up.npy", PICKLE)
    [whole] = _failed_steps()
    claims = [whole.replace(b"(2, 100)", b"(2, 1e9)"), whole.replace(b"(2, 100)", b"(2147483")]
    return [*claims, objects.getvalue(), zeros.getvalue(), outside.getvalue()]


CHECKPOINTS = {
    "failed step": Target("step-3.npz", _failed_steps, _read_failed_step, _failed_step_claims),
    "configuration and metadata of a run": Target("damaged", lambda: _files("ours"), _read_run, _planted),
    "arrays of a checkpoint": Target("damaged", lambda: _files("others"), _read_run),
}

TARGETS = AUDIO | ARCHIVES | TEXTS | MODELS | CHECKPOINTS | FILMS


def _misbehave(path: Path) -> None:
    """What the limits are for."""
    what = path.read_text()
    match what:
        case "refuse":
            raise InputError(f"{path} must be accepted, got {what}.")
        case "crash":
            os.abort()
        case "hang":
            while True:
                time.sleep(1)
        case "fail":
            raise ValueError(what)
        case "refuse without a name":
            accepted(path, lambda: exec("raise InputError('It must be accepted.')"))  # noqa: S102
        case "grow":
            assert len(bytearray(b"\1") * (300 * 2**20)) > 0
        case "ask for too much":
            bytearray(3 * 2**30)
        case "write outside":
            (path.parent.parent / "left").touch()
        case "unpickle":
            pickle.loads(PICKLE)
        case "start a program":
            subprocess.run(["true"], check=True)
        case "execute":
            exec(compile(PAYLOADS[-1], path, "exec"), {})  # noqa: S102
        case "import":
            (path.parent / "planted.py").write_bytes(b"")
            sys.path.insert(0, str(path.parent))
            importlib.import_module("planted")


MISDEEDS = (
    *("refuse", "crash", "hang", "fail", "refuse without a name", "grow", "ask for too much", "write outside"),
    *("unpickle", "start a program", "execute", "import"),
)
SELF_TEST = {"misdeeds": Target("a", lambda: [b"accept"], _misbehave, lambda: [each.encode() for each in MISDEEDS])}
"""What a worker and its parent must notice."""

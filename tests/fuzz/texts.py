"""Fuzz targets: manifests, settings and results, which are lines of text and JSON."""

import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ds2_jax.system.errors import InputError
from tests.fuzz import seeds
from tests.fuzz.target import Target, accepted, attempt


def _read_manifest(path: Path) -> None:
    from ds2_jax.config.settings import ENGLISH
    from ds2_jax.data.manifest import read_manifest
    from ds2_jax.data.usable import check_utterances
    from ds2_jax.text.alphabet import Alphabet

    utterances = accepted(path.parent, lambda: read_manifest(path))  # the file of a transcript may be damaged
    assert len({each.id for each in utterances}) == len(utterances) > 0
    for each in utterances:
        assert each.duration >= 0
        assert isinstance(each.transcript, str)
        each.id.encode()
    check_utterances(
        utterances,
        Alphabet(ENGLISH),
        sample_rate=16_000,
        hop_length=160,
        time_reduction=2,
        min_duration=0.1,
        max_duration=20.0,
    )


def _manifests() -> Sequence[bytes]:
    words = [["GO", 0.1, 0.2], ["LEFT", 0.25, 0.5]]
    ours = [{"audio": f"{i}.wav", "duration": i + 0.5, "transcript": "GO LEFT"} for i in range(3)]
    ours += [{"audio": "/a.wav", "duration": 1, "transcript": "GO LEFT", "id": "x", "speaker": "s", "words": words}]
    nemo = [{"audio_filepath": f"{i}.wav", "duration": i + 0.5, "text": "go left", "offset": 0} for i in range(3)]
    theirs = {"root_path": ".", "samples": [{"wav_path": "a.wav", "transcript_path": "a.txt"}] * 2}
    return [*("\n".join(map(json.dumps, rows)).encode() for rows in (ours, nemo)), json.dumps(theirs).encode()]


def _read_config(path: Path) -> None:
    from ds2_jax import config
    from ds2_jax.runs import run_folder

    found = accepted(path.parent, lambda: run_folder.load_config(path.parent))
    assert config.from_json(config.to_json(found)) == found


def _configs() -> Sequence[bytes]:
    from ds2_jax.config import Config, to_json

    return [to_json(Config()).encode()]


def _read_calibration(path: Path) -> None:
    from ds2_jax.runs.fitted import read_calibration

    assert 0 < accepted(path.parent, lambda: read_calibration(path.parent)).temperature < 10


def _calibrations() -> Sequence[bytes]:
    from ds2_jax.decoding.calibration import Calibration

    return [json.dumps(dataclasses.asdict(Calibration(1.5, 0.1, 0.1, 7, "dev", 10, 5))).encode()]


def _read_tuned(path: Path) -> None:
    from ds2_jax.runs.fitted import read_tuned

    for each in accepted(path.parent, lambda: read_tuned(path.parent)).values():
        assert np.isfinite([each.alpha, each.beta]).all()


def _tuned() -> Sequence[bytes]:
    row = {"lm": "a.arpa", "alpha": 0.5, "beta": 1, "wer": 0.1, "cer": 0.1, "num_trials": 100, "checkpoint": 5}
    return [json.dumps({"ab" * 32: row, "cd" * 32: row}).encode()]


def _read_trials(path: Path) -> None:
    from ds2_jax.evaluation.tune import read_trials

    trials = accepted(path, lambda: read_trials(path, {"lm": "ab", "checkpoint": 5}))
    if trials and trials.trials:
        trials.describe(*trials.errors(trials.best))


def _trials() -> Sequence[bytes]:
    first = {"lm": "ab", "checkpoint": 5, "spaced": True, "words": 9, "characters": 50}
    first |= {"greedy_words": 3, "greedy_characters": 5}
    rows = [{"alpha": 0.5, "beta": 0.1 * i, "word_errors": i, "char_errors": i} for i in range(4)]
    return ["".join(json.dumps(row) + "\n" for row in (first, *rows)).encode()]


def _read_evaluation(path: Path) -> None:
    from ds2_jax.evaluation.results import read_evaluation

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
    from ds2_jax.evaluation.report.rival import read_rival

    for result in accepted(path, lambda: read_rival(path)).results:
        assert result.words.edits >= 0


def _read_metrics(path: Path) -> None:
    from ds2_jax.training.progress import MetricLog

    accepted(path, lambda: MetricLog(path.parent, 5, evaluated=True))
    for line in path.read_text().splitlines():
        assert json.loads(line)["step"] <= 5


def _metrics() -> Sequence[bytes]:
    return ["".join(json.dumps({"step": step, "loss": 1.5, "dev_wer": None}) + "\n" for step in range(1, 8)).encode()]


def _read_skipped(path: Path) -> None:
    from ds2_jax.data.skipped import Skipped

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
    """Reads the transcripts of published corpora."""
    from ds2_jax.corpora import common_voice, table, tedlium, voxforge

    etc = path.parent / "etc"
    etc.mkdir()
    (etc / "PROMPTS").write_bytes(path.read_bytes())
    voxforge._prompts(path.parent)
    talk = tedlium.Talk("a", "a.sph", "a.stm", "a")
    list(accepted(path, lambda: list(tedlium._read_segments(path, talk))))
    results = [
        attempt(path, lambda: list(common_voice._read_list(path, path.parent))),
        attempt(path, lambda: table.read_table(path)),
    ]
    refusals = [each for each in results if isinstance(each, InputError)]
    if len(refusals) == len(results):
        raise refusals[0]


def _lists() -> Sequence[bytes]:
    stm = b"Talk_2010 1 Talk_2010 1.5 3.25 <o,f0,male> go left <unk>\n" * 5
    tsv = b"client_id\tpath\tsentence\tup_votes\n" + b"".join(
        b"abc%d\tclip%d.mp3\tGo left\t2\n" % (i, i) for i in range(5)
    )
    csv = b"".join(b"LJ00%d|Go left, 1|Go left, one\n" % i for i in range(5))
    return [tsv, csv, stm.replace(b"\n", b"|\n", 1)[: stm.index(b"\n") + 2]]


def _read_text(path: Path) -> None:
    from ds2_jax.config.settings import ENGLISH
    from ds2_jax.lm.text import read_texts
    from ds2_jax.text.alphabet import Alphabet

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

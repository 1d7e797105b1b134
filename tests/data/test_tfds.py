"""Sets that TFDS prepared, read in any order; their requirements, and the errors."""

import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from ds2_jax.audio.reading import read_audio
from ds2_jax.config import Config, DataConfig
from ds2_jax.config.settings import ENGLISH
from ds2_jax.corpora import an4
from ds2_jax.curation.pack import pack
from ds2_jax.data import length_table
from ds2_jax.data.manifest import Problem, Utterance, read_manifest
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import plan_epoch
from ds2_jax.data.splits import Split, read_split, read_utterances
from ds2_jax.evaluation.evaluate import evaluate
from ds2_jax.evaluation.provenance import manifest_name
from ds2_jax.runs import run_folder
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import SMALL_CONFIG, write_noise_manifest, write_untrained_run
from tests.tfds_sets import librispeech, prepare

RATE = 16_000
NUM = 8


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the user's cache and data folder empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def speech(an4_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """A few recordings of AN4."""
    root = tmp_path_factory.mktemp("an4")
    return read_manifest(an4.prepare(root, an4_archive) / "dev.jsonl")[:NUM]


def rows(utterances: list[Utterance]) -> list[dict[str, Any]]:
    """Makes examples like those of librispeech."""
    return [
        {
            "speech": soundfile.read(each.audio, dtype="int16")[0],
            "text": each.transcript,
            "speaker_id": index % 3,
            "chapter_id": 1,
            "id": each.id,
        }
        for index, each in enumerate(utterances)
    ]


@pytest.fixture(scope="module")
def prepared(speech: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with librispeech's features."""
    return prepare(tmp_path_factory.mktemp("tfds"), {"train": rows(speech), "dev": rows(speech[:3])})


def noise(num_samples: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-9_000, 9_000, (num_samples, *channels), np.int16)


def example(speech: np.ndarray | io.BytesIO, name: str = "a", text: str = "GO") -> dict[str, Any]:
    return {"speech": speech, "text": text, "speaker_id": 1, "chapter_id": 1, "id": name}


def test_real_speech_with_librispeechs_features_is_read_by_index(prepared: Path, speech: list[Utterance]) -> None:
    name = f"tfds:{prepared}#train"
    found = read_utterances(Path(name))
    assert sorted(each.id for each in found) == sorted(each.id for each in speech)
    originals = {each.id: each for each in speech}
    speakers = {each.id: str(index % 3) for index, each in enumerate(speech)}
    for index in (5, 0, 7, 3):  # in any order
        each, original = found[index], originals[found[index].id]
        assert str(each.audio) == f"{name}[{index}]"
        assert (each.transcript, each.speaker) == (original.transcript, speakers[each.id])
        assert each.duration == original.duration
        assert each.record is not None
        np.testing.assert_array_equal(each.record.read(RATE), read_audio(original.audio, RATE))


def test_names_are_found_in_the_data_dir_with_and_without_version(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared.parent.parent))
    for name, num in (
        ("spoken#train", NUM),
        ("spoken:1.0.0#dev", 3),
        ("spoken:1.*.*#train[:50%]", 4),
        ("spoken#all", NUM + 3),
    ):
        assert len(read_utterances(Path(f"tfds:{name}"))) == num
    both = read_utterances(Path("tfds:spoken#train+dev"))  # ids occur twice
    assert len({each.id for each in both}) == len(both) == NUM + 3
    assert sum(each.id.endswith("]") for each in both) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "spoken",
            "A TensorFlow data set must be named tfds:NAME[/CONFIG][:VERSION]#SPLIT or tfds:FOLDER#SPLIT, got "
            "tfds:spoken. Add the split: ...#train.",
        ),
        (
            "librispeech#train_clean100",
            "tfds:librispeech#train_clean100 must be prepared in {none} (set TFDS_DATA_DIR to use another folder), got "
            "no such set there. Prepare it, which may download it: tfds build librispeech --file_format=array_record; "
            "or name its folder: tfds:NAME[/CONFIG][:VERSION]#SPLIT or tfds:FOLDER#SPLIT.",
        ),
        (
            "my set#train",
            "tfds:my set#train must name a data set that can be opened, got: Parsing builder name string my set "
            "failed. Correct the name.",
        ),
        (
            "{tmp}#train",
            "tfds:{tmp}#train must name a folder with a data set, got no dataset_info.json in {tmp}. If data pack was "
            "stopped while it wrote there, run that data pack command again.",
        ),
        (
            "{prepared}#test",
            "tfds:{prepared}#test must name a split of the set, which has train, dev, got 'test'. Correct it.",
        ),
        (
            "{prepared}#train[:1%]",
            "tfds:{prepared}#train[:1%] must hold at least one utterance, got none. Choose another split.",
        ),
    ],
)
def test_a_name_that_leads_nowhere_is_answered(prepared: Path, tmp_path: Path, name: str, message: str) -> None:
    places = {"tmp": tmp_path, "none": tmp_path / "none", "prepared": prepared}
    with pytest.raises(InputError, match=f"^{re.escape(message.format(**places))}$"):
        read_utterances(Path(f"tfds:{name}".format(**places)))


def test_tfrecord_is_refused_with_the_command_that_rewrites_it(tmp_path: Path) -> None:
    folder = prepare(tmp_path, {"train": [example(noise(1600))]}, file_format="tfrecord")
    message = (
        f"tfds:{folder}#train must be stored as ArrayRecord to be read in any order, got tfrecord. Rewrite it: python "
        f"main.py data pack 'tfds:{folder}#train' --out FOLDER; then name tfds:FOLDER#SPLIT."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_utterances(Path(f"tfds:{folder}#train"))


@pytest.mark.parametrize(
    ("audio", "samples"),
    [
        (lambda: tfds.features.Audio(sample_rate=8_000, dtype=np.int16), noise(4_001)),
        (lambda: tfds.features.Audio(sample_rate=8_000), noise(4_001).astype(np.int64)),
        (lambda: tfds.features.Audio(sample_rate=22_050, dtype=np.int16, shape=(None, 2)), noise(9_000, 2)),
        (
            lambda: tfds.features.Audio(sample_rate=RATE, dtype=np.float32),
            (noise(5_000) / 2**15).astype(np.float32),
        ),
    ],
    ids=["8 kHz", "int64", "stereo", "float"],
)
def test_samples_become_what_their_file_would(tmp_path: Path, audio: Callable[[], Any], samples: np.ndarray) -> None:
    feature = audio()
    folder = prepare(tmp_path, {"train": [example(samples)]}, librispeech() | {"speech": feature})
    [utterance] = read_utterances(Path(f"tfds:{folder}#train"))
    whole = samples.dtype.kind == "i"
    kind, subtype = (np.int16, "PCM_16") if whole else (np.float32, "FLOAT")
    soundfile.write(tmp_path / "a.wav", samples.astype(kind), feature.sample_rate, subtype=subtype)
    assert utterance.record is not None
    np.testing.assert_array_equal(utterance.record.read(RATE), read_audio(tmp_path / "a.wav", RATE))
    assert utterance.duration == len(samples) / feature.sample_rate


def test_whole_files_kept_as_they_are_need_no_decoder_of_tfds(tmp_path: Path) -> None:
    """Like librispeech/lazy_decode. TFDS itself needs tensorflow_io, which has no release for this TensorFlow."""
    soundfile.write(tmp_path / "a.flac", noise(8_001), 22_050)
    audio = tfds.features.Audio(sample_rate=16_000, dtype=np.int16, file_format="flac", lazy_decode=True)
    file = io.BytesIO((tmp_path / "a.flac").read_bytes())
    folder = prepare(tmp_path, {"train": [example(file)]}, librispeech() | {"speech": audio})
    [utterance] = read_utterances(Path(f"tfds:{folder}#train"))
    assert utterance.record is not None
    assert utterance.duration == 8_001 / 22_050
    np.testing.assert_array_equal(utterance.record.read(RATE), read_audio(tmp_path / "a.flac", RATE))


def test_records_without_known_full_scale_and_bad_transcripts_are_named(tmp_path: Path) -> None:
    loud = np.full(8_000, 2**20, np.int64)
    features = librispeech() | {"speech": tfds.features.Audio(sample_rate=RATE)}
    folder = prepare(tmp_path, {"train": [example(loud, "loud"), example(noise(8_000), "dig", "42")]}, features)
    name = Path(f"tfds:{folder}#train")
    message = rf"^{re.escape(str(name))} must hold only usable utterances, got 1 of 2 .* 1 unknown characters\."
    with pytest.raises(InputError, match=message):
        read_split(name, Config(), Alphabet(ENGLISH), prune=True)
    utterances = [dataclasses.replace(each, transcript="GO") for each in read_utterances(name)]
    problems: list[Problem] = []
    num_samples = np.array([each.num_samples(RATE) for each in utterances])
    plan = plan_epoch(num_samples, batch_size=2, num_buckets=1, hop_length=160, seed=0, epoch=0)
    settings: Any = {"sample_rate": RATE, "hop_length": 160, "num_workers": 1}
    [batch] = batches(plan, Split(utterances, Alphabet(ENGLISH)), **settings, on_problem=problems.append)
    [problem] = problems
    where = next(str(each.audio) for each in utterances if each.id == "loud")
    detail = f"{where} must hold samples of 16 bits, got int64 of up to 1.04858e+06. Prepare the set again."
    assert problem == Problem("loud", where, "unreadable audio", detail)
    assert (batch["num_samples"] > 0).sum() == 1


def test_an_evaluation_of_a_set_is_that_of_its_manifest(tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path / "data", name="noise")
    pack((str(manifest),), str(tmp_path / "pack"))
    trained = write_untrained_run(tmp_path / "run", SMALL_CONFIG)
    expected = evaluate(trained, manifest)
    got = evaluate(trained, Path(f"tfds:{tmp_path / 'pack'}#noise"))
    assert got.summary["provenance"]["manifest_digest"] == expected.summary["provenance"]["manifest_digest"]
    assert got.summary | {"provenance": None} == expected.summary | {"provenance": None}
    assert [each.hypothesis for each in got.results] == [each.hypothesis for each in expected.results]
    [path] = (trained / "evaluations").glob("pack-noise-*.jsonl")
    lines = path.read_text().splitlines()
    places = {f"tfds:{tmp_path / 'pack'}#noise[{i}]" for i in range(3)}
    assert {json.loads(line)["audio"] for line in lines} == places


def test_a_damaged_shard_is_named(prepared: Path, tmp_path: Path) -> None:
    name = Path(f"tfds:{prepared}#train")
    utterances = read_utterances(name)
    [shard] = prepared.glob("*train.array_record*")
    content = shard.read_bytes()
    try:
        shard.write_bytes(content[:70_000] + bytes(100) + content[70_100:])
        with pytest.raises(InputError, match=rf"^{re.escape(str(name))}\[\d\] must be readable, got: .* again\.$"):
            [each.record.read(RATE) for each in read_utterances(name) if each.record]
    finally:
        shard.write_bytes(content)
    assert len(utterances) == NUM


def test_lengths_are_counted_once_and_anew_for_a_set_prepared_anew(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    count = length_table.count

    def watched(split: Any) -> Any:
        counted.append(len(split))
        return count(split)

    monkeypatch.setattr(length_table, "count", watched)
    folder = prepare(tmp_path / "tfds", {"train": [example(noise(3_200))]})
    name = Path(f"tfds:{folder}#train")
    first = read_utterances(name)
    again = read_utterances(name)
    assert [each.duration for each in first] == [each.duration for each in again] == [0.2]
    assert counted == [1]

    [table] = (cache / "ds2_jax/lengths").iterdir()
    content = table.read_text()
    for damaged in ("", content[:-9], content * 2, content.replace("0.2", '"0.2"'), "[]\n"):
        table.write_text(damaged)
        assert read_utterances(name)[0].duration == 0.2
    assert counted == [1] * 6
    assert table.read_text() == content

    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    prepare(tmp_path / "tfds", {"train": [example(noise(4_800))]})
    assert read_utterances(name)[0].duration == 0.3
    assert counted == [1] * 7


def test_a_count_that_is_stopped_or_cannot_be_kept_is_made_again(
    prepared: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    name = Path(f"tfds:{prepared}#dev")
    with monkeypatch.context() as patch:
        patch.setattr("ds2_jax.data.tfds.TfdsSplit.row", stop)
        with pytest.raises(KeyboardInterrupt):
            read_utterances(name)
    assert not list(cache.rglob("*.jsonl"))
    shutil.rmtree(cache)
    cache.write_text("no folder")
    assert len(read_utterances(name)) == 3


def test_a_run_and_an_evaluation_take_a_folders_name_along(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.parent)
    data = DataConfig(train=Path(f"tfds:{prepared.name}#train"), dev=Path("tfds:spoken#dev"), test=Path("t.jsonl"))
    run_folder.open_run(tmp_path / "run", Config(data=data), overwrite=False)
    kept = run_folder.load_config(tmp_path / "run").data
    assert str(kept.train) == f"tfds:{os.path.realpath(prepared)}#train"
    assert (str(kept.dev), kept.test) == ("tfds:spoken#dev", prepared.parent / "t.jsonl")
    assert manifest_name(Path("tfds:librispeech/default:2.1.1#test_clean")) == "default-2.1.1-test_clean"
    assert manifest_name(Path("tfds:/data/an4-pack#test[:10%]")) == "an4-pack-test-10-"
    assert manifest_name(Path("/data/an4/test.jsonl")) == "an4-test"


@pytest.mark.parametrize("field", ['"duration": NaN', '"duration": -1.0', '"id": "\\ud800"', '"id": 1', '"more": 1'])
def test_a_length_table_with_a_damaged_row(field: str) -> None:
    whole = '{"id": "a", "duration": 1.5, "transcript": "GO", "speaker": ""}\n'
    assert length_table.parse_table(whole) is not None
    row = json.dumps(json.loads(whole) | json.loads(f"{{{field}}}"))
    assert length_table.parse_table(whole + row) is None
    assert length_table.parse_table("[" * 100_000) is None

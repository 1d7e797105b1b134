"""The report of the check, and an exit code that tells whether training can start."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal

import matplotlib.image
import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.config import Config, DataConfig
from ds2_jax.curation.check import check
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import plan_evaluation
from ds2_jax.data.splits import read_split
from ds2_jax.runs import run_folder
from ds2_jax.runs.overrides import DataSettings, FeatureSettings, ModelSettings, read_settings
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import RATE, noise, write_noise, write_noise_manifest


def bad_utterance(folder: Path, kind: str) -> Utterance:
    """Makes an utterance with a fault."""
    path = write_noise(folder / f"{kind}.wav", 0.5, seed=99)
    good = Utterance(path, 0.5, "GO ON", kind, "ann")
    samples = noise(0.5, seed=99)
    match kind:
        case "missing audio":
            path.unlink()
        case "unreadable audio":
            path.write_bytes(path.read_bytes()[:-2000])
        case "not a number":
            samples[7] = np.nan
            soundfile.write(path, samples, RATE, subtype="FLOAT")
        case "wrong duration":
            return dataclasses.replace(good, duration=1.5)
        case "outside the recording":
            return dataclasses.replace(good, offset=0.25)
        case "unknown characters":
            return dataclasses.replace(good, transcript="GO 4 IT")
        case "empty transcript":
            return dataclasses.replace(good, transcript=" ")
        case "duration outside the limits":
            return dataclasses.replace(good, duration=30.0)
        case "too few output frames":
            return dataclasses.replace(good, transcript="A" * 20)
        case "too few real frames":  # 0.5 s would be enough frames, but the file is shorter, within the tolerance
            return dataclasses.replace(good, duration=0.55, transcript="AB" * 14)
    return good


def training_stops(path: Path, config: Config, role: str) -> str:
    """Gives the error with which training would stop at a split; "" if it would not stop."""
    alphabet = Alphabet.of(config.data)
    try:
        split = read_split(path, config, alphabet, prune=role != "test")
        num_samples = split.num_samples(RATE)
        plan = plan_evaluation(num_samples, batch_size=4, num_buckets=1, hop_length=160)
        stream = batches(
            plan,
            split,
            sample_rate=RATE,
            hop_length=160,
            num_workers=1,
            time_reduction=config.model.time_reduction if role == "train" else None,
            on_problem=None if config.data.on_bad_utterance == "error" else lambda _: None,
        )
        list(stream)
    except InputError as error:
        return str(error)
    return ""


KINDS = [
    *(
        "missing audio",
        "unreadable audio",
        "not a number",
        "wrong duration",
        "outside the recording",
        "unknown characters",
        "empty transcript",
    ),
    *("duration outside the limits", "too few output frames", "too few real frames", "good"),
]


@pytest.mark.parametrize("role", ["train", "dev", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_exit_code_is_what_training_does(
    kind: str, role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [bad_utterance(tmp_path / str(i), "good") for i in range(2)]
    rows = [dataclasses.replace(each, id=str(i)) for i, each in enumerate(good)]
    path = tmp_path / "set.jsonl"
    write_manifest(path, [*rows, bad_utterance(tmp_path, kind)])
    for on_bad in ("error", "skip"):
        data = DataConfig(train=path, dev=path, on_bad_utterance=on_bad)
        stops = training_stops(path, Config(data=data), role)
        if role == "test":
            code = check(test=path, data=DataSettings(on_bad_utterance=on_bad))
        elif role == "train":
            code = check((path,), data=DataSettings(on_bad_utterance=on_bad))
        else:
            write_manifest(tmp_path / "train.jsonl", rows)
            config = tmp_path / "config.py"
            config.write_text(
                "from ds2_jax.config import Config, DataConfig\nconfig = Config(data=DataConfig("
                f"train={str(tmp_path / 'train.jsonl')!r}, dev={str(path)!r}, on_bad_utterance={on_bad!r}))\n"
            )
            code = check(config=config)
        printed = capsys.readouterr().out
        assert code == bool(stops), (on_bad, stops, printed)
        assert ("training cannot start: " in printed) == bool(code)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Makes a manifest with one utterance of each kind of finding."""
    rows = [bad_utterance(tmp_path, kind) for kind in KINDS if kind != "good"]
    rows.append(dataclasses.replace(bad_utterance(tmp_path, "good"), id="fine"))
    soundfile.write(tmp_path / "loud.wav", np.clip(4 * noise(0.5, 5), -0.9, 0.9), RATE)
    soundfile.write(tmp_path / "quiet.wav", np.zeros(4_000), 8_000)
    rows.append(Utterance(tmp_path / "loud.wav", 0.5, "LOUD", "loud"))
    rows.append(Utterance(tmp_path / "quiet.wav", 0.5, "QUIET", "quiet"))
    write_manifest(tmp_path / "odd.jsonl", rows)
    return tmp_path / "odd.jsonl"


def test_report_counts_every_kind_and_shows_examples(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = write_noise_manifest(tmp_path / "test", ("LOUD", "LOUD"))
    findings = tmp_path / "findings.jsonl"
    words = ["data", "check", str(odd), "--test", str(test), "--findings", str(findings)]
    assert cli.main([*words, "--data.max-duration", "10"]) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0] == (
        "settings: the defaults (give --config FILE or --run RUN for others), and data.max_duration as given"
    )
    assert lines[1] == "  16000 Hz, 0.1 to 10 s, output frames of 20 ms, data.on_bad_utterance error"
    told = re.findall(r"^  (error|warning|remark): (.*): (\d+)$", printed.out, flags=re.MULTILINE)
    assert told == [
        ("error", "missing audio", "1"),
        ("error", "outside the recording", "1"),
        ("error", "unknown characters", "1"),
        ("error", "empty transcript", "1"),
        ("error", "too few output frames", "2"),
        ("error", "unreadable audio", "2"),
        ("error", "wrong duration", "2"),  # 1.5 s, and 30 s, which no limit allows either
        ("warning", "clipping", "1"),
        ("warning", "silence", "1"),
        ("warning", "mixed sample rates", "1"),
        ("warning", "sample rate below the model's", "1"),
        ("warning", "same recording twice", "6"),
        ("warning", f"text also in {odd}", "1"),
    ]
    assert "    line 6, unknown characters.wav: ['4'] in 'GO 4 IT'" in lines
    assert "10 errors, 11 warnings, 0 remarks" in lines
    assert lines[-1].startswith(f"training cannot start: {odd} must hold only usable utterances, got 10 of 13")
    rows = [json.loads(line) for line in findings.read_text().splitlines()]
    assert len(rows) == 21
    assert rows[0] == {
        **{"level": "error", "manifest": str(odd), "kind": "missing audio", "id": "missing audio"},
        **{"audio": str(tmp_path / "missing audio.wav"), "detail": f"{tmp_path}/missing audio.wav does not exist"},
        "place": "line 1",
    }


def test_the_verdict_says_for_which_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_noise_manifest(tmp_path)
    for words, verdict in (
        ([], "training can start with the default settings; for those of a recipe, name it: --config RECIPE"),
        (["--config", "an4_cpu"], "training can start with these settings"),
    ):
        assert cli.main(["data", "check", str(path), *words]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == verdict


def test_a_duration_of_zero_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_noise(tmp_path / "a.wav")
    path = tmp_path / "all.jsonl"
    path.write_text('{"audio": "a.wav", "duration": 0, "transcript": "GO"}\n')
    assert check((path,)) == 1
    printed = capsys.readouterr().out
    assert "  error: wrong duration: 1\n    line 1, a.wav: " in printed
    assert "\n1 errors, " in printed


def test_picture_is_drawn(odd: Path, tmp_path: Path) -> None:
    check((odd,), picture=tmp_path / "new" / "odd.png")
    pixels = matplotlib.image.imread(tmp_path / "new" / "odd.png")
    assert pixels.shape == (700, 900, 4)
    blue = np.abs(pixels[..., :3] - np.array([31, 119, 180]) / 255).max(-1) < 0.01  # Matplotlib's first colour
    assert blue[50:300].sum() > 1_000
    assert blue[400:650].sum() > 1_000


def test_punctuation_is_removed_as_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_noise_manifest(tmp_path, ("l’eau, oui!", "NON"))
    alphabet, remove = "'aeilnou ", "’,!"
    assert check((manifest,), data=DataSettings(alphabet=alphabet)) == 1
    assert check((manifest,), data=DataSettings(alphabet=alphabet, remove=remove)) == 0
    assert "'o' 2" in capsys.readouterr().out
    data = DataConfig(train=manifest, alphabet=alphabet, remove=remove)
    [first, _] = read_split(manifest, Config(data=data), Alphabet.of(data), prune=True).utterances
    assert Alphabet.of(data).normalise(first.transcript) == "l'eau oui"


def test_settings_of_a_run_name_the_manifests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = (write_noise_manifest(tmp_path / name, (text,)) for name, text in (("a", "ja"), ("b", "nein, 3")))
    data = DataConfig(train=train, test=test, alphabet="aeijn ", case="lower")
    run_folder.open_run(tmp_path / "run", Config(data=data), overwrite=False)
    assert check(run=tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert f"settings: those of the run {tmp_path / 'run'}\n" in printed
    assert f"{train}, as a train split: nothing found" in printed
    assert f"{test}, as a test split:\n  warning: unknown characters: 1" in printed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "MANIFEST must be given if the settings have no data.train, got none. Add it."),
        (
            {"config": Path("c.py"), "run": Path("r")},
            "--config must be left out if --run is given, got c.py and r. Remove one.",
        ),
        ({"data": DataSettings(alphabet="")}, "data.alphabet must hold at least one character, got ''."),
        (
            {"data": DataSettings(max_duration=0.05)},
            "data.max_duration must be longer than data.min_duration (0.1 s), got 0.05.",
        ),
        ({"manifests": (Path("a"), Path("./a"))}, "Each manifest must be named once, got {a} 2 times. Name it once."),
        (
            {"manifests": (Path("none"),)},
            "none must be a readable file, got: No such file or directory. Correct the path.",
        ),
    ],
)
def test_wrong_use_is_explained(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        check(**given)
    assert str(error.value) == message.replace("{a}", str(Path("a").resolve()))


def test_a_corpus_that_is_not_there_is_to_be_prepared(tmp_path: Path) -> None:
    file = tmp_path / "c.py"
    text = f"config = Config(data=DataConfig(corpus='an4', root={str(tmp_path)!r}))"
    file.write_text(f"from ds2_jax.config import *\n{text}\n")
    with pytest.raises(InputError) as error:
        check(config=file)
    assert str(error.value) == (
        f"{tmp_path}/an4 must hold the corpus an4, got no train.jsonl in it. "
        f"Prepare it: python main.py prepare an4 --root {tmp_path}."
    )


def test_a_model_of_another_rate_hears_what_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1.0)[:8_000], 8_000)
    write_manifest(tmp_path / "a.jsonl", [Utterance(tmp_path / "a.wav", 1.0, "GO", "a")])
    check((tmp_path / "a.jsonl",), features=FeatureSettings(8_000))
    assert "nothing found" in capsys.readouterr().out
    check((tmp_path / "a.jsonl",))
    assert "warning: sample rate below the model's: 1" in capsys.readouterr().out


def test_settings_given_come_before_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.py"
    file.write_text("from ds2_jax.config import *\nconfig = Config(data=DataConfig(case='upper', remove='.'))\n")
    case: Literal["lower"] = "lower"
    settings, source = read_settings(file, None, data=DataSettings(case=case), model=ModelSettings(4))
    assert (settings.data.case, settings.data.remove) == ("lower", ".")
    assert source == f"those of {file}, and data.case, model.time_reduction as given"
    assert settings.model.time_reduction == 4


def test_real_speech_passes(an4_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ds2_jax.corpora import an4

    folder = an4.prepare(tmp_path, an4_archive)
    assert check((folder / "train.jsonl", folder / "dev.jsonl"), test=folder / "test.jsonl") == 0
    kinds = re.findall(r"^  (\w+): ([^:/]*)", capsys.readouterr().out, flags=re.MULTILINE)
    assert set(kinds) == {("warning", "text also in ")}
    assert len(read_manifest(folder / "train.jsonl")) > 700

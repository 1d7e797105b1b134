"""The recipes with train --dry-run: their output on a corpus in the right layout, and what they refuse."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import pytest

from ds2_jax import cli
from ds2_jax.config import Config, load_config
from ds2_jax.corpora import CORPORA
from ds2_jax.data.splits import Split
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.runs import run_folder
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training import dry_run, memory
from tests.small_runs import SMALL_CONFIG, write_noise_manifest, write_untrained_run

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {"librispeech": "librispeech", "tedlium": "tedlium", "commonvoice": "common-voice", "voxforge": "voxforge"}
"""The corpus that `prepare` makes for each configuration."""
QUICK = (
    "--model.num-layers 1 --model.hidden-size 8 --model.channels 2 2 --model.dtype bfloat16 --data.batch-seconds 3"
    " --model.frequency-kernels 3 3 --model.time-kernels 3 3"
).split()
"""Options with which the step compiles fast for a few seconds of audio."""


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = data_mesh(jax.devices()[:1])
    for module in ("train", "dry_run", "memory"):
        monkeypatch.setattr(f"ds2_jax.training.{module}.data_mesh", lambda *_: mesh)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every corpus in the layout of the recipes: real paths with made recordings."""
    root = tmp_path_factory.mktemp("work")
    made = root / "made"
    for split in ("train", "dev", "test"):
        write_noise_manifest(made, ("GO", "YES", "NO", "STOP")[: 4 if split == "train" else 2], split)
    for name in RECIPES:
        data = load_config(ROOT / f"configs/{name}.py").data
        for split in ("train", "dev", "test"):
            path: Path = getattr(data, split)
            (root / path.parent).mkdir(parents=True, exist_ok=True)
            shutil.copy(made / f"{split}.jsonl", root / path)
            for audio in made.glob(f"{split}*.wav"):
                shutil.copy(audio, root / path.parent)
    return root


def run_cli(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_the_settings_of_the_original_and_names_its_commands(name: str) -> None:
    path = ROOT / f"configs/{name}.py"
    config = load_config(path)
    default = Config()
    assert (config.epochs, config.model, config.optim) == (16, default.model, default.optim)
    augment = config.augment
    assert (augment.num_frequency_masks, augment.frequency_mask_width) == (1, 27)
    assert (augment.num_time_masks, augment.time_mask_width) == (1, 70)
    about = path.read_text()
    for command in (
        f"    python main.py prepare {RECIPES[name]}",
        f"    python main.py --config configs/{name}.py\n",
        f"    python main.py data batch-seconds --config configs/{name}.py --memory 80\n",
    ):
        assert command in about
    [largest] = re.findall(r"^printed (\d+),", about, flags=re.MULTILINE)
    assert 0 < config.data.batch_seconds < int(largest)
    assert f"{config.data.batch_seconds:g} s of audio in a batch" in about
    assert f"{config.data.batch_seconds:g} s take about" in about


@pytest.mark.parametrize(
    "name", [name if name == "voxforge" else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_a_recipes_dry_run(
    name: str, datasets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(datasets)
    before = sorted(datasets.rglob("*"))
    code, out, err = run_cli(capsys, "train", "--config", ROOT / f"configs/{name}.py", "--dry-run", *QUICK)
    assert code == 0, err
    assert sorted(datasets.rglob("*")) == before
    assert f"train: {load_config(ROOT / f'configs/{name}.py').data.train}, 4 utterances, 0.00 hours" in err
    lines = out.splitlines()
    assert lines[0] == "train: 4 utterances, 0.00 hours"
    assert re.fullmatch(
        r"an epoch: 1 batches; \S+% of the frames in their rows are padding, \d+ rows stay empty "
        r"\(\S+% of all frames\); 16 steps in 16 epochs",
        lines[3],
    )
    assert re.fullmatch(r" +1 batches of +\d+ x  0\.\d\d s", lines[4])
    assert re.fullmatch(
        r"memory of a step with the largest batch, \d+ x 0\.\d\d s, on each device \(1 x .*\): [1-9]\d* MiB", lines[5]
    )
    assert "4 utterances, 0 of the batch unusable" in lines[-2]
    assert lines[-1] == f"To train in runs/{name}, run the same command without --dry-run."


@pytest.mark.parametrize("name", RECIPES)
def test_missing_manifests_name_the_command_that_makes_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CORPORA, RECIPES[name], "a corpus")
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli(capsys, "--config", ROOT / f"configs/{name}.py", "--dry-run")
    path = load_config(ROOT / f"configs/{name}.py").data.train
    assert path is not None
    assert (code, out) == (1, "")
    assert err == (
        f"error: data.train must be a manifest, got {path}, which does not exist. Make it: "
        f"python main.py prepare {RECIPES[name]} --root datasets (--help lists its options).\n"
    )
    assert not any(tmp_path.iterdir())
    # `prepare` cannot make the user's own manifest, nor a misspelled one of an existing corpus.
    (tmp_path / path).parent.mkdir(parents=True)
    given = {"--data.train": path, "--data.dev": "mine/dev.jsonl", "--data.test": None}
    words = [word for option in given.items() for word in option]
    code, _, err = run_cli(capsys, "--config", ROOT / f"configs/{name}.py", "--dry-run", *words)
    assert code == 1
    assert (
        err == f"error: data.train {path} must be a readable file, got: No such file or directory. Correct the path.\n"
    )


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """The command for four made recordings and a small model; the run's folder is the last word."""
    manifest = write_noise_manifest(tmp_path / "data", ("GO", "YES", "NO", "STOP"))
    words = ["--config", str(ROOT / "configs/voxforge.py"), "--dry-run", *QUICK]  # its programs are compiled already
    words += ["--data.train", str(manifest), "--data.dev", "None", "--data.test", "None"]
    return [*words, "--data.on-bad-utterance", "error", "--workdir", str(tmp_path / "run")]


def test_a_folder_that_training_would_refuse_is_refused(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_untrained_run(tmp_path / "run", SMALL_CONFIG)
    code, _, err = run_cli(capsys, *small)
    assert code == 1
    assert "must be continued with its own settings, got others:\n" in err
    assert "model.hidden_size: 16 in the run, 8 now\n" in err
    assert (tmp_path / "run/checkpoints").is_dir()
    (tmp_path / "file").touch()
    code, _, err = run_cli(capsys, *small[:-1], tmp_path / "file")
    assert (code, "error: --workdir must be a folder, got " in err) == (1, True)


@pytest.mark.parametrize(
    ("steps", "patience", "said"),
    [
        ([], 0, "To train in {run}, run the same command without --dry-run."),
        ([3], 0, "To continue in {run} after step 3, run the same command without --dry-run."),
        ([2, 3, 16], 0, "The run in {run} is finished: 16 of 16 epochs."),
        (
            [2, 3, 4],
            2,
            "The run in {run} is finished: 4 of 16 epochs, because no epoch of the last 2 had a better dev WER (raise "
            "--patience, or set it to 0, to train on).",
        ),
    ],
)
def test_what_a_run_has_left_is_told(tmp_path: Path, steps: list[int], patience: int, said: str) -> None:
    config = dataclasses.replace(SMALL_CONFIG, epochs=16, patience=patience)
    run_folder.open_run(tmp_path, config, overwrite=False)
    for wer, step in enumerate(steps):
        metrics = tmp_path / f"checkpoints/{step}/metrics/metrics"
        metrics.parent.mkdir(parents=True)
        metrics.write_text(json.dumps({"dev_wer": 0.1 * wer, "step": step}))
    empty = Split((), Alphabet.of(config.data))
    splits = dict.fromkeys(("train", "dev", "test"), empty)
    told = dry_run.prospects(tmp_path, config, False, splits, num_steps=1)
    assert told == said.format(run=tmp_path)
    assert dry_run.prospects(tmp_path, config, True, splits, num_steps=1).startswith("To train in ")


def test_unusable_recordings_are_named(small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = tmp_path / "data/all1.wav"
    audio.write_bytes(audio.read_bytes()[:3000])
    code, _, err = run_cli(capsys, *small)
    assert code == 1
    assert "error: Utterance all1: " in err
    code, out, err = run_cli(capsys, *small, "--data.on-bad-utterance", "skip")
    assert code == 0
    assert "left out: all1 (" in err
    assert "3 utterances, 1 of the batch unusable" in out
    for other in (tmp_path / "data").glob("*.wav"):
        shutil.copy(audio, other) if other != audio else None
    code, _, err = run_cli(capsys, *small, "--data.on-bad-utterance", "skip")
    assert code == 1
    assert "data.train must hold utterances that can be read and aligned, got 0 utterances, 4 of the batch" in err
    assert not (tmp_path / "run").exists()


def test_a_step_too_large_for_the_device_is_refused(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run, "device_limit", lambda: 2**20)
    code, _, err = run_cli(capsys, *small)
    assert code == 1
    assert re.search(
        r"error: data\.batch_seconds \(or data\.batch_size\) must make the step fit into the 1 MiB that the device has "
        r"for arrays, got a step of \d+ MiB\. python main\.py data batch-seconds prints the largest value that fits\.",
        err,
    )


def test_a_batch_in_parts_is_told(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled: list[int] = []

    def compiled_bytes(*_: object, num_rows: int, **__: object) -> int:
        compiled.append(num_rows)
        return 0

    monkeypatch.setattr(memory, "compiled_bytes", compiled_bytes)
    monkeypatch.setattr(dry_run, "try_batch", lambda *_: "tried")
    code, out, err = run_cli(capsys, *small, "--optim.accumulate", "3")
    assert code == 0, err
    assert compiled == [6]  # 2 of the 4 utterances in each part; the last part is empty
    assert re.search(r"largest batch, 6 x 0\.\d\d s in 3 parts, one after the other, on each device \(1 x ", out)

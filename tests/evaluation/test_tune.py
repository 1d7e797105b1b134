"""Tuning finds weights, saves them and continues; and its picture."""

import dataclasses
import json
import math
import shutil
import signal
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.config import Config
from ds2_jax.decoding.beam.search import BeamSearch
from ds2_jax.decoding.ngram.cache import digest_of
from ds2_jax.decoding.ngram.model import load
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.evaluation import tune as tune_lib
from ds2_jax.evaluation.tune import SplitOutputs, Trial, Trials, describe, propose, read_trials, run_trials
from ds2_jax.evaluation.tune_picture import Surface, draw_surface
from ds2_jax.runs import run_folder
from ds2_jax.runs.fitted import Tuned, read_tuned, run_decoder
from ds2_jax.system import compilation, interrupts
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import (
    SMALL_CONFIG,
    with_manifests,
    write_noise_manifest,
    write_untrained_run,
)

CONDITIONS = {
    "lm": "0123",
    "split": "4567",
    "checkpoint": 7,
    "spaced": True,
    "words": 10,
    "characters": 40,
    "greedy_words": 6,
    "greedy_characters": 20,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compilation, "enable_cache", lambda: None)  # a change of settings compiles again


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    """Makes a 2-gram of the words of `write_noise_manifest`."""
    text, out = tmp_path / "text.txt", tmp_path / "lm.arpa"
    text.write_text("GO\nYES\nNO\nGO NO\n")
    assert cli.main(["lm", "build", str(text), "--out", str(out), "--order", "2"]) == 0
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a run with random weights."""
    folder = tmp_path_factory.mktemp("run")
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(folder))
    return write_untrained_run(folder / "run", config)


def make_trials(folder: Path, *trials: Trial, spaced: bool = True) -> Trials:
    return Trials(folder / "trials.jsonl", CONDITIONS | {"spaced": spaced}, list(trials))


def test_command(run: Path, lm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three trials, two more, then none. The run saves each, and decoding finds the best."""
    words = ["lm", "tune", str(run), "--lm", str(lm), "--trials"]
    cached: list[bool] = []
    monkeypatch.setattr(compilation, "enable_cache", lambda: cached.append(True))
    assert cli.main([*words, "3"]) == 0
    assert cached, "what is compiled must be kept: hearing the dev split anew takes half a minute otherwise"
    output = capsys.readouterr()
    told = output.out
    assert "all.jsonl has 3 words: one error is 33.3%, so weights that win by a few errors may be no" in output.err
    digest = digest_of(lm)
    folder = run / "tuning" / f"lm.arpa-{digest[:12]}"
    assert "all.jsonl: 3 utterances, 3 words\ngreedy decoding: WER " in told
    assert f"\npicture: {folder / 'surface.png'}\nsaved in {run / 'decoding.json'}." in told
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert (rows[0]["lm"], rows[0]["words"], rows[0]["characters"], rows[0]["spaced"]) == (digest, 3, 7, True)
    assert (rows[1]["alpha"], rows[1]["beta"]) == (0.5, 0.5)
    assert len(rows) == 4
    found = read_tuned(run)[digest]
    assert (found.lm, found.num_trials) == (str(lm), 3)

    monkeypatch.setattr(tune_lib, "FEW", 3)
    assert cli.main([*words, "5"]) == 0
    output = capsys.readouterr()
    assert "\n3 trials are already done\n" in output.out
    assert "one error is" not in output.err
    again = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert again[:4] == rows
    assert len(again) == 6
    best = min(again[1:], key=lambda row: (row["word_errors"], row["char_errors"], row["alpha"], row["beta"]))
    found = read_tuned(run)[digest]
    assert (found.alpha, found.beta, found.wer) == (best["alpha"], best["beta"], best["word_errors"] / 3)

    monkeypatch.setattr(tune_lib, "hear", None)  # a finished study needs no model
    assert cli.main([*words, "5"]) == 0
    assert f"alpha {best['alpha']:g}, beta {best['beta']:g}, the best of 5 trials: WER" in capsys.readouterr().out

    config = run_folder.load_config(run)
    run_decoder(config, run, DecodingOptions(lm=lm))
    assert capsys.readouterr().err.startswith(f"{lm}: alpha {best['alpha']:g}, beta {best['beta']:g} (tuned")


def test_trials_of_other_conditions_are_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = make_trials(tmp_path)
    trials.add(Trial(0.5, 0.5, 3, 4))
    assert read_trials(trials.path, {"lm": "0123", "checkpoint": 7}) == trials
    assert read_trials(trials.path, {"lm": "0123", "checkpoint": 8, "split": "0"}) is None
    assert capsys.readouterr().out == (
        "starting again without the 1 earlier trials, because checkpoint and split changed\n"
    )
    assert read_trials(tmp_path / "none.jsonl", {}) is None


TOLD = '{"lm": "0123", "spaced": true, "words": 3, "characters": 9, "greedy_words": 1, "greedy_characters": 2}'
DAMAGED = ["", '{"lm": "0123"}\n{"alpha": 1}\n', "[\n", "[]\n", "[" * 100_000, TOLD.replace("9", '"9"')]
DAMAGED += [TOLD.replace("9", "9" * 400), TOLD.replace('"words"', '"word"')]
DAMAGED += [
    f'{TOLD}\n{{"alpha": {alpha}, "beta": 1.0, "word_errors": {errors}, "char_errors": 0}}\n'
    for alpha, errors in (("NaN", 1), ('"1"', 1), (1, -1), (1, "null"))
]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_trials(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_trials(path, {"lm": "0123"})
    told = str(error.value)
    assert told.startswith(f"{path} must hold trials, got ")
    assert told.endswith("Delete it and run the same command again.")


def test_fewest_word_errors_are_best_then_characters_then_the_smallest_weights(tmp_path: Path) -> None:
    trials = [Trial(1, 1, 5, 9), Trial(1, 1, 4, 9), Trial(2, 0, 4, 8), Trial(1, 3, 4, 8), Trial(1, 2, 4, 8)]
    assert make_trials(tmp_path, *trials).best == Trial(1, 2, 4, 8)
    trials.append(Trial(3, 3, 6, 7))
    assert make_trials(tmp_path, *trials).best == Trial(1, 2, 4, 8)
    assert make_trials(tmp_path, *trials, spaced=False).best == Trial(3, 3, 6, 7)


def test_proposals_begin_with_the_defaults_and_repeat(tmp_path: Path) -> None:
    trials = make_trials(tmp_path)
    proposed = []
    for _ in range(2):
        trials.trials.clear()
        for _ in range(6):
            alpha, beta = propose(trials)
            trials.trials.append(Trial(alpha, beta, round(10 * abs(alpha - 1)), 9))
        proposed.append([trial[:2] for trial in trials.trials])
    assert proposed[0] == proposed[1]
    assert proposed[0][0] == (0.5, 0.5)
    assert len(set(proposed[0])) == 6
    assert all(0 <= alpha <= 3 and -1 <= beta <= 5 for alpha, beta in proposed[0])


def test_proposals_come_to_lie_where_errors_are_few(tmp_path: Path) -> None:
    trials = make_trials(tmp_path)
    for _ in range(60):
        alpha, beta = propose(trials)
        trials.trials.append(Trial(alpha, beta, round(100 * math.hypot(alpha - 1.2, (beta - 2) / 2)), 0))
    late = np.array([trial[:2] for trial in trials.trials[30:]])
    assert np.abs(np.median(late, axis=0) - (1.2, 2)).max() < 0.4
    assert trials.best.word_errors <= 10


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, lm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alphabet = Alphabet("EGNOSY ")
    search = BeamSearch(alphabet, DecodingOptions(lm=lm), load(lm))
    generator = np.random.default_rng(0)
    outputs = np.log(generator.dirichlet(np.full(alphabet.size, 0.3), (4, 8))).astype(np.float32)
    heard = SplitOutputs(["GO", "YES", "NO", "GO NO"], list(outputs))
    whole, cut = make_trials(tmp_path / "whole"), make_trials(tmp_path / "cut")
    run_trials(whole, 5, heard, search, alphabet, threads=True)
    calls = iter([None, None, interrupts.Stopped(signal.SIGINT)])

    def check() -> None:
        if stop := next(calls, None):
            raise stop

    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "check", check)
        with pytest.raises(interrupts.Stopped, match="interrupted; 2 trials are saved; the same command continues"):
            run_trials(cut, 5, heard, search, alphabet, threads=False)
    assert cut.trials == whole.trials[:2]
    again = read_trials(cut.path, {"lm": "0123"})
    assert again is not None
    run_trials(again, 5, heard, search, alphabet, threads=False)
    assert again.trials == whole.trials
    assert len({trial[2:] for trial in whole.trials}) > 1  # the weights change something


def test_what_an_interrupted_command_found_is_kept(run: Path, lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(study: Trials, *_: object, **__: object) -> None:
        study.add(Trial(0.25, 1.0, 1, 2))
        raise KeyboardInterrupt("1 trials are saved")

    lm.write_text(lm.read_text() + "\n")
    monkeypatch.setattr(tune_lib, "run_trials", stop)
    assert cli.main(["lm", "tune", str(run), "--lm", str(lm)]) == cli.INTERRUPTED
    found = read_tuned(run)[digest_of(lm)]
    assert found == Tuned(str(lm), 0.25, 1.0, 1 / 3, 2 / 7, 1, found.checkpoint)


def test_report_says_what_is_doubtful(tmp_path: Path) -> None:
    told = "\n".join(
        describe(make_trials(tmp_path, Trial(0.5, 0.5, 7, 20), Trial(3.0, 0.5, 6, 20)), tmp_path, Path("lm"))
    )
    assert "alpha 0.5, beta 0.5, the defaults: WER 70.00% (7 errors), CER 50.00% (20)\n" in told
    assert "alpha 3, beta 0.5, the best of 2 trials: WER 60.00% (6 errors), CER 50.00% (20)\n" in told
    assert "no better than greedy decoding" in told
    assert "\n  alpha at the end of the range that was tried" in told
    for good in (Trial(0.5, 0.5, 5, 20), Trial(0.0, 0.5, 5, 20)):  # alpha cannot be negative
        told = "\n".join(describe(make_trials(tmp_path, good), tmp_path, Path("lm")))
        assert "greedy" not in told
        assert "at the end" not in told


@pytest.mark.parametrize("num_trials", [1, 2, 40])
def test_picture_shows_every_trial_and_the_best(tmp_path: Path, num_trials: int) -> None:
    generator = np.random.default_rng(0)
    weights = np.round(generator.uniform((0, -1), (3, 5), (num_trials, 2)), 2)
    weights[-1] = weights[0]  # the sampler may ask twice
    rates = 0.05 + 0.1 * np.abs(weights[:, 0] - 1)
    best = weights[rates.argmin()]
    surface = Surface("WER", "some title", weights, rates, (best[0], best[1]), 0.1, ((0, 3), (-1, 5)))
    draw_surface(tmp_path / "folder" / "surface.png", surface)
    pixels = matplotlib.image.imread(tmp_path / "folder" / "surface.png")[..., :3]
    assert pixels.shape == (600, 800, 3)
    red = (pixels[..., 0] > 0.9) & (pixels[..., 1:].max(-1) < 0.1)
    assert red.sum() > 100  # the star


def test_wrong_command_lines(
    run: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failure(*words: str | Path) -> str:
        capsys.readouterr()
        assert cli.main(["lm", "tune", *map(str, words)]) == 1
        return capsys.readouterr().err

    assert failure(run, "--lm", lm, "--trials", "0") == "error: --trials must be at least 1, got 0.\n"
    assert "RUN must be the folder of a training run" in failure(tmp_path, "--lm", lm)
    assert "no such file" in failure(run, "--lm", tmp_path / "none.arpa").lower()
    bare = tmp_path / "bare"
    run_folder.open_run(bare, Config(), overwrite=False)
    assert failure(bare, "--lm", lm) == (
        "error: RUN must have a dev split that it did not train on, got none. Name other utterances with --manifest, "
        "or decode with --alpha and --beta.\n"
    )
    full = shutil.copytree(run, tmp_path / "full", ignore=shutil.ignore_patterns("tuning"))
    (full / "tuning").touch()
    with monkeypatch.context() as patch:
        patch.setattr(tune_lib, "hear", None)
        assert "must be writable, got: Not a directory." in failure(full, "--lm", lm)
    untrained = tmp_path / "untrained"
    config = run_folder.load_config(run)
    run_folder.open_run(untrained, config, overwrite=False)
    assert f"error: {untrained} must hold a checkpoint, got none." in failure(untrained, "--lm", lm)
    foreign = dataclasses.replace(config, data=dataclasses.replace(config.data, alphabet="абв "))
    run_folder.open_run(tmp_path / "foreign", foreign, overwrite=False)
    (run / "checkpoints").rename(tmp_path / "foreign" / "checkpoints")
    try:
        assert "must hold words of the alphabet 'абв '" in failure(tmp_path / "foreign", "--lm", lm)
    finally:
        (tmp_path / "foreign" / "checkpoints").rename(run / "checkpoints")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert failure(run, "--lm", lm) == (
        "error: lm tune must find Optuna, got: import of optuna halted; None in sys.modules. "
        "Install it: pip install 'optuna>=5,<6'.\n"
    )

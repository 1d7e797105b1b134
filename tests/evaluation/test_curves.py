"""`plot` draws what metrics.jsonl holds, of runs that have ended or not."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ds2_jax import cli
from ds2_jax.evaluation import curves
from ds2_jax.evaluation.curves import read_curves


def write_run(folder: Path, num_steps: int = 10, per_epoch: int = 4) -> Path:
    folder.mkdir(parents=True)
    lines = []
    for step in range(1, num_steps + 1):
        epoch = (step - 1) // per_epoch + 1
        line = {"step": step, "epoch": epoch, "loss": 50.0 / step, "grad_norm": 3.0, "learning_rate": 1e-3 * step}
        lines.append(line | {"hours_per_hour": 100.0, "wall_seconds": 6.0 * step})
        if step % per_epoch == 0:
            rates = {"dev_loss": 60 / step, "dev_wer": 1 / step, "dev_cer": 0.5 / step}
            times = {"epoch_seconds": 10.0, "data_wait_seconds": 1.0, "wall_seconds": 6.0 * step}
            lines.append({"step": step, "epoch": epoch, "train_loss": 55 / step, **rates, **times})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def test_places_are_epochs(tmp_path: Path) -> None:
    run = read_curves(write_run(tmp_path / "a"), "a")
    places, losses = run.of_steps("loss")
    np.testing.assert_array_equal(places, np.arange(1, 11) / 4)
    np.testing.assert_allclose(losses, 50 / np.arange(1, 11))
    np.testing.assert_array_equal(run.of_epochs("dev_wer"), [[1, 2], [1 / 4, 1 / 8]])
    assert run.of_epochs("nothing")[0].shape == (0,)


def test_runs_are_drawn_together_with_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/a"))
    write_run(Path("runs/b"), num_steps=3)  # its first epoch has not ended
    assert cli.main(["plot", "runs/a"]) == 0
    assert "| a | 2 | 12.50% in epoch 2 | 6.88 | 7.50 | 1.0 min |" in capsys.readouterr().out
    assert size_of(Path("runs/a/curves.png")) == (1300, 750)
    assert cli.main(["plot", "runs/a", "runs/b"]) == 0
    output = capsys.readouterr().out
    assert "| b | 0 | – | – | – | 0.3 min |" in output
    assert output.endswith("\npicture: curves.png\n")
    assert cli.main(["plot", "runs/a", "runs/b", "--out", "new/all.png"]) == 0
    assert size_of(Path("new/all.png")) == size_of(Path("curves.png"))


def test_what_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("nothing\n")
    for words, message in (
        ([], "RUN must be the folder of a training run, got none"),
        ([tmp_path], f"{tmp_path} must be the folder of a training with steps in metrics.jsonl, got none"),
        ([run], "metrics.jsonl, line 13 must be a JSON object with a step"),
    ):
        assert cli.main(["plot", *map(str, words)]) == 1
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "lines",
    [
        ['{"step": 1, "epoch": 1, "loss": 5.0}', '{"step": 2, "epoch": 1, "loss": 4.0}'],
        ['{"step": 1, "epoch": 1, "loss": NaN, "grad_norm": NaN}'],
        ['{"step": 1, "epoch": 1, "loss": "high"}', '{"step": 0, "epoch": 1, "epoch_seconds": 1.0, "train_loss": 1.0}'],
        ['{"step": 1, "epoch": 1, "loss": 1' + "0" * 400 + "}"],
    ],
)
def test_odd_metrics_are_left_out(tmp_path: Path, lines: list[str]) -> None:
    run = tmp_path / "$\\frac$"
    run.mkdir()
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert cli.main(["plot", str(run)]) == 0
    assert size_of(run / "curves.png") == (1300, 750)


def test_a_diverged_run_is_seen_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "epoch": 3, "train_loss": NaN, "epoch_seconds": 1.0}\n')
    assert cli.main(["plot", str(run)]) == 0
    assert "| nan | – |" in capsys.readouterr().out


def test_a_long_run_is_thinned() -> None:
    drawn: list[int] = []

    class Axes:
        def plot(self, places: np.ndarray, values: np.ndarray, **_: object) -> None:
            assert len(places) == len(values)
            drawn.append(len(values))

    curves._smooth(Axes(), (np.arange(300_000) / 1e4, np.ones(300_000)), "black")  # type: ignore[arg-type]
    thin, medians = drawn
    assert thin <= curves.NUM_POINTS
    assert medians == curves.NUM_MEDIANS


def test_only_png_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", str(write_run(tmp_path / "a")), "--out", "a.pdf"]) == 1
    assert "--out must be a .png file, got 'a.pdf'" in capsys.readouterr().err

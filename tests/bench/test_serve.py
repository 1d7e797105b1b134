"""The benchmark of the server, with a few requests."""

import json
from pathlib import Path

import pytest

from ds2_jax import cli
from ds2_jax.bench.serve import Result, link_files, percentiles, print_result
from tests.serving.servers import LIVE_CONFIG
from tests.small_runs import write_noise, write_untrained_run


@pytest.mark.slow
def test_a_server_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_untrained_run(tmp_path / "run", LIVE_CONFIG)
    words = ["bench", "serve", str(run), "--requests", "20", "--clients", "3", "--runs", "1", "--engine", "onnx"]
    words += ["--audio", str(write_noise(tmp_path / "a.wav", 2.0)), str(write_noise(tmp_path / "b.wav", 4.0))]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["audio_per_second"] == pytest.approx(3.0 * found["requests_per_second"])
    assert found["ratio"] == pytest.approx(found["audio_per_second"] / found["transcribe_per_second"])
    assert 0 < found["idle_latency"][0] <= found["idle_latency"][1] <= found["idle_latency"][2]
    assert found["streams"] >= 10


def test_percentiles_and_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert percentiles([each / 100 for each in range(101)]) == [0.5, 0.95, 0.99]
    print_result(
        Result(1.5, 40.0, 120.0, 150.0, [0.02, 0.04, 0.05], [0.3, 0.5, 0.6], 80, [0.01, 0.02, 0.03]), as_json=False
    )
    lines = capsys.readouterr().out.splitlines()
    assert "| the same of `transcribe` | 150 (ratio 0.80) |" in lines
    assert "| latency, one request at a time | 20 / 40 / 50 ms (p50 / p95 / p99) |" in lines
    assert "| live streams in real time | 80 |" in lines


def test_recordings_are_linked_under_names_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_noise(tmp_path / name / "same.wav")
    files = link_files(tmp_path / "audio", [tmp_path / "a", tmp_path / "b"])
    assert [each.name for each in files] == ["0000.wav", "0001.wav"]
    assert {each.resolve() for each in files} == {tmp_path / name / "same.wav" for name in ("a", "b")}
    assert len(link_files(tmp_path / "made", [])) == 16


def test_wrong_options_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "serve", "run", "--clients", "0"]) == 1
    assert "--clients must be at least 1, got 0" in capsys.readouterr().err

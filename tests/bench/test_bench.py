"""The benchmark command at a tiny size: each measurement runs, and the output shows what was measured."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.audio import made_speech
from ds2_jax.bench import measure, report, scaling
from ds2_jax.bench.child import Child, peak_memory
from ds2_jax.bench.measure import Machine, Row
from ds2_jax.bench.options import Options, parse_size
from ds2_jax.bench.size import Size
from ds2_jax.bench.work import Step, make_batch
from ds2_jax.system.errors import InputError
from tests.small_runs import write_noise_manifest

TINY = ("--sizes", "1x8", "--batch-size", "2", "--frames", "21", "--runs", "2", "--no-peer", "--json")


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the measuring processes one device and a matrix product that costs nothing."""
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(measure, "PRODUCT_SIDE", 256)


def run_bench(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["bench", *words, *TINY]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.slow
def test_a_training_step_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_bench(capsys, "train")
    assert result.keys() == {"machine", "options", "rows", "decoding", "scaling", "prediction"}
    (row,) = result["rows"]
    assert row["work"] == "train 1 x 8, 2 x 21 frames"
    assert row["runs"] == len(row["times"]) == 2
    assert row["seconds"] == np.median(row["times"])
    assert row["gigaflops"] == pytest.approx(
        measure.useful_flops("train", parse_size("1x8", 2, 21)) / row["seconds"] / 1e9
    )
    for name in ("seconds", "gigaflops", "compile_seconds", "cached_compile_seconds", "peak_mib"):
        assert row[name] > 0, name
    first, second = row["values"]["first_process"], row["values"]["second_process"]
    assert (first["compiled"], first["from_cache"]) == (1, 0)
    assert (second["compiled"], second["from_cache"]) == (0, 1)
    assert row["peer_seconds"] is row["ratio"] is row["peer_peak_mib"] is None
    machine = result["machine"]
    assert machine["product"] > 0
    assert machine["ours"].startswith("jax ")
    assert machine["peer"] == "PyTorch left out (--no-peer)"


def test_the_pipeline_is_measured_on_own_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_noise_manifest(tmp_path, ("anything", "größer", "2"))
    (row,) = run_bench(capsys, "pipeline", "--manifest", str(manifest))["rows"]
    values = row["values"]
    assert values["files"] == 3
    assert values["audio_seconds"] == pytest.approx(0.5 + 0.55 + 0.6)
    speed = values["audio_seconds"] / row["seconds"] / values["cores"]
    assert values["times_real_time_per_core"] == pytest.approx(speed)
    assert values["times_real_time_per_core_perturbed"].keys() == {"speed, gain and noise", "everything"}
    assert row["remarks"][3].startswith(f"3 files of {manifest}, 0.0 minutes, ")


@pytest.mark.slow
def test_all_other_work_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "UTTERANCE_FRAMES", 31)
    result = run_bench(capsys, "forward", "transcribe", "pipeline", "librispeech", "--minutes", "0.5")
    *forward, pipeline, with_onnx, transcribe = result["rows"]
    assert [row["work"] for row in forward] == [
        f"forward 1 x 8, {batch} frames, {engine}"
        for batch in ("2 x 21", "1 x 31")
        for engine in ("onnx", "onnx int8", "jax")
    ]
    assert pipeline["values"]["audio_seconds"] >= 30
    assert with_onnx["work"] == "transcribe 1 x 8, a file of 5 s, onnx"
    assert with_onnx["values"]["second_process"]["first"]["compiled"] == 0
    first, second = (transcribe["values"][f"{name}_process"] for name in ("first", "second"))
    assert first["first"]["compiled"] == 1
    assert second["first"] == {"seconds": second["first"]["seconds"], "compiled": 0, "from_cache": 1}
    assert all(answer["compiled"] == answer["from_cache"] == 0 for answer in second["warm"])
    assert second["folder_first"]["compiled"] == second["folder_again"]["from_cache"] == 0
    prediction = result["prediction"]
    assert prediction["epoch"]["num_utterances"] == 281_241
    assert prediction["largest_step_mib"] > 0
    expected = prediction["epoch"]["flops"] / (prediction["peak_gigaflops"] * 1e9 * 0.6) / 3600
    assert prediction["predicted_hours_per_epoch"] == pytest.approx(expected)


@pytest.mark.slow
def test_streams_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "STREAMS_AT_ONCE", (1, 4))
    monkeypatch.setattr(measure, "LIVE_SECONDS", 3.2)
    rows = {row["work"]: row for row in run_bench(capsys, "live")["rows"]}
    assert rows.keys() == {f"live {name}, {engine}" for name in ("an4_live", "1 x 8") for engine in ("onnx", "jax")}
    for row in rows.values():
        factors = row["values"]["real_time_factors"]
        assert row["seconds"] == factors["1"] > 0
        best = max(number / factor for number, factor in ((1, factors["1"]), (4, factors.get("4", math.inf))))
        assert row["values"]["streams_at_once"] == int(best)
        assert "streams at once in real time" in row["remarks"][1]


@pytest.mark.slow
def test_growth_is_measured() -> None:
    growths = scaling.measure_scaling(1, Size(1, 8, 2, 21), factors=(1, 2))
    assert {growth.axis: growth.values for growth in growths} == {
        "frames": [21, 42],
        "batch": [2, 4],
        "layers": [1, 2],
        "devices": [1, 2],
    }
    for growth in growths:
        assert min(growth.seconds + growth.arrays_mib + growth.peak_mib) > 0
        assert growth.exponents.keys() == {"seconds", "arrays_mib", "flops"}
    assert growths[1].exponents["flops"] == pytest.approx(1)
    assert "| batch | 2, 4 | " in "\n".join(report.scaling_lines(growths))


def test_a_forward_pass_reads_what_the_peer_gets(tmp_path: Path) -> None:
    size = Size(1, 8, 2, 21)
    step = Step("forward", size)
    assert step.compile() > 0
    assert step.arrays_memory() > 0
    assert step.run() > 0
    step.write_inputs(tmp_path / "inputs.npz")
    batch = make_batch(size)
    with np.load(tmp_path / "inputs.npz") as arrays:
        assert arrays["spectrograms"].shape == (2, 21, 161)
        assert arrays["num_frames"].tolist() == size.frames_of_rows == [21, 13]
        assert np.isclose(arrays["spectrograms"][1, :13].std(ddof=1), 1, atol=1e-3)
        np.testing.assert_array_equal(arrays["labels"], batch["labels"])


def test_rows_have_14_labels_per_second_as_in_read_english() -> None:
    batch = make_batch(Size(1, 8, 2, 501))
    assert batch["num_samples"][0] == 501 * 160 - 1
    assert batch["num_labels"].tolist() == [math.floor(14 * samples / 16_000) for samples in batch["num_samples"]]


def test_what_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "trian"]) == 1
    assert "invalid choice 'trian' for argument" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    for options, message in (
        ({"sizes": ("5*1024",)}, "--sizes must be LAYERSxUNITS, such as 5x1024, got '5*1024'."),
        ({"sizes": ("0x8",)}, "--sizes must be LAYERSxUNITS"),
        ({"sizes": ()}, "--sizes must name at least one size"),
        ({"runs": 0}, "--runs must be at least 1, got 0."),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0."),
        ({"utilisation": 1.5}, r"--utilisation must be in \(0, 1\], got 1.5."),
        ({"peak_gigaflops": 0.0}, "--peak-gigaflops must be positive, got 0.0."),
    ):
        with pytest.raises(InputError, match=message.replace("*", r"\*")):
            Options(**options)
    missing = tmp_path / "no.jsonl"
    assert cli.main(["bench", "pipeline", "--manifest", str(missing)]) == 1
    assert f"error: {missing} must be a readable file" in capsys.readouterr().err


def test_a_process_that_ends_is_named() -> None:
    message = r"ds2_jax\.bench\.none must answer 'load', got exit code 1\. See its output above\."
    with Child("ds2_jax.bench.none") as child, pytest.raises(InputError, match=message):
        child.ask("load")


def test_a_process_that_has_ended_is_named_when_it_is_asked() -> None:
    with Child("ds2_jax.bench.none") as child:
        child._process.wait()
        with pytest.raises(InputError, match="must answer 'load', got exit code 1"):
            child.ask("load")


def test_lengths_fall_to_sixty_percent() -> None:
    rows = Size(5, 1024, 16, 457).frames_of_rows
    assert (rows[0], rows[-1]) == (457, 274)
    assert np.ptp(np.diff(rows)) <= 1
    assert Size(5, 1024, 1, 501).frames_of_rows == [501]


def test_the_table_holds_the_ratio_and_the_share() -> None:
    rows = [
        Row("train", seconds=2.0, peer_seconds=5.0, gigaflops=60.0, peer_gigaflops=24.0, peak_mib=1500.4, runs=3),
        Row("pipeline", seconds=0.25, runs=3, remarks=["quick"]),
    ]
    lines = report.row_lines(rows, Machine(product=100, peer_product=150))
    assert lines[2] == "| train | 2.000 | 5.000 | 2.50 | 60 | 40% | 24 | – | – | 1,500 | – | 3 |"
    assert lines[3] == "| pipeline | 0.250 | – | – | – | – | – | – | – | – | – | 3 |"
    assert lines[4:] == ["", "pipeline:", "* quick"]
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_without_pytorch_the_header_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not measure.has_peer()
    assert "peer: PyTorch not installed" in report.header_lines(Machine(ours="jax"), Options())


def test_peak_memory_is_this_processs() -> None:
    before = peak_memory()
    block = np.ones(2**25)
    assert block.nbytes == 256 * 2**20
    assert max(before, 256) <= peak_memory() < 100_000


def test_made_speech_is_seeded_distinct_and_as_dense_as_speech(tmp_path: Path) -> None:
    one, again, other = made_speech.utterance(6.0, 1), made_speech.utterance(6.0, 1), made_speech.utterance(6.0, 2)
    np.testing.assert_array_equal(one, again)
    assert len(one) == len(other) == 96_000
    assert np.abs(one).max() <= 1
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
    for index, samples in enumerate((one, other)):
        path = tmp_path / f"{index}.flac"
        soundfile.write(path, samples, made_speech.SAMPLE_RATE, subtype="PCM_16")
        assert 0.35 < path.stat().st_size / (2 * len(samples)) < 0.7

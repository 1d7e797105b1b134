"""`bench decode`: the decoders decode the outputs, and the table shows the measurements."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.bench import decoder_child
from ds2_jax.bench.decode import DECODERS, Decoded, Decoding
from ds2_jax.bench.options import Options
from ds2_jax.bench.report import decoding_lines
from ds2_jax.config import Config
from ds2_jax.system.errors import InputError
from tests.small_runs import SMALL_CONFIG, with_manifests, write_noise_manifest, write_untrained_run


def test_made_outputs_are_seeded_and_decodable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("VOCABULARY_SIZE", 50), ("NUM_SENTENCES", 200)):
        monkeypatch.setattr(decoder_child, name, size)
    made, again = (decoder_child.made_outputs(4.0, tmp_path) for _ in range(2))
    assert capsys.readouterr().out == ""  # no report of a language model whose folder will be deleted
    assert made.references == again.references
    for log_probs, other, reference in zip(made.log_probs, again.log_probs, made.references, strict=True):
        np.testing.assert_array_equal(log_probs, other)
        assert log_probs.shape == (round(len(reference) * decoder_child.LETTER_FRAMES), made.alphabet.size)
        np.testing.assert_allclose(np.exp(log_probs).sum(1), 1, rtol=1e-5)
    assert made.audio_seconds == pytest.approx(sum(map(len, made.log_probs)) * Config().seconds_per_frame)
    assert made.audio_seconds >= 4
    texts = {
        name: decoder_child.decoder_of(made, name, {"beam_width": 16} if name != "greedy" else {})(made.log_probs[0])
        for name in ("greedy", "beam", "lm")
    }
    assert texts["lm"] == made.references[0] != texts["greedy"]
    assert len(texts["beam"]) == pytest.approx(len(made.references[0]), rel=0.3)


@pytest.mark.slow
def test_the_command_measures_made_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("bench", "decode", "--minutes", "0.02", "--runs", "2", "--no-peer", "--json")
    assert cli.main(words) == 0
    result = json.loads(capsys.readouterr().out)["decoding"]
    assert result["source"] == "synthetic outputs"
    assert result["peer"] == "fast-ctc-decode left out (--no-peer)"
    assert result["seconds_per_frame"] == 0.02
    titles = [title for title, decoder, _ in DECODERS if decoder != "peer"]
    assert [each["decoder"] for each in result["decoders"]] == titles
    for each in result["decoders"]:
        assert len(each["times"]) == (1 if "1024" in each["decoder"] else 2)
        speed = result["audio_seconds"] / np.median(each["times"])
        assert each["times_real_time"] == pytest.approx(speed)
    assert result["decoders"][-1]["different"] == 0


@pytest.mark.slow
def test_the_command_measures_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_noise_manifest(tmp_path, ("GO", "YES", "NO"))
    run = write_untrained_run(tmp_path / "run", with_manifests(SMALL_CONFIG, manifest))
    assert cli.main(("bench", "decode", "--run", str(run), "--runs", "1", "--no-peer")) == 0
    output = capsys.readouterr().out
    assert f"Decoding only, {run}, test split: 3 utterances, 2 s, frames of 40 ms" in output
    assert "Language model: 3-gram of its training transcripts, with default weights." in output
    assert output.count("\n| ") == 2 + 6


def test_the_table_says_what_was_measured() -> None:
    result = Decoding("RUN, test split", "lm.arpa", 117, 329.3, 0.04, 0.957, "fast-ctc-decode 0.3.7")
    result.decoders = [
        Decoded("greedy", [0.5, 0.5], 658.6, 86, 86 / 728),
        Decoded("beam and language model, width 128", [0.1], 3293.0, 63, 63 / 728, different=2),
    ]
    lines = decoding_lines(result)
    assert lines[0] == (
        "Decoding only, RUN, test split: 117 utterances, 329 s, frames of 40 ms, mean probability of the best "
        "label 0.96."
    )
    assert lines[-2:] == [
        "| greedy | 659 | 11.81% | 86 | – | 2 |",
        "| beam and language model, width 128 | 3,293 | 8.65% | 63 | 2 | 1 |",
    ]
    assert decoding_lines(None) == []


def test_a_language_model_needs_a_run() -> None:
    with pytest.raises(InputError) as error:
        Options(lm=Path("lm.arpa"))
    assert str(error.value) == "--lm must be used with a run, got 'lm.arpa'. Add --run RUN."


def test_a_run_without_a_train_split_needs_a_language_model(tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path / "data")
    config = with_manifests(SMALL_CONFIG, manifest)
    without = dataclasses.replace(config, data=dataclasses.replace(config.data, train=None))
    run = write_untrained_run(tmp_path / "run", without)
    with pytest.raises(InputError) as error:
        decoder_child.outputs_of(run, manifest, None, tmp_path)
    assert str(error.value) == "--lm must be given, got none: the run names no data.train. Add --lm FILE."
    assert decoder_child.outputs_of(run, manifest, tmp_path / "lm.arpa", tmp_path).lm == tmp_path / "lm.arpa"

"""Previews show, play and name the changes of training; noise has the requested ratio."""

import dataclasses
import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.audio.reading import read_audio
from ds2_jax.config import AugmentConfig, FeatureConfig, PerturbConfig, load_config
from ds2_jax.curation.preview import utterances as utterances_lib
from ds2_jax.curation.preview.command import preview
from ds2_jax.curation.preview.look import Look, describe, looker
from ds2_jax.curation.preview.mixing import mix
from ds2_jax.curation.preview.utterances import choose
from ds2_jax.data.epochs import Epochs
from ds2_jax.data.manifest import Utterance, write_manifest
from ds2_jax.data.splits import read_split
from ds2_jax.model.features import extract_features
from ds2_jax.model.spec_augment import row_keys, spec_augment
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import RATE, SMALL_CONFIG, noise, write_noise

FILE = """
from pathlib import Path
from ds2_jax.config import AugmentConfig, Config, DataConfig, PerturbConfig
config = Config(
    seed=5,
    data=DataConfig(train=Path("{manifest}"), on_bad_utterance="skip"),
    perturb=PerturbConfig(speed_probability=1.0, gain_probability=1.0, noise=Path("{noise}"), noise_probability=1.0),
    augment=AugmentConfig(2, 20, 2, 9, time_warp_frames=8),
)
"""


compiled_once = functools.cache(looker)


@pytest.fixture(autouse=True)
def compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utterances_lib, "looker", compiled_once)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Makes five utterances; training cannot use the second and the fourth."""
    utterances = []
    for number, transcript in enumerate(("GO", "ÉTÉ", "YES", "", "NO WAY")):
        audio = write_noise(tmp_path / f"speech/{number}.wav", 0.6 + 0.1 * number, number)
        utterances.append(Utterance(audio, 0.6 + 0.1 * number, transcript, f"take {number}"))
    write_manifest(tmp_path / "train.jsonl", utterances)
    return tmp_path / "train.jsonl"


@pytest.fixture
def config_file(manifest: Path, tmp_path: Path) -> Path:
    write_noise(tmp_path / "sounds/fan.wav", 0.3, 99)
    path = tmp_path / "config.py"
    path.write_text(FILE.format(manifest=manifest, noise=tmp_path / "sounds"))
    return path


def test_it_shows_what_an_epoch_of_training_hears_and_sees(
    manifest: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--config", str(config_file), "--out", str(out), "--epoch", "3", "--ids", "take 4"]
    assert cli.main(["data", "preview", str(manifest), *options]) == 0
    config = load_config(config_file)
    split = read_split(manifest, config, Alphabet.of(config.data), prune=True)
    assert [utterance.id for utterance in split.utterances] == ["take 0", "take 2", "take 4"]
    change = Epochs(config, split).perturb(2)
    assert change is not None
    before = read_audio(split.utterances[2].audio, RATE)
    after = change(2, before)
    np.testing.assert_array_equal(soundfile.read(out / "01_take_4.before.wav", dtype="float32")[0], before)
    np.testing.assert_array_equal(soundfile.read(out / "01_take_4.after.wav", dtype="float32")[0], after)
    seen = compiled_once(config)(before, after, 2, 2)

    @jax.jit
    def as_the_step(waveforms: jax.Array, num_samples: jax.Array) -> jax.Array:
        keys = row_keys(config.seed, jnp.int32(2), jnp.array([2]))
        return spec_augment(*extract_features(waveforms, num_samples, config.features), keys, config.augment)

    np.testing.assert_allclose(seen.after, as_the_step(after[None], np.array([len(after)]))[0], atol=1e-5)
    output = capsys.readouterr()
    assert output.err == f"{manifest}: 2 of 5 are left out: 1 unknown characters, 1 empty transcript\n"
    told = output.out.rstrip("\n")
    assert told.startswith(
        f"{out}/01_take_4  1.00 s -> {len(after) / RATE:.2f} s: speed {len(before) / len(after):.3f}"
    )
    assert ", noise fan.wav at " in told
    assert " dB, gain " in told
    assert told.endswith(", ".join(describe(seen, config.features)))
    assert sorted(path.name for path in out.iterdir()) == [
        f"01_take_4.{end}" for end in ("after.wav", "before.wav", "png")
    ]


def test_settings_of_the_file_are_the_defaults_of_the_options(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "preview", "--help", "--config", str(config_file)]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Write utterances before and after" in text
    assert re.search(r"--augment\.time-mask-width INT [^(]*\(default: 9\)", text)


def test_single_settings_can_be_changed(
    manifest: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    off = ["perturb.speed-probability", "perturb.gain-probability", "perturb.noise-probability"]
    off += ["augment.num-time-masks", "augment.num-frequency-masks", "augment.time-warp-frames"]
    options = [word for name in off for word in (f"--{name}", "0")]
    assert (
        cli.main(
            ["data", "preview", str(manifest), "--config", str(config_file), "--out", str(tmp_path / "out"), *options]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.endswith(" s: unchanged") for line in lines)


def test_speed_leaves_time_for_the_transcript_as_in_training(
    manifest: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "NO WAY " * 6  # 41 characters in 50 frames: too few to be 1.5 times as fast
    lines = manifest.read_text().replace("NO WAY", said.strip())
    manifest.write_text(lines)
    options = ["--config", str(config_file), "--out", str(tmp_path / "out"), "--perturb.speed", "1.5", "1.5"]
    assert cli.main(["data", "preview", str(manifest), *options, "--ids", "take 0", "take 4"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "0.60 s -> 0.40 s: speed 1.500, " in first
    assert "1.00 s -> 1.00 s: noise " in second


def test_without_a_configuration_any_transcript_will_do(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preview(manifest, tmp_path / "out", ids=("take 1", "take 3")) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert len(output.out.splitlines()) == 2
    assert "masked" in output.out


def test_an_audio_file_is_an_utterance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview(write_noise(tmp_path / "a.wav"), tmp_path / "out") == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/out/01_a  0.50 s -> ")


def test_a_recording_that_cannot_be_read_is_told_and_the_others_are_shown(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "speech/0.wav").write_bytes(b"")
    assert preview(manifest, tmp_path / "out", ids=("take 0", "take 2")) == 1
    output = capsys.readouterr()
    assert output.err.startswith(f"error: {tmp_path}/speech/0.wav must hold audio, got an empty file")
    assert output.out.startswith(f"{tmp_path}/out/02_take_2  0.80 s")


def test_utterances_are_drawn_by_the_seed() -> None:
    utterances = [Utterance(Path(f"{i}.wav"), 1.0, "A", f"u{i}") for i in range(50)]
    assert choose(utterances, (), 5, 0) == choose(utterances, (), 5, 0)
    assert choose(utterances, (), 5, 0) != choose(utterances, (), 5, 1)
    assert sorted(choose(utterances, (), 90, 0)) == list(range(50))
    assert choose(utterances, ("u7", "u3"), 5, 0) == [7, 3]


def test_wrong_options_are_named(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for message, options in {
        "--count must be at least 1, got 0.": {"count": 0},
        "--epoch must be at least 1 and below 2^31, got 0.": {"epoch": 0},
        "--snr must be left out without --noise, got 3.0. Name a recording with --noise.": {"snr": 3.0},
        "--ids must name utterances that can be used, got 'tkae 2'. Similar ids: take 2, take 4, take 3.": {
            "ids": ("tkae 2",)
        },
        "seed must be 0 or more, got -1.": {"seed": -1},
    }.items():
        with pytest.raises(InputError) as caught:
            preview(manifest, out, **options)  # type: ignore[arg-type]
        assert str(caught.value) == message
    (tmp_path / "speech/0.wav").unlink()
    write_manifest(tmp_path / "gone.jsonl", [Utterance(tmp_path / "speech/0.wav", 1.0, "A", "a")])
    with pytest.raises(
        InputError, match=r"gone.jsonl must hold usable utterances, got none: 1 of 1 are left out: 1 missing audio"
    ):
        preview(tmp_path / "gone.jsonl", out)
    with pytest.raises(InputError, match=r"train\.jsonl/01_.*must be writable, got: "):
        preview(manifest, manifest)
    assert not out.exists()


def test_warps_and_masks_are_told_in_seconds_and_kilohertz() -> None:
    config = dataclasses.replace(SMALL_CONFIG, augment=AugmentConfig(1, 30, 1, 30, time_warp_frames=20))
    look = looker(config)
    waveform = noise(1.5)
    looks = [look(waveform, waveform[:-8000], 0, index) for index in range(20)]
    warped = 0
    for seen in looks:
        assert (len(seen.before), len(seen.after)) == (151, 101)
        assert (seen.after[seen.in_time] == 0).all()
        assert (seen.after[:, seen.in_frequency] == 0).all()
        assert (seen.after[~seen.in_time][:, ~seen.in_frequency] != 0).all()
        warped += seen.origin != seen.target
        assert abs(seen.origin - seen.target) <= 20
    assert warped >= 15
    assert len({seen.origin for seen in looks}) > 10
    in_time, in_frequency = np.arange(50) < 25, np.arange(161) % 7 == 0
    seen = Look(np.zeros((50, 161)), np.zeros((50, 161)), in_time, in_frequency, 30, 24)
    assert list(describe(seen, FeatureConfig())) == ["warp 0.30 s to 0.24 s", "masked 0.25 s and 1.1 kHz"]
    mels = Look(np.zeros((50, 64)), np.zeros((50, 64)), in_time & False, np.arange(64) < 11, 24, 24)
    assert list(describe(mels, FeatureConfig(num_mels=64))) == ["masked 11 of 64 mel bands"]
    nothing = Look(seen.before, seen.after, in_time & False, in_frequency & False, 24, 24)
    assert list(describe(nothing, FeatureConfig())) == []


def test_everything_masked_is_masked_in_time() -> None:
    seen = looker(dataclasses.replace(SMALL_CONFIG, augment=AugmentConfig(0, 0, 900, 70)))(noise(0.2), noise(0.2), 0, 0)
    assert seen.in_time.all()
    assert not seen.in_frequency.any()


@pytest.mark.parametrize("transcript", ["HELLO", "5 $x_{ or 6 $ for a_{b^ 日本語 " + "AND MORE " * 99, ""])
def test_picture_shows_masks_in_grey_whatever_the_title(
    transcript: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = write_noise(tmp_path / "a.wav", 1.0)
    write_manifest(tmp_path / "a.jsonl", [Utterance(audio, 1.0, transcript, "a")])
    shares = []
    for masks in (0, 4):
        augment = AugmentConfig(masks, 27, masks, 20)
        assert preview(tmp_path / "a.jsonl", tmp_path / "out", perturb=PerturbConfig(), augment=augment) == 0
        pixels = matplotlib.image.imread(tmp_path / "out/01_a.png")
        assert pixels.shape == (700, 1100, 4)
        shares.append((np.abs(pixels[..., :3] - 0.7) < 0.01).all(2).mean())
    unchanged, masked = capsys.readouterr().out.splitlines()
    assert unchanged.endswith("0 s -> 1.00 s: unchanged")
    assert "0 s -> 1.00 s: masked 0." in masked
    assert shares[0] < 0.01
    assert shares[1] > 0.05


def ratio(speech: np.ndarray, mixed: np.ndarray) -> float:
    """Computes the ratio of the mean powers of the speech and of the added noise, in dB."""
    return 10 * math.log10(np.mean(speech**2) / np.mean((mixed - speech) ** 2))


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5])
def test_noise_has_the_ratio_that_was_asked_for(snr: float, tmp_path: Path) -> None:
    speech = 0.05 * np.sin(np.arange(48_000) / 20) * (np.arange(48_000) > 9000)
    soundfile.write(tmp_path / "speech.wav", np.stack([speech, speech], 1), 24_000)  # stereo, at another rate
    write_noise(tmp_path / "fan.wav", 0.7)
    out = tmp_path / "new/noisy.wav"
    assert (
        mix(tmp_path / "speech.wav", tmp_path / "fan.wav", snr, out, 0)
        == f"{out}: speech.wav with fan.wav at {snr:.1f} dB"
    )
    mixed, rate = soundfile.read(out)
    assert (rate, len(mixed)) == (24_000, 48_000)
    assert abs(ratio(speech, mixed) - snr) < 0.05
    assert np.abs(mixed[:9000]).min() < np.abs(mixed[:9000]).max()  # noise where there was silence


def test_loud_noise_is_not_clipped(tmp_path: Path) -> None:
    speech, out = write_noise(tmp_path / "speech.wav"), tmp_path / "noisy.wav"
    told = mix(speech, write_noise(tmp_path / "fan.wav", seed=1), -20.0, out, 0)
    mixed = soundfile.read(out)[0]
    assert (np.abs(mixed) >= 0.9999).sum() <= 1
    softer = float(told.removeprefix(f"{out}: speech.wav with fan.wav at -20.0 dB, ").partition(" dB softer")[0])
    assert abs(ratio(soundfile.read(speech)[0], mixed * 10 ** (softer / 20)) + 20) < 0.1


def test_ratio_that_16_bits_cannot_hold_is_told(tmp_path: Path) -> None:
    told = mix(write_noise(tmp_path / "a.wav"), write_noise(tmp_path / "b.wav", seed=1), 100.0, tmp_path / "c.wav", 0)
    assert told.endswith(" dB instead of 100 dB, which 16 bits cannot hold")


def test_files_that_noise_cannot_be_added_to_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # messages shorten long paths
    speech, silent, out = write_noise(Path("a.wav")), Path("silent.wav"), Path("out.wav")
    Path("folder.wav").mkdir()
    soundfile.write(silent, np.zeros(8000), RATE)
    for message, arguments in {
        "--snr must be within -50 to 100 dB, got nan.": (speech, speech, math.nan, out),
        "--out must name a .wav file if --noise is given, got 'folder.wav'.": (speech, speech, 3.0, Path("folder.wav")),
        f"--out must not be one of the input files, got '{speech}'.": (silent, speech, 3.0, speech),
        f"{silent} must hold sound, got silence. Give another file, or another --seed.": (speech, silent, 3.0, out),
    }.items():
        with pytest.raises(InputError) as caught:
            mix(*arguments, 0)
        assert str(caught.value) == message
    with pytest.raises(InputError, match=r"silent\.wav must hold sound"):
        mix(silent, speech, 3.0, out, 0)
    with pytest.raises(InputError, match=r"gone\.wav must be a readable file"):
        mix(speech, tmp_path / "gone.wav", 3.0, out, 0)
    assert not out.exists()


def test_command_adds_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech, fan = write_noise(tmp_path / "a.wav"), write_noise(tmp_path / "fan.wav", seed=1)
    words = ["data", "preview", str(speech), "--noise", str(fan), "--out", str(tmp_path / "b.wav")]
    assert cli.main([*words, "--snr", "3"]) == 0
    assert cli.main(words) == 0
    assert [line.partition(" at ")[2][:7] for line in capsys.readouterr().out.splitlines()] == ["3.0 dB", "10.0 dB"]

"""`import ds2_jax` offers the names in `__all__`, loads each when it is used, and its examples run."""

import concurrent.futures
import doctest
import inspect
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import ds2_jax
import ds2_jax.config
import ds2_jax.model
from ds2_jax.audio.reading import read_audio
from tests.small_runs import RATE, SMALL_CONFIG, noise, write_noise, write_untrained_run

FACES = (ds2_jax, ds2_jax.config, ds2_jax.model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples use."""
    folder = tmp_path_factory.mktemp("public")
    write_untrained_run(folder / "runs/an4_cpu", SMALL_CONFIG)
    write_noise(folder / "talk.wav", 1.5)
    return folder


@pytest.fixture(scope="module")
def recogniser(folder: Path) -> ds2_jax.Recogniser:
    return ds2_jax.load(str(folder / "runs/an4_cpu"))


@pytest.mark.parametrize("module", FACES, ids=lambda module: module.__name__)
def test_every_public_name_is_there_and_documented(module: Any) -> None:
    assert sorted(module.__all__) == module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        assert name == "__version__" or inspect.getdoc(value), name
    assert set(module.__all__) <= set(dir(module))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ds2_jax' has no attribute 'lode'"):
        ds2_jax.lode  # noqa: B018


def test_the_examples_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    found = [
        test
        for value in (ds2_jax, ds2_jax.load, ds2_jax.Recogniser)
        for test in finder.find(value, globs={"ds2_jax": ds2_jax, "np": np})
        if test.examples
    ]
    assert len(found) >= 5
    for test in found:
        assert not runner.run(test).failed, test.name


def test_recognising_prints_nothing_and_loads_no_tensorflow(folder: Path) -> None:
    code = (
        "import sys, ds2_jax\n"
        "assert 'jax' not in sys.modules\n"
        "ds2_jax.load('runs/an4_cpu').transcribe('talk.wav')\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{code}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_package_says_can_be_redirected(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "runs/an4_cpu/calibration.json").write_text(
        '{"temperature": 1.0, "start_offset": 0.0, "end_offset": 0.0, "step": 7, "fitted_on": "dev", "num_words": 9,'
        ' "num_timed_words": 0}'
    )
    try:
        ds2_jax.load(folder / "runs/an4_cpu")
    finally:
        (folder / "runs/an4_cpu/calibration.json").unlink()
    [record] = [each for each in caplog.records if each.name.startswith("ds2_jax")]
    assert record.levelno == logging.WARNING
    assert "was fitted to step 7" in record.message


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8, np.float32, np.float64])
def test_an_array_is_read_as_a_file_of_the_same_samples(
    recogniser: ds2_jax.Recogniser, tmp_path: Path, kind: type[np.generic]
) -> None:
    subtypes = {np.int16: "PCM_16", np.int32: "PCM_32", np.uint8: "PCM_U8", np.float32: "FLOAT", np.float64: "DOUBLE"}
    path = tmp_path / "a.wav"
    stereo = np.stack([noise(0.5, 1), noise(0.5, 2)], axis=1)
    soundfile.write(path, stereo, 22_050, subtype=subtypes[kind])
    if kind == np.uint8:  # soundfile cannot read unsigned samples
        samples = (np.round(soundfile.read(path, dtype="int16")[0] / 256) + 128).astype(np.uint8)
    else:
        samples = soundfile.read(path, dtype=np.dtype(kind).name)[0]
    np.testing.assert_allclose(recogniser.log_probs(samples, sample_rate=22_050), recogniser.log_probs(path), atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(100, np.float32), None, "sample_rate must be given with an array, got None."),
        (np.zeros(100, np.float32), 100, "sample_rate must be 4000 to 768000 Hz, got 100."),
        (np.zeros(100, bool), RATE, "audio must hold floats or integers, got 'bool'."),
        (np.zeros((2, 16_000), np.float32), RATE, r"audio must have the shape \[samples\] or .*got \(2, 16000\)\."),
        (np.full(16_000, np.nan, np.float32), RATE, "audio must hold samples of at most 1e\\+06"),
        (np.zeros(0, np.float32), RATE, "audio must have at least one sample"),
    ],
)
def test_an_array_that_is_no_recording_is_refused(
    recogniser: ds2_jax.Recogniser, samples: np.ndarray, rate: int | None, message: str
) -> None:
    with pytest.raises(ds2_jax.InputError, match=f"^{message}"):
        recogniser.transcribe(samples, sample_rate=rate)


def test_a_file_knows_its_own_rate(recogniser: ds2_jax.Recogniser, folder: Path) -> None:
    with pytest.raises(ds2_jax.InputError, match=r"^sample_rate must be left out for a file, got 8000"):
        recogniser.transcribe(folder / "talk.wav", sample_rate=8000)
    with pytest.raises(ds2_jax.InputError, match=r"no\.wav must be a readable file"):
        recogniser.transcribe(folder / "no.wav")


def test_hot_words_need_boosts(folder: Path) -> None:
    with pytest.raises(ds2_jax.InputError, match=r"^hot_words must map words to nats, as .* does, got 'GO'"):
        ds2_jax.load(folder / "run", hot_words="GO")  # type: ignore[arg-type]


def test_threads_share_a_recogniser(folder: Path) -> None:
    recogniser = ds2_jax.load(folder / "runs/an4_cpu", num_best=3)
    waveforms = [np.resize(read_audio(folder / "talk.wav", RATE), 8_000 + 500 * i) for i in range(8)]
    expected = [recogniser.transcribe(waveform, RATE) for waveform in waveforms]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda waveform: recogniser.transcribe(waveform, RATE), waveforms))
    assert found == expected

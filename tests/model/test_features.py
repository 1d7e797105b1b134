"""Features equal librosa's, and padding does not change them."""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy.signal

from ds2_jax.config import FeatureConfig
from ds2_jax.config.feature_settings import FLOOR
from ds2_jax.config.frames import count_frames
from ds2_jax.config.mel_bands import frequencies, mel_bands
from ds2_jax.model import features
from ds2_jax.system.errors import InputError

TOLERANCE = 1e-5
WINDOWS = ("hamming", "hann", "blackman", "bartlett")

log_spectrogram = jax.jit(features.log_spectrogram, static_argnums=2)
extract_features = jax.jit(features.extract_features, static_argnums=2)


def speech_like(num_samples: int, sample_rate: int) -> np.ndarray:
    """Makes [S] float32: a voice of gliding pitch with harmonics, syllables and breath noise."""
    rng = np.random.default_rng(num_samples)
    seconds = np.arange(num_samples) / sample_rate
    phase = 2 * np.pi * (120 * seconds + 15 * np.sin(2 * np.pi * 0.7 * seconds))
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 4 * seconds), 0, 1) ** 2
    return (0.2 * syllables * voice + 0.003 * rng.standard_normal(num_samples)).astype(np.float32)


def noise(num_samples: int) -> np.ndarray:
    """[S] float32, uniform over the whole range."""
    return np.random.default_rng(num_samples).uniform(-1, 1, num_samples).astype(np.float32)


def librosa_spectrogram(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """[T, F] float64."""
    transform = librosa.stft(
        waveform.astype(np.float64),
        n_fft=config.fft_length,
        win_length=config.window_length,
        hop_length=config.hop_length,
        window=config.window,
        center=True,
        pad_mode="constant",
    )
    if not config.num_mels:
        return np.log1p(np.abs(transform)).T
    bands = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.fft_length, n_mels=config.num_mels, htk=True, norm=None, dtype=np.float64
    )
    return np.log(bands @ np.abs(transform) ** 2 + FLOOR).T


def padded(waveforms: list[np.ndarray], size: int, filler: float = np.nan) -> tuple[jax.Array, jax.Array]:
    """Pads waveforms with `filler` to [B, S]. Returns them and their numbers of samples [B]."""
    rows = np.full((len(waveforms), size), filler, np.float32)
    for row, waveform in zip(rows, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return jnp.asarray(rows), jnp.array([len(waveform) for waveform in waveforms], jnp.int32)


def assert_close(actual: jax.Array, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    assert np.abs(np.asarray(actual) - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:n_fft=320 is too large for input signal")
@pytest.mark.parametrize("num_samples", [1, 159, 160, 161, 320, 1_000, 15_999, 16_000])
def test_num_frames_is_librosas(num_samples: int) -> None:
    spectrogram = librosa.stft(np.zeros(num_samples, np.float32), n_fft=320, hop_length=160, pad_mode="constant")
    assert count_frames(num_samples, 160) == spectrogram.shape[1]


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")  # librosa warns if a waveform is shorter than a window
@pytest.mark.parametrize("sample_rate", [8_000, 16_000])
@pytest.mark.parametrize("window", WINDOWS)
def test_spectrogram_is_librosas(window: str, sample_rate: int) -> None:
    config = FeatureConfig(sample_rate=sample_rate, window=window)  # type: ignore[arg-type]
    assert (config.fft_length, config.hop_length) == (sample_rate // 50, sample_rate // 100)
    hop = config.hop_length
    sizes = [1, hop - 1, hop, 2 * hop - 1, 2 * hop, 13 * hop + 1, 40 * hop - 1, 40 * hop]
    waveforms = [make for size in sizes for make in (noise(size), speech_like(size, sample_rate))]
    spectrograms, num_frames = log_spectrogram(*padded(waveforms, 40 * hop), config)
    assert spectrograms.dtype == jnp.float32
    for row, waveform in enumerate(waveforms):
        expected = librosa_spectrogram(waveform, config)
        assert num_frames[row] == len(expected)
        assert_close(spectrograms[row, : len(expected)], expected)
        assert not spectrograms[row, len(expected) :].any()


@pytest.mark.parametrize("size", [1_000, 16_000])
def test_spectrogram_of_an_unpadded_waveform_is_librosas(size: int) -> None:
    config, waveform = FeatureConfig(), speech_like(size, 16_000)
    spectrograms, num_frames = log_spectrogram(*padded([waveform], size), config)
    expected = librosa_spectrogram(waveform, config)
    assert spectrograms.shape[1] == num_frames[0] == len(expected)
    assert_close(spectrograms[0], expected)


@pytest.mark.parametrize("scale", [1.0, 32768 / 32767])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_spectrogram_of_older_recipes(window: str, symmetric: bool, scale: float) -> None:
    """Reflected edges are NumPy's, the symmetric window is SciPy's."""
    config = FeatureConfig(window=window, symmetric_window=symmetric, edges="reflected", scale=scale)  # type: ignore[arg-type]
    size, hop = config.window_length, config.hop_length
    waveforms = [noise(length) for length in (1, 2, 100, 161, 4000, 6399, 6400)]
    spectrograms, num_frames = log_spectrogram(*padded(waveforms, 6400), config)
    for row, waveform in enumerate(waveforms):
        samples = np.pad(scale * waveform.astype(np.float64), size // 2, "reflect" if len(waveform) > 1 else "edge")
        windows = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]
        function = scipy.signal.get_window(window, size, fftbins=not symmetric)
        expected = np.log1p(np.abs(np.fft.rfft(windows * function)))
        assert num_frames[row] == len(expected)
        assert_close(spectrograms[row, : len(expected)], expected)


def test_a_stream_has_no_reflected_end() -> None:
    with pytest.raises(InputError, match=r"^features\.edges must be zeros with running normalisation, got 'reflected'"):
        FeatureConfig(normalisation="running", edges="reflected")


@pytest.mark.parametrize(("sample_rate", "num_mels"), [(16_000, 64), (16_000, 1), (8_000, 40)])
def test_mel_spectrogram_is_librosas(sample_rate: int, num_mels: int) -> None:
    config = FeatureConfig(sample_rate=sample_rate, num_mels=num_mels)
    hop = config.hop_length
    waveforms = [speech_like(40 * hop, sample_rate), 1e-4 * noise(13 * hop + 1), np.zeros(8 * hop, np.float32)]
    spectrograms, num_frames = log_spectrogram(*padded(waveforms, 40 * hop), config)
    assert spectrograms.shape[2] == num_mels
    for row, waveform in enumerate(waveforms):
        expected = librosa_spectrogram(waveform, config)
        assert num_frames[row] == len(expected)
        assert_close(jnp.exp(spectrograms[row, : len(expected)]), np.exp(expected))
        np.testing.assert_allclose(spectrograms[row, : len(expected)], expected, atol=1e-3)  # beside loud bins
        assert not spectrograms[row, len(expected) :].any()


def test_mel_bands_are_librosas_and_hold_a_bin_each() -> None:
    for sample_rate in (8_000, 16_000, 44_100):
        most = most_mels(sample_rate)
        for num_mels in (1, 23, most):
            config = FeatureConfig(sample_rate=sample_rate, num_mels=num_mels)
            bands = mel_bands(config)
            theirs = librosa.filters.mel(
                sr=sample_rate, n_fft=config.fft_length, n_mels=num_mels, htk=True, norm=None, dtype=np.float64
            )
            np.testing.assert_allclose(bands, theirs, atol=1e-9)
            assert bands.any(1).all()
        with pytest.raises(InputError, match=rf"^features\.num_mels must be 0 \(off\) to {most}, got {most + 1}\."):
            FeatureConfig(sample_rate=sample_rate, num_mels=most + 1)


def most_mels(sample_rate: int) -> int:
    """Finds the largest number of mel bands that FeatureConfig accepts."""
    with pytest.raises(InputError) as caught:
        FeatureConfig(sample_rate=sample_rate, num_mels=1000)
    return int(str(caught.value).split(" to ")[1].split(",")[0])


def test_frequencies_are_those_of_the_bands() -> None:
    assert frequencies(np.array([0, 0.5, 1]), FeatureConfig()).tolist() == [0, 4000, 8000]
    mel = frequencies(np.array([0, 0.5, 1]), FeatureConfig(num_mels=3))
    np.testing.assert_allclose(mel, librosa.mel_frequencies(5, fmax=8000, htk=True)[[0, 2, 4]])


def test_stride_need_not_divide_the_window() -> None:
    config = FeatureConfig(window_size=0.025)
    waveform = speech_like(5_000, 16_000)
    spectrograms, _ = log_spectrogram(*padded([waveform], 5_000), config)
    assert_close(spectrograms[0], librosa_spectrogram(waveform, config))


BINS = FeatureConfig(num_mels=40, normalisation="bins")


@pytest.mark.parametrize("config", [FeatureConfig(), BINS])
def test_features_have_mean_0_and_deviation_1(config: FeatureConfig) -> None:
    waveforms = [speech_like(4_000, 16_000), 1e-3 * noise(2_345), noise(1)]
    spectrograms, num_frames = extract_features(*padded(waveforms, 5_000), config)
    for row, count in enumerate(num_frames):
        valid = np.asarray(spectrograms[row, :count], np.float64)
        if row < 2:  # the last is one sample, which is constant
            assert abs(valid.mean()) <= TOLERANCE
            assert valid.std(ddof=1) == pytest.approx(1, abs=TOLERANCE)
            assert (abs(valid.mean(0)).max() <= TOLERANCE) == (config is BINS)
        assert not spectrograms[row, count:].any()


def test_mean_of_each_bin_takes_out_a_microphone() -> None:
    """A linear filter adds a constant to each bin of a logarithm, and nearly so to log1p of loud frames."""
    values = np.random.default_rng(0).uniform(0, 1, (2, 50, 9))
    coloured = values + np.linspace(-3, 3, 9)
    counts = jnp.array([50, 31])
    plain, filtered = (
        features.normalise(jnp.asarray(each, jnp.float32), counts, "bins") for each in (values, coloured)
    )
    np.testing.assert_allclose(filtered, plain, atol=1e-5)
    expected = values[1, :31] - values[1, :31].mean(0)
    np.testing.assert_allclose(plain[1, :31], expected / np.sqrt((expected**2).sum() / (31 * 9 - 1)), atol=1e-5)
    sound = 30 * speech_like(8_000, 16_000) + noise(8_000)
    sounds = padded([sound, np.convolve(sound, [1, -0.7])[:8_000].astype(np.float32)], 8_000)

    def change(config: FeatureConfig) -> float:
        one, other = extract_features(*sounds, config)[0]
        return float(jnp.sqrt(jnp.square(one - other).mean()))

    assert change(BINS) < 0.5 * change(FeatureConfig())


@pytest.mark.parametrize("level", [0.0, 0.1, -1.0, 1e-30])
def test_constant_waveform_gives_zeros(level: float) -> None:
    waveforms = [np.full(3_210, level, np.float32), np.full(5, level, np.float32)]
    spectrograms, num_frames = extract_features(*padded(waveforms, 4_000), FeatureConfig())
    np.testing.assert_array_equal(num_frames, [21, 1])
    np.testing.assert_array_equal(spectrograms, 0)


def test_constant_spectrogram_normalises_to_zeros() -> None:
    values = jnp.stack([jnp.full((6, 4), 2.0), jnp.arange(24.0).reshape(6, 4)])
    normalised = features.normalise(values, jnp.array([6, 6]))
    np.testing.assert_array_equal(normalised[0], 0)
    assert normalised[1].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_show(value: float) -> None:
    waveforms = [noise(400), noise(400)]
    waveforms[0][123] = value
    spectrograms, _ = extract_features(*padded(waveforms, 400), FeatureConfig())
    assert np.isnan(spectrograms[0]).all()
    assert np.isfinite(spectrograms[1]).all()


def test_empty_row_has_no_frames() -> None:
    spectrograms, num_frames = extract_features(*padded([np.empty(0, np.float32), noise(400)], 400), FeatureConfig())
    np.testing.assert_array_equal(num_frames, [0, 3])
    np.testing.assert_array_equal(spectrograms[0], 0)
    assert np.isfinite(spectrograms[1]).all()


@pytest.mark.parametrize("config", [FeatureConfig(), BINS])
@pytest.mark.parametrize("function", [log_spectrogram, extract_features])
def test_samples_past_the_end_do_not_matter(
    function: functools.partial[tuple[jax.Array, jax.Array]], config: FeatureConfig
) -> None:
    waveforms = [speech_like(n, 16_000) for n in (3_000, 1_601, 1_599, 77)]
    clean, _ = function(*padded(waveforms, 3_200, filler=0), config)
    for filler in (np.nan, np.inf, 0.5):
        dirty, _ = function(*padded(waveforms, 3_200, filler), config)
        np.testing.assert_array_equal(dirty, clean)


@pytest.mark.parametrize("config", [FeatureConfig(), BINS])
def test_padding_and_batch_mates_change_no_valid_frame(config: FeatureConfig) -> None:
    waveforms = [speech_like(n, 16_000) for n in (6_400, 3_333, 160, 159)]
    batch, lengths = padded(waveforms, 8_000)
    together, num_frames = log_spectrogram(batch, lengths, config)
    normalised_together, _ = extract_features(batch, lengths, config)
    for row, waveform in enumerate(waveforms):
        alone = padded([waveform], len(waveform))
        count = int(num_frames[row])
        tolerance = 1e-5 if config.num_mels else 0  # the rounding of the product with the bands depends on its size
        np.testing.assert_allclose(together[row, :count], log_spectrogram(*alone, config)[0][0], rtol=0, atol=tolerance)
        assert_close(normalised_together[row, :count], np.asarray(extract_features(*alone, config)[0][0]))

"""The settings of spectrograms; see `settings.py`."""

import dataclasses
import math
from typing import Literal

from ds2_jax.system.checks import check_fields, require

MEL_BREAK = 700.0
"""Hz below which the mel scale is nearly linear: mel(f) = 2595 log10(1 + f / 700), as in HTK."""


FLOOR = 1e-5
"""Added to the energy of a mel band before its logarithm. It lies 30 dB above the rounding noise of 16-bit samples and
below the background noise of a room."""
LEAST_VARIANCE = 0.01
"""Running normalisation takes no variance below this share of the training set's, so that hours of silence do not make
a whisper of noise loud."""


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """How spectrograms are computed from waveforms."""

    sample_rate: int = 16_000
    """Hz. Audio with another rate is resampled."""
    window_size: float = 0.02
    """Length of a window in seconds. The FFT has the same length. With mel bands, it may be longer: the window is
    zero-padded until its number of samples is a power of two."""
    window_stride: float = 0.01
    """Seconds between frames."""
    window: Literal["hamming", "hann", "blackman", "bartlett"] = "hamming"
    """Window function."""
    symmetric_window: bool = False
    """Use the symmetric form of the window function, as deepspeech.pytorch did up to v2.0, not the periodic one."""
    edges: Literal["zeros", "reflected"] = "zeros"
    """What the first and last windows hear outside the recording. zeros: nothing. reflected: the recording backwards,
    as with librosa before 0.9, which models of deepspeech.pytorch were trained with."""
    scale: float = 1.0
    """Factor of the samples. Models of deepspeech.pytorch up to V2.1 heard 32768 / 32767 of them."""
    num_mels: int = 0
    """Number of bands, evenly spaced on the mel scale from 0 Hz to half the sample rate. They replace the FFT's
    bins and are narrow at low frequencies, like the ear's. 0: use the bins."""
    normalisation: Literal["utterance", "bins", "running", "global"] = "utterance"
    """utterance: subtract the mean of the utterance's log spectrogram. bins: subtract the mean of each bin, which
    removes most of the effect of microphone and room. running: as bins, but over the frames up to each one, for live
    recognition. global: subtract the training set's mean of each bin. All then divide by one standard
    deviation for all bins."""
    prior_seconds: float = 3.0
    """With running normalisation, the mean and deviation of the training set count as so many seconds of audio that
    came before the recording."""

    def __post_init__(self) -> None:
        check_fields(self, "features.")
        require(4_000 <= self.sample_rate <= 48_000, "features.sample_rate", "be 4000 to 48000 Hz", self.sample_rate)
        require(self.window_stride > 0, "features.window_stride", "be positive (seconds)", self.window_stride)
        require(
            self.window_stride <= self.window_size <= 0.1,
            "features.window_size",
            "be between features.window_stride and 0.1 seconds",
            self.window_size,
        )
        for field in ("window_size", "window_stride"):
            samples = getattr(self, field) * self.sample_rate
            require(
                round(samples) >= 1 and abs(samples - round(samples)) < 1e-6,
                f"features.{field}",
                f"be a whole number of samples at {self.sample_rate} Hz",
                getattr(self, field),
            )

        if self.num_mels:  # the lowest band is the narrowest and must contain a bin of the FFT
            mels_of_bin = math.log1p(self.sample_rate / self.fft_length / MEL_BREAK)
            most = math.ceil(2 * math.log1p(self.sample_rate / 2 / MEL_BREAK) / mels_of_bin - 1) - 1
            require(1 <= self.num_mels <= most, "features.num_mels", f"be 0 (off) to {most}", self.num_mels)
        rule = "be positive and at most 3600 seconds"
        require(0 < self.prior_seconds <= 3600, "features.prior_seconds", rule, self.prior_seconds)
        require(0 < self.scale <= 2**31, "features.scale", "be positive and at most 2^31", self.scale)
        if self.needs_statistics:  # the normalisations of models that stream: a stream does not know its end
            rule = f"be zeros with {self.normalisation} normalisation"
            require(self.edges == "zeros", "features.edges", rule, self.edges)

    @property
    def needs_statistics(self) -> bool:
        """Whether the normalisation uses the mean and deviation of the training set."""
        return self.normalisation in ("running", "global")

    @property
    def window_length(self) -> int:
        """Number of samples in a window."""
        return round(self.window_size * self.sample_rate)

    @property
    def fft_length(self) -> int:
        """Number of samples in the FFT. A shorter window is zero-padded."""
        return 1 << (self.window_length - 1).bit_length() if self.num_mels else self.window_length

    @property
    def hop_length(self) -> int:
        """Number of samples between frames."""
        return round(self.window_stride * self.sample_rate)

    @property
    def num_bins(self) -> int:
        """Number of frequency bins or mel bands in a frame (F)."""
        return self.num_mels or self.fft_length // 2 + 1

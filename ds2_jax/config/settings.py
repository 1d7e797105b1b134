"""Every setting, once: frozen dataclasses.

Each field has a type, a default and its meaning and unit below it (`--help` prints them). Its type, and a rule that
binds it, are checked in `__post_init__`, so a wrong value stops before JAX starts.
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from ds2_jax.system.checks import check_fields, require

ENGLISH = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ "
MEL_BREAK = 700.0
"""Hz below which the mel scale is nearly linear: mel(f) = 2595 log10(1 + f / 700), as in HTK."""
MAX_SIZE = 2**16
"""Of a batch, a layer, a kernel and the like: nothing larger would fit into a device's memory."""


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """How a waveform becomes a spectrogram."""

    sample_rate: int = 16_000
    """Hz. Audio of another rate is resampled to it."""
    window_size: float = 0.02
    """Seconds; also the length of the Fourier transform, which for mel bands is the next power of two of samples."""
    window_stride: float = 0.01
    """Seconds between frames."""
    window: Literal["hamming", "hann", "blackman", "bartlett"] = "hamming"
    """Window function, periodic."""
    num_mels: int = 0
    """Bands that are evenly spaced on the mel scale, from 0 Hz to half the sample rate, in the place of the bins of
    the Fourier transform: fewer, and narrow where the ear is fine. 0: the bins."""
    normalisation: Literal["utterance", "bins"] = "utterance"
    """What an utterance's log spectrogram loses: its mean over all bins, or that of each bin, which takes out most of
    what microphone and room add. Either is then divided by one standard deviation."""

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

        if self.num_mels:  # the lowest band, from 0 Hz, is the narrowest: it must hold a bin of the transform
            mels_of_bin = math.log1p(self.sample_rate / self.fft_length / MEL_BREAK)
            most = math.ceil(2 * math.log1p(self.sample_rate / 2 / MEL_BREAK) / mels_of_bin - 1) - 1
            require(1 <= self.num_mels <= most, "features.num_mels", f"be 0 (off) to {most}", self.num_mels)

    @property
    def window_length(self) -> int:
        """Samples in a window."""
        return round(self.window_size * self.sample_rate)

    @property
    def fft_length(self) -> int:
        """Samples of the Fourier transform, those behind the window zeros."""
        return 1 << (self.window_length - 1).bit_length() if self.num_mels else self.window_length

    @property
    def hop_length(self) -> int:
        """Samples between frames."""
        return round(self.window_stride * self.sample_rate)

    @property
    def num_bins(self) -> int:
        """Frequency bins, or mel bands, of a frame (F)."""
        return self.num_mels or self.fft_length // 2 + 1


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which utterances are read, and how they are batched."""

    corpus: Literal["an4", "common-voice", "tedlium", "synthetic"] | None = None
    """Corpus to prepare under `data.root` if it is not there yet; its manifests are train, dev and test. None: they are
    named below."""
    root: Path = Path("datasets")
    """Folder of the prepared corpora."""
    archive: Path | None = None
    """Copy of the corpus' published archive, used instead of downloading."""
    train: Path | None = None
    """Manifest of the training utterances, or a TensorFlow data set: tfds:NAME[/CONFIG][:VERSION]#SPLIT, from
    TFDS_DATA_DIR or ~/tensorflow_datasets, or tfds:FOLDER#SPLIT; dev and test too."""
    dev: Path | None = None
    """Manifest that chooses the best checkpoint and stops early."""
    test: Path | None = None
    """Manifest read once, after training."""
    train_on_dev: bool = False
    """Train on the dev split's utterances too, once every setting is final: the model hears all that there is, nothing
    is measured, chosen or calibrated on dev, and the last epoch is used, of checkpoint.average the last ones."""
    alphabet: str = ENGLISH
    """Characters the model can write, in label order; the CTC blank comes before them, at index 0."""
    case: Literal["alphabet", "upper", "lower", "keep"] = "alphabet"
    """Case that transcripts are brought to; alphabet: that of data.alphabet, where all its letters have one. The
    rules are Unicode's: upper makes SS of ß, and I of the Turkish ı and i alike. keep: the case is left as it is."""
    remove: str = ""
    """Characters that transcripts may hold and the model does not write, such as '.,!?-': each is read as a space. One
    that is in data.alphabet too, or an apostrophe or hyphen of another shape than the one there, is kept, in that one's
    shape, between two letters or digits: l'eau, arc-en-ciel. Accents and invisible characters leave no space."""
    batch_size: int = 16
    """Utterances in a batch, over all devices; not used where data.batch_seconds is set."""
    batch_seconds: float = 0.0
    """Seconds of audio in a batch, padding included, over all devices; short utterances make wide batches, and a longer
    utterance is a batch of its own. 0: every batch has data.batch_size utterances."""
    num_buckets: int = 8
    """Lengths to which batches are padded; each is compiled once."""
    min_duration: float = 0.1
    """Seconds; a shorter training or dev utterance is bad."""
    max_duration: float = 20.0
    """Seconds; a longer training or dev utterance is bad."""
    sortagrad: bool = False
    """First epoch from short to long utterances."""
    on_bad_utterance: Literal["error", "skip"] = "error"
    """What to do with utterances that cannot be used: stop, or leave them out and list them in the run folder."""
    num_workers: int = 0
    """Batches decoded at once; 0 means one per core."""

    def __post_init__(self) -> None:
        check_fields(self, "data.", MAX_SIZE, may_be_infinite=("max_duration",))
        require(self.batch_size >= 1, "data.batch_size", "be at least 1", self.batch_size)
        seconds = self.batch_seconds
        require(0 <= seconds < float("inf"), "data.batch_seconds", "be 0 (off) or a number of seconds", seconds)
        require(self.num_buckets >= 1, "data.num_buckets", "be at least 1", self.num_buckets)
        require(0 <= self.num_workers <= 1024, "data.num_workers", "be 0 (one per core) to 1024", self.num_workers)
        require(self.min_duration >= 0, "data.min_duration", "be 0 seconds or more", self.min_duration)
        require(
            self.max_duration > self.min_duration,
            "data.max_duration",
            f"be longer than data.min_duration ({self.min_duration} s)",
            self.max_duration,
        )
        for field in ("train", "dev", "test") if self.corpus else ():
            require(
                getattr(self, field) is None,
                f"data.{field}",
                f"be left out where data.corpus is {self.corpus!r}",
                str(getattr(self, field)),
                "Add --data.corpus None to use manifests of your own for all splits.",
            )


@dataclasses.dataclass(frozen=True)
class PerturbConfig:
    """Changes of the waveforms of training, never of evaluation: each is drawn anew every epoch for each utterance."""

    speed_probability: float = 0.0
    """Share of the utterances that are played faster or slower, by resampling: the pitch changes too."""
    speed: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest factor, drawn uniformly; above 1 is faster and shorter."""
    tempo_probability: float = 0.0
    """Share of the utterances that are spoken faster or slower, the pitch kept."""
    tempo: tuple[float, float] = (0.85, 1.15)
    """Smallest and largest factor, drawn uniformly; above 1 is faster and shorter."""
    responses: Path | None = None
    """Folder or manifest of impulse responses of rooms; None: no reverberation."""
    response_probability: float = 0.5
    """Share of the utterances that sound as if recorded in one of those rooms."""
    noise: Path | None = None
    """Folder or manifest of noise recordings; None: no noise."""
    noise_probability: float = 0.4
    """Share of the utterances to which noise is added."""
    noise_snr: tuple[float, float] = (0.0, 30.0)
    """Smallest and largest ratio of speech to noise in dB (of mean powers over the utterance), drawn uniformly."""
    gain_probability: float = 0.0
    """Share of the utterances that are made louder or softer, after all other changes."""
    gain: tuple[float, float] = (-6.0, 8.0)
    """Smallest and largest gain in dB, drawn uniformly."""

    def __post_init__(self) -> None:
        check_fields(self, "perturb.")
        for name, share in vars(self).items():
            if name.endswith("_probability"):
                require(0 <= share <= 1, f"perturb.{name}", "be in [0, 1]", share)
        for name, smallest, largest, unit in (
            ("speed", 0.5, 2.0, ""),
            ("tempo", 0.5, 2.0, ""),
            ("noise_snr", -50.0, 100.0, " dB"),
            ("gain", -100.0, 40.0, " dB"),
        ):
            low, high = getattr(self, name)
            rule = f"be a range, smallest first, within {smallest:g} to {largest:g}{unit}"
            require(smallest <= low <= high <= largest, f"perturb.{name}", rule, (low, high))

    @property
    def changes_lengths(self) -> bool:
        """Whether utterances last longer or shorter than they were recorded."""
        return self.speed_probability > 0 or self.tempo_probability > 0


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """SpecAugment: warps and masks of the spectrograms of training, never of evaluation, drawn anew every epoch."""

    num_frequency_masks: int = 0
    """Masks over frequency for each utterance."""
    frequency_mask_width: int = 27
    """Bins: a mask covers 0 to this many, drawn uniformly."""
    num_time_masks: int = 0
    """Masks over time for each utterance."""
    time_mask_width: int = 70
    """Frames of 10 ms: a mask covers 0 to this many, and never more than the utterance has."""
    frequency_mask_probability: float = 1.0
    """Share of the utterances that get their masks over frequency."""
    time_mask_probability: float = 1.0
    """Share of the utterances that get their masks over time."""
    time_mask_share: float = 1.0
    """Share of the utterance's frames that one mask covers at most; `time_mask_width` holds too. Adaptive masks of Park
    et al. 2020: 0.04, and a large width."""
    frames_per_time_mask: int = 0
    """Frames of 10 ms: an utterance gets one mask over time for each this many that it lasts, and num_time_masks at
    most. 0: it gets num_time_masks, however short. Park et al. 2020: 25, and 20 masks at most."""
    time_warp_frames: int = 0
    """Frames of 10 ms: a point of the utterance, drawn uniformly, moves by up to this many, back or forward, and what
    lies before and behind it is stretched or squeezed, to no less than half. 0: off."""
    time_warp_probability: float = 1.0
    """Share of the utterances that are warped."""

    def __post_init__(self) -> None:
        check_fields(self, "augment.", MAX_SIZE)
        for name, value in vars(self).items():
            if isinstance(value, float):
                require(0 <= value <= 1, f"augment.{name}", "be in [0, 1]", value)
            require(value >= 0, f"augment.{name}", "be 0 or more", value)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of DeepSpeech2; the defaults are those of deepspeech.pytorch (86.6 million parameters)."""

    rnn_type: Literal["lstm", "gru", "rnn"] = "lstm"
    """Recurrent cell; rnn is the plain tanh cell."""
    bidirectional: bool = True
    """False: forward layers only, then a lookahead convolution."""
    hidden_size: int = 1024
    """Units of each recurrent layer and direction (H)."""
    num_layers: int = 5
    """Recurrent layers."""
    channels: tuple[int, int] = (32, 32)
    """Channels of the two convolutions (C)."""
    frequency_kernels: tuple[int, int] = (41, 21)
    """Taps of the two convolutions over frequency; odd."""
    time_kernels: tuple[int, int] = (11, 11)
    """Taps of the two convolutions over time; odd."""
    frequency_strides: tuple[int, int] = (2, 2)
    """Strides of the two convolutions over frequency."""
    time_reduction: Literal[2, 4] = 2
    """Input frames (10 ms) for one output frame."""
    lookahead_context: int = 20
    """Output frames seen by the lookahead convolution, the present one included (bidirectional False)."""
    dropout: float = 0.0
    """Share of a recurrent layer's outputs set to zero before the next layer, in training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the large products; parameters, statistics, cell state, logits and loss stay float32."""

    def __post_init__(self) -> None:
        check_fields(self, "model.", MAX_SIZE)
        require(self.hidden_size >= 1, "model.hidden_size", "be at least 1", self.hidden_size)
        require(self.num_layers >= 1, "model.num_layers", "be at least 1", self.num_layers)
        require(self.lookahead_context >= 1, "model.lookahead_context", "be at least 1", self.lookahead_context)
        require(0 <= self.dropout < 1, "model.dropout", "be in [0, 1)", self.dropout)
        for field in ("channels", "frequency_strides"):
            require(min(getattr(self, field)) >= 1, f"model.{field}", "be at least 1 each", getattr(self, field))
        for field in ("frequency_kernels", "time_kernels"):
            kernels = getattr(self, field)
            require(all(k >= 1 and k % 2 for k in kernels), f"model.{field}", "be odd and positive", kernels)

    @property
    def time_strides(self) -> tuple[int, int]:
        """Strides of the two convolutions over time."""
        return (2, self.time_reduction // 2)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimiser and learning rate."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """sgd uses Nesterov momentum."""
    learning_rate: float = 1.5e-4
    """Peak learning rate."""
    schedule: Literal["exponential", "cosine", "constant"] = "exponential"
    """After the warm-up: times `anneal` each epoch; half a cosine down to 0 at the last step; or constant."""
    anneal: float = 0.99
    """Factor for each epoch of the exponential schedule."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0 to its peak."""
    weight_decay: float = 1e-5
    """Decoupled for adamw; an L2 penalty for sgd."""
    momentum: float = 0.9
    """Of sgd."""
    beta1: float = 0.9
    """Of adamw."""
    beta2: float = 0.999
    """Of adamw."""
    epsilon: float = 1e-8
    """Of adamw."""
    accumulate: int = 1
    """Parts into which a batch is split, one computed after the other to save memory; one update follows from all.
    Batch normalisation sees each part alone."""
    clip_norm: float = 6.25
    """Largest global norm of the gradient of the mean loss per utterance; 0 turns clipping off.

    Differs: deepspeech.pytorch clips at 400 the gradient of the batch's summed loss; 6.25 is 400 over its batch of 64.
    """
    ema_decay: float = 0.0
    """Share that the exponential moving average of the weights and batch statistics keeps of itself in an update, less
    in the first ones. The average is what is evaluated, chosen and used afterwards; 0: the weights themselves are."""

    def __post_init__(self) -> None:
        check_fields(self, "optim.", may_be_infinite=("clip_norm",))
        require(self.learning_rate > 0, "optim.learning_rate", "be positive", self.learning_rate)
        require(0 < self.anneal <= 1, "optim.anneal", "be in (0, 1]", self.anneal)
        require(self.accumulate >= 1, "optim.accumulate", "be at least 1", self.accumulate)
        for field in ("warmup_steps", "weight_decay", "clip_norm"):
            require(getattr(self, field) >= 0, f"optim.{field}", "be 0 or more", getattr(self, field))
        for field in ("momentum", "beta1", "beta2", "ema_decay"):
            require(0 <= getattr(self, field) < 1, f"optim.{field}", "be in [0, 1)", getattr(self, field))
        require(self.epsilon > 0, "optim.epsilon", "be positive", self.epsilon)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When training saves, besides the end of every epoch, and which saves count."""

    every_steps: int = 0
    """Save when this many updates of an epoch are made, and twice as many, ...; 0: off."""
    every_minutes: float = 10.0
    """Save when the last save is this many minutes old; 0: off."""
    average: int = 1
    """Epochs that are kept, and whose mean weights and batch statistics are used outside training: those of the lowest
    dev WER, or the last ones where there is no dev split. 1: the best one alone."""

    def __post_init__(self) -> None:
        check_fields(self, "checkpoint.")
        require(1 <= self.average <= 1000, "checkpoint.average", "be 1 to 1000", self.average)
        require(self.every_steps >= 0, "checkpoint.every_steps", "be 0 (off) or more", self.every_steps)
        minutes = self.every_minutes
        require(0 <= minutes < float("inf"), "checkpoint.every_minutes", "be 0 (off) or a number of minutes", minutes)


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    seed: int = 0
    """Of weights, order, perturbation, SpecAugment and dropout."""
    epochs: int = 70
    """Passes over the training utterances."""
    patience: int = 0
    """Epochs without a better dev WER after which training stops; 0 trains all epochs."""
    parallel: Literal["shard_map", "pmap"] = "shard_map"
    """How one step uses all devices; both give the same numbers."""
    rematerialise: bool = False
    """Compute what is inside the recurrent layers twice, to hold one layer of it at a time: less memory, more time."""
    watchdog_minutes: float = 15.0
    """Print where every thread stands when no update has ended for this long; 0: never."""
    features: FeatureConfig = FeatureConfig()
    data: DataConfig = DataConfig()
    perturb: PerturbConfig = PerturbConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.seed >= 0, "seed", "be 0 or more", self.seed)
        require(self.epochs >= 1, "epochs", "be at least 1", self.epochs)
        require(self.patience >= 0, "patience", "be 0 (never stop early) or more", self.patience)
        minutes = self.watchdog_minutes
        require(0 <= minutes < float("inf"), "watchdog_minutes", "be 0 (off) or a number of minutes", minutes)

    @property
    def seconds_per_frame(self) -> float:
        """Duration of an output frame."""
        return self.model.time_reduction * self.features.window_stride

"""All settings, as frozen dataclasses.

Each field has a type and a default. The text below it gives its meaning and unit, and `--help` prints this text.
`__post_init__` checks types and rules, so that a wrong value stops the program before JAX starts.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from ds2_jax.config.feature_settings import FeatureConfig
from ds2_jax.system.checks import check_fields, require

ENGLISH = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ "
MAX_SIZE = 2**16
"""The largest size of a batch, a layer, a kernel and so on. Larger ones would not fit into a device's memory."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which utterances are used, and how they are batched."""

    corpus: Literal["an4", "common-voice", "tedlium", "synthetic", "spelling"] | None = None
    """Corpus to prepare in `data.root`, unless it exists there. Its manifests are used for train, dev and test. None:
    set data.train, data.dev and data.test to your own manifests."""
    root: Path = Path("datasets")
    """Folder of the prepared corpora."""
    archive: Path | None = None
    """Copy of the corpus' published archive, to use instead of downloading it."""
    train: Path | None = None
    """Manifest of the training utterances, or a split of a TensorFlow data set: tfds:NAME[/CONFIG][:VERSION]#SPLIT or
    tfds:FOLDER#SPLIT. A NAME is read from TFDS_DATA_DIR or ~/tensorflow_datasets. data.dev and data.test accept the
    same forms."""
    dev: Path | None = None
    """Manifest of the dev utterances. Their WER decides which checkpoint is best and when training stops early."""
    test: Path | None = None
    """Manifest of the utterances to evaluate once, after training."""
    train_on_dev: bool = False
    """Train on the dev split too. Use it for a final model, when all settings are fixed: nothing is measured, chosen or
    calibrated on dev. The model of the last epoch is used; with checkpoint.average, the mean of the last epochs."""
    alphabet: str = ENGLISH
    """Characters that the model can write, in label order. The CTC blank has index 0, before them."""
    case: Literal["alphabet", "upper", "lower", "keep"] = "alphabet"
    """Case of the normalised transcripts. alphabet: the case of data.alphabet if all its letters have the same
    case, otherwise like keep. keep: do not change it. Unicode's rules apply: upper turns ß into SS, and both ı and i
    into I."""
    remove: str = ""
    """Characters of transcripts that the model does not write, such as '.,!?-'. Each becomes a space, with two
    exceptions. Combining accents and invisible characters are deleted. Between two letters or digits, a character that
    is also in data.alphabet stays, and an apostrophe or hyphen becomes the variant in data.alphabet (l'eau,
    arc-en-ciel)."""
    units: str = "characters"
    """What a label stands for. characters: those of data.alphabet. Otherwise the file of a SentencePiece model, which
    lm units writes: pieces of words. A run keeps the pieces themselves here, and goes on without the file."""
    batch_size: int = 16
    """Utterances in a batch, over all devices. Ignored if data.batch_seconds is set."""
    batch_seconds: float = 0.0
    """Seconds of audio in a batch, with padding, over all devices. Batches of short utterances have more rows. An
    utterance longer than data.batch_seconds is a batch of its own. 0: each batch has data.batch_size utterances."""
    num_buckets: int = 8
    """Largest number of lengths to which batches are padded. A step is compiled once for each length."""
    min_duration: float = 0.1
    """Training and dev utterances that are shorter than this, in seconds, are bad. See data.on_bad_utterance."""
    max_duration: float = 20.0
    """Training and dev utterances that are longer than this, in seconds, are bad. See data.on_bad_utterance."""
    sortagrad: bool = False
    """Sort the utterances of the first epoch from short to long."""
    on_bad_utterance: Literal["error", "skip"] = "error"
    """error: stop if an utterance is bad (cannot be used). skip: leave it out and list it in the run folder."""
    num_workers: int = 0
    """Number of batches whose audio is read at once. 0: one for each core."""

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
                f"be left out if data.corpus is {self.corpus!r}",
                str(getattr(self, field)),
                "Add --data.corpus None to use manifests of your own for all splits.",
            )


@dataclasses.dataclass(frozen=True)
class PerturbConfig:
    """Random changes to the training waveforms, drawn again for each utterance in each epoch."""

    speed_probability: float = 0.0
    """Share of the utterances whose speed changes by resampling. The pitch changes too."""
    speed: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest factor, drawn uniformly. A factor above 1 makes an utterance faster and shorter."""
    tempo_probability: float = 0.0
    """Share of the utterances whose tempo changes. The pitch stays."""
    tempo: tuple[float, float] = (0.85, 1.15)
    """Smallest and largest factor, drawn uniformly. A factor above 1 makes an utterance faster and shorter."""
    responses: Path | None = None
    """Folder or manifest of impulse responses of rooms. None: no reverberation."""
    response_probability: float = 0.5
    """Share of the utterances that get the reverberation of a room from perturb.responses."""
    noise: Path | None = None
    """Folder or manifest of noise recordings. None: no noise."""
    noise_probability: float = 0.4
    """Share of the utterances that get noise."""
    noise_snr: tuple[float, float] = (0.0, 30.0)
    """Smallest and largest signal-to-noise ratio in dB (from mean powers over the utterance), drawn uniformly."""
    gain_probability: float = 0.0
    """Share of the utterances whose volume changes, after all other changes."""
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
        """Whether the durations of utterances change."""
        return self.speed_probability > 0 or self.tempo_probability > 0


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """SpecAugment: random warps and masks of the training spectrograms, drawn again in each epoch."""

    num_frequency_masks: int = 0
    """Number of frequency masks for each utterance."""
    frequency_mask_width: int = 27
    """Largest width of a frequency mask in bins or mel bands. The width is drawn uniformly from 0 to this."""
    num_time_masks: int = 0
    """Number of time masks for each utterance."""
    time_mask_width: int = 70
    """Largest width of a time mask in frames of 10 ms. The width is drawn uniformly from 0 to this. Masks stay in the
    utterance."""
    frequency_mask_probability: float = 1.0
    """Share of the utterances that get frequency masks."""
    time_mask_probability: float = 1.0
    """Share of the utterances that get time masks."""
    time_mask_share: float = 1.0
    """Largest width of a time mask as a share of the utterance's frames. The smaller of this limit and
    `time_mask_width` applies. Park et al. 2020 use 0.04 and a large `time_mask_width` for their adaptive masks."""
    frames_per_time_mask: int = 0
    """Number of frames (10 ms) for each time mask: a longer utterance gets more masks, at most num_time_masks. 0: every
    utterance gets num_time_masks. Park et al. 2020 use 25 frames and at most 20 masks."""
    time_warp_frames: int = 0
    """Largest time warp in frames of 10 ms. A random point of the utterance moves back or forward by up to this many
    frames. The parts before and after it are stretched or squeezed, to no less than half their length. 0: off."""
    time_warp_probability: float = 1.0
    """Share of the utterances that get a time warp."""

    def __post_init__(self) -> None:
        check_fields(self, "augment.", MAX_SIZE)
        for name, value in vars(self).items():
            if isinstance(value, float):
                require(0 <= value <= 1, f"augment.{name}", "be in [0, 1]", value)
            require(value >= 0, f"augment.{name}", "be 0 or more", value)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of DeepSpeech2. The defaults are those of deepspeech.pytorch (86.6 million parameters)."""

    rnn_type: Literal["lstm", "gru", "rnn"] = "lstm"
    """Recurrent cell. rnn is the plain tanh cell."""
    bidirectional: bool = True
    """True: each recurrent layer runs in both directions. False: only forward, and a lookahead convolution follows."""
    hidden_size: int = 1024
    """Number of units in each direction of a recurrent layer (H)."""
    num_layers: int = 5
    """Number of recurrent layers."""
    channels: tuple[int, int] = (32, 32)
    """Numbers of channels of the two convolutions (C)."""
    frequency_kernels: tuple[int, int] = (41, 21)
    """Kernel sizes of the two convolutions over frequency; must be odd."""
    time_kernels: tuple[int, int] = (11, 11)
    """Kernel sizes of the two convolutions over time; must be odd."""
    frequency_strides: tuple[int, int] = (2, 2)
    """Strides of the two convolutions over frequency."""
    time_reduction: Literal[2, 4] = 2
    """Number of input frames (10 ms) for one output frame."""
    lookahead_context: int = 20
    """Number of output frames that the lookahead convolution reads, current one included. Unused if bidirectional."""
    dropout: float = 0.0
    """Share of each recurrent layer's outputs that training sets to zero before the next layer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the large products. Parameters, statistics, cell state, logits and loss are always float32."""

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
    """How the learning rate falls. exponential: it is multiplied by `anneal` after each epoch. cosine: after the
    warm-up it follows half a cosine and reaches 0 after the last step. constant: it does not fall."""
    anneal: float = 0.99
    """Factor of the exponential schedule, applied after each epoch."""
    warmup_steps: int = 0
    """Number of steps in which the learning rate rises to its peak: step i of n uses i/n of it."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below it, from the head down to the convolutions, which
    count as one. With less than 1, lower layers change less: for weights from --init-from."""
    weight_decay: float = 1e-5
    """Strength of weight decay, which is decoupled for adamw and an L2 penalty for sgd."""
    momentum: float = 0.9
    """Momentum of sgd."""
    beta1: float = 0.9
    """Decay of adamw's moving average of the gradient."""
    beta2: float = 0.999
    """Decay of adamw's moving average of the squared gradient."""
    epsilon: float = 1e-8
    """Added to the denominator of adamw."""
    accumulate: int = 1
    """Number of micro-batches into which a batch is split to save memory. They are computed one after the other and
    give one update. Batch normalisation normalises each micro-batch by itself."""
    clip_norm: float = 6.25
    """Largest global norm of the gradient of the mean loss per utterance. 0: no clipping.

    Differs: deepspeech.pytorch clips the gradient of the batch's summed loss at 400. Its batch has 64 utterances, and
    400 / 64 is 6.25.
    """
    ema_decay: float = 0.0
    """Decay of the exponential moving average of weights and batch statistics. The first updates use a smaller decay.
    Evaluation, the choice of the best checkpoint and recognition use the average instead of the weights. 0: no
    average."""

    def __post_init__(self) -> None:
        check_fields(self, "optim.", may_be_infinite=("clip_norm",))
        require(self.learning_rate > 0, "optim.learning_rate", "be positive", self.learning_rate)
        for field in ("anneal", "layer_decay"):
            require(0 < getattr(self, field) <= 1, f"optim.{field}", "be in (0, 1]", getattr(self, field))
        require(self.accumulate >= 1, "optim.accumulate", "be at least 1", self.accumulate)
        for field in ("warmup_steps", "weight_decay", "clip_norm"):
            require(getattr(self, field) >= 0, f"optim.{field}", "be 0 or more", getattr(self, field))
        for field in ("momentum", "beta1", "beta2", "ema_decay"):
            require(0 <= getattr(self, field) < 1, f"optim.{field}", "be in [0, 1)", getattr(self, field))
        require(self.epsilon > 0, "optim.epsilon", "be positive", self.epsilon)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When training saves checkpoints, in addition to the end of each epoch, and which ones are used."""

    every_steps: int = 0
    """Number of updates from one checkpoint to the next, counted from the start of each epoch. 0: off."""
    every_minutes: float = 10.0
    """Save when the last checkpoint is this many minutes old. 0: off."""
    average: int = 1
    """Number of epochs whose weights and batch statistics are averaged for use outside training: those with the lowest
    dev WER or, without a dev split, the last ones. 1: use the best epoch (without a dev split, the last one) alone."""

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
    """Seed of the weights, the order of utterances, perturbation, SpecAugment and dropout."""
    epochs: int = 70
    """Number of passes over the training utterances."""
    patience: int = 0
    """Stop after this many epochs without a better dev WER. 0: train all epochs."""
    init_from: Path | None = None
    """Begin with the weights of this run, exported folder or .safetensors file instead of drawn ones, or with those of
    spelling, the model in this package. Labels that both models have keep their weights. Continuing a run does not read
    it again."""
    freeze: Literal["none", "conv", "recurrent"] = "none"
    """What does not learn. conv: the convolutions and their normalisation. recurrent: these, the recurrent layers and
    the lookahead. Running statistics follow the data all the same."""
    parallel: Literal["shard_map", "pmap"] = "shard_map"
    """How a step uses several devices. Both give the same numbers."""
    rematerialise: bool = False
    """Recompute each recurrent layer's activations in the backward pass instead of storing them (gradient
    checkpointing). Saves memory, costs time."""
    watchdog_minutes: float = 15.0
    """Print the stack of every thread when no update has finished for this long. 0: never."""
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
        """Duration of an output frame in seconds."""
        return self.model.time_reduction * self.features.window_stride

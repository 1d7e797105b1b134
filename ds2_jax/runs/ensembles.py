"""Several trained models that recognise together: by the mean of their log-probabilities, or by votes for words."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ds2_jax.config import Config
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Hypothesis, LabelSpan
from ds2_jax.decoding.options import GREEDY, Combination, DecodingOptions
from ds2_jax.decoding.rover import rover
from ds2_jax.decoding.stream import StreamDecoder
from ds2_jax.engines.engine import EngineName, Steps
from ds2_jax.runs.fitted import fitted_text
from ds2_jax.runs.model import Model, open_model, read_config
from ds2_jax.runs.named import find_model
from ds2_jax.runs.run_folder import CALIBRATION, TUNED
from ds2_jax.runs.weights import weights_of
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError, brief


class EnsembleEngine:
    """An `engines.engine.Engine` of several models, which must have the same alphabet and frame rate.

    Args:
        models: two or more models.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        self.compiles = any(model.compiles for model in models)
        self.one_core = None

    def log_probs(self, waveforms: np.ndarray, num_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the mean of the models' log-probabilities, scaled so that the probabilities of a frame sum to 1."""
        outputs = [model.log_probs(waveforms, num_samples) for model in self._models]
        output_lengths = outputs[0][1]
        frames = max(output_lengths, default=0)
        mean = np.mean([log_probs[:, :frames] for log_probs, _ in outputs], axis=0, dtype=np.float32)
        return mean - np.logaddexp.reduce(mean, axis=-1, keepdims=True), output_lengths

    def steps(self, num_frames: int) -> Steps:  # noqa: ARG002 - the protocol's
        """Raises InputError: ensembles do not stream."""
        raise _no_streaming(len(self._models))


class VotingModel(Model):
    """Several models that decode alone and vote for each word; see `decoding.rover`.

    Their log-probabilities lie beside each other, [B, T', models * V].

    Args:
        models: two or more models.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        # This engine only tells whether it compiles, and refuses streams: `log_probs` below takes no mean.
        super().__init__(models[0].config, EnsembleEngine(models), models[0].path, has_step=False)
        self._models = models
        self.batches_at_once = min(model.batches_at_once for model in models)
        if not self.alphabet.spaced:
            rule, advice = "have a space in the alphabet to vote for words", "Use --combine average."
            raise InputError(f"RUN must {rule}, got {self.alphabet.characters!r}. {advice}")

    def decoder(self, options: DecodingOptions = GREEDY) -> Decoder:
        """Makes the decoder, in which each model has its own calibration and tuned weights."""
        advice = "Use --combine average, or leave --num-best out."
        require(options.num_best == 1, "--num-best", "be 1 if several models vote", options.num_best, advice)
        return VotingDecoder([model.decoder(options) for model in self._models], self.alphabet.size)

    def log_probs(
        self, waveforms: np.ndarray, num_samples: np.ndarray, *, on_one_core: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes the log-probabilities of all models."""
        outputs = [model.log_probs(waveforms, num_samples, on_one_core=on_one_core) for model in self._models]
        frames = max(outputs[0][1], default=0)
        return np.concatenate([log_probs[:, :frames] for log_probs, _ in outputs], axis=-1), outputs[0][1]


class VotingDecoder(Decoder):
    """Decodes the outputs of a `VotingModel`. It finds one reading.

    Args:
        decoders: the decoders of the models.
        num_labels: number of labels of one model.
    """

    def __init__(self, decoders: Sequence[Decoder], num_labels: int) -> None:
        self._decoders, self._labels = decoders, num_labels

    def __str__(self) -> str:
        return f"votes of {len(self._decoders)}: {self._decoders[0]}"

    def __call__(self, log_probs: np.ndarray, duration: float | None = None) -> list[Hypothesis]:
        """Decodes an utterance; see `Decoder`."""
        parts = np.split(log_probs, len(self._decoders), axis=-1)
        return [rover([decode(own, duration)[0] for decode, own in zip(self._decoders, parts, strict=True)])]

    def start(self) -> StreamDecoder:
        """Raises InputError: ensembles do not stream."""
        raise _no_streaming(len(self._decoders))

    def knows(self, word: str) -> bool:
        """Whether the language model knows a word; see `Decoder`."""
        return self._decoders[0].knows(word)

    def hypothesis(
        self,
        spans: Sequence[LabelSpan],
        log_probs: np.ndarray,
        duration: float | None = None,
        *,
        a_character: bool = False,
    ) -> Hypothesis:
        """Makes a hypothesis from the first model's log-probabilities; those of others may lie beside them."""
        own = np.split(log_probs, len(self._decoders), axis=-1)[0] if log_probs.shape[-1] > self._labels else log_probs
        return self._decoders[0].hypothesis(spans, own, duration, a_character=a_character)


def open_models(
    run: Path, others: Sequence[Path], engine: EngineName | None = None, combine: Combination = "rover"
) -> Model:
    """Opens a model, together with others if there are any.

    Args:
        run: the first model; see `open_model`.
        others: the others, or names of models.
        engine: what runs them.
        combine: "average" decodes the mean of their log-probabilities, with calibration and tuned weights of the first.
            "rover" lets their words vote.

    Raises:
        InputError: see `open_model`; or the models differ in alphabet, sample rate or frame rate; or they should vote
            and their alphabet has no space.
    """
    first = open_model(run, engine)
    if not others:
        return first
    models = [first, *(open_model(find_model(path), engine) for path in others)]
    for path, model in zip(others, models[1:], strict=True):
        for what, value in _shared_settings(model.config).items():
            if value != (expected := _shared_settings(first.config)[what]):
                advice = "Combine models of one recipe and one alphabet."
                raise InputError(
                    f"--with {path} must have the {what} of {run}, {brief(expected)}, got {brief(value)}. {advice}"
                )
    if combine == "rover":
        return VotingModel(models)
    return Model(first.config, EnsembleEngine(models), first.path, has_step=False)


def _no_streaming(count: int) -> InputError:
    return InputError(f"RUN must be one model to recognise a stream, got {count}. Leave --with (others) out.")


def describe(others: Sequence[Path], combine: Combination) -> dict[str, Any]:
    """Describes the other models of an ensemble for `Provenance`: their names with digests, and how they combine.

    A digest stands for the weights and, if the models vote, for calibration and tuned weights too.
    """
    if not others:
        return {}
    listed = []
    for path in map(find_model, others):
        steps, digest = weights_of(path, read_config(path))
        made_of = [digest or f"{path.absolute()} {steps}"]
        made_of += [fitted_text(path, name) or "" for name in (CALIBRATION, TUNED) if combine == "rover"]
        listed.append(f"{path} ({hashlib.sha256(' '.join(made_of).encode()).hexdigest()[:8]})")
    return {"with": listed, "combine": combine}


def _shared_settings(config: Config) -> dict[str, object]:
    """Lists the settings that the models of an ensemble must share."""
    return {
        "data.alphabet": config.data.alphabet,
        "data.units": config.data.units,
        "features.sample_rate": config.features.sample_rate,
        "features.window_stride": config.features.window_stride,
        "model.time_reduction": config.model.time_reduction,
    }

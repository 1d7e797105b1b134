"""A trained model that is ready to run. Evaluation, recognition and training share it."""

import copy
import functools
from pathlib import Path
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ds2_jax.config import Config
from ds2_jax.decoding.decoder import Decoder, make_decoder
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.model.ctc import ctc_losses
from ds2_jax.model.inference import eval_step
from ds2_jax.parallel.mesh import data_mesh, parallel_eval_step, row_layout
from ds2_jax.runs.fitted import run_decoder
from ds2_jax.runs.model import Model, open_model, read_config, read_variables
from ds2_jax.text.alphabet import Alphabet


class TrainedModel:
    """Weights and the compiled programs that run them.

    Args:
        config: settings of the run.
        variables: params and batch_stats, on every device of `mesh`.
        mesh: the devices that share the rows of a batch.
        run: folder of the run, from which the decoder reads calibration and tuned weights; without it,
            the decoder uses neither.
    """

    def __init__(self, config: Config, variables: Any, mesh: Mesh, run: Path | None = None) -> None:
        self.config, self.variables, self.run = config, variables, run
        self.alphabet = Alphabet.of(config.data)
        self.layout = row_layout(mesh)
        """The rows of a batch that each device of this process computes."""
        settings: dict[str, Any] = {"config": config, "num_labels": self.alphabet.size}
        self._score = parallel_eval_step(functools.partial(eval_step, **settings), mesh, config.parallel)

    @classmethod
    def load(cls, run: Path, mesh: Mesh | None = None, engine: EngineName = "jax") -> Self:
        """Loads the best weights of a run.

        Args:
            run: folder of the run, or a folder or file that `export` wrote.
            mesh: the devices that share the rows of a batch; by default all.
            engine: what computes the log-probabilities.

        Raises:
            InputError: the folder is not a run, or its checkpoint is missing, damaged or of other settings.
        """
        config, mesh = read_config(run), mesh or data_mesh()
        if engine == "jax":
            return cls(config, read_variables(run, config, mesh), mesh, run)
        return cls.by_engine(open_model(run, engine), mesh)

    @classmethod
    def by_engine(cls, model: Model, mesh: Mesh | None = None) -> Self:
        """Makes a model whose log-probabilities an engine computes."""
        trained = cls(model.config, {}, mesh or data_mesh(), model.path)
        trained._score = functools.partial(_score_by_engine, model)
        return trained

    def with_variables(self, variables: Any) -> Self:
        """Returns a model with other weights that shares the compiled programs."""
        other = copy.copy(self)
        other.variables = variables
        return other

    def decoder(self, options: DecodingOptions = GREEDY) -> Decoder:
        """Makes the decoder of this model.

        Raises:
            InputError: see `make_decoder` and `run_decoder`.
        """
        return run_decoder(self.config, self.run, options) if self.run else make_decoder(self.config, options)

    def score(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Computes log-probabilities and losses of this process's rows of a batch; see `model.inference.eval_step`."""
        scores: dict[str, Any] = self._score(self.variables, batch)
        return scores


def _score_by_engine(model: Model, _: Any, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Does what `model.inference.eval_step` does, with log-probabilities of another engine."""
    log_probs, output_lengths = model.log_probs(batch["waveforms"], batch["num_samples"])
    own = log_probs[..., : model.alphabet.size]  # of several models that vote, the first has the loss
    arguments = map(jnp.asarray, (own, output_lengths.astype(np.int32), batch["labels"], batch["num_labels"]))
    losses, alignable = ctc_losses(*arguments)
    return {
        "log_probs": log_probs,
        "output_lengths": output_lengths,
        "losses": np.asarray(losses),
        "alignable": np.asarray(alignable),
        "indices": batch["indices"],
    }

"""Reads and writes what was fitted to a trained run: its calibration and the weights of language models."""

import dataclasses
import json
import logging
from pathlib import Path

from ds2_jax.config import Config
from ds2_jax.decoding.calibration import UNCALIBRATED, Calibration
from ds2_jax.decoding.decoder import Decoder, make_decoder
from ds2_jax.decoding.options import DEFAULT_ALPHA, DEFAULT_BETA, GREEDY, DecodingOptions
from ds2_jax.engines.metadata import read_metadata
from ds2_jax.runs.named import home, told
from ds2_jax.runs.run_folder import CALIBRATION, TUNED, best_step, is_exported
from ds2_jax.system.checks import build, check_fields, require
from ds2_jax.system.errors import NO_JSON, InputError, advice_for
from ds2_jax.system.files import write_text
from ds2_jax.system.program import command

logger = logging.getLogger(__package__)


def write_calibration(run: Path, calibration: Calibration) -> Path:
    """Writes a calibration into the folder of its run and returns the file."""
    path = home(run) / CALIBRATION
    write_text(path, json.dumps(dataclasses.asdict(calibration), indent=2) + "\n")
    return path


def read_calibration(run: Path) -> Calibration:
    """Reads the calibration of a run's best checkpoint.

    Returns:
        The calibration. `UNCALIBRATED` if there is none, or if it was fitted to another checkpoint; the latter is
        logged.

    Raises:
        InputError: the file is damaged or cannot be read.
    """
    path = home(run) / CALIBRATION
    advice = f"Fit it again: {command('calibrate', run)}"
    try:
        if (text := fitted_text(run, CALIBRATION)) is None:
            return UNCALIBRATED
        tree = json.loads(text)
        names = {field.name for field in dataclasses.fields(Calibration)}
        require(isinstance(tree, dict), "The calibration", "be a JSON object", tree)
        require(names <= tree.keys(), "The calibration", f"have {', '.join(sorted(names))}", sorted(tree))
        calibration: Calibration = build(Calibration, tree, "")
    except (OSError, InputError, *NO_JSON) as error:
        reason = str(error).rstrip(".")
        raise InputError(
            f"{path} must hold the calibration of a run, got: {reason}. {advice_for(error, advice)}"
        ) from error
    best = best_step(run)
    if calibration.step != best and not is_exported(run):
        logger.warning(
            f"{path} was fitted to step {calibration.step}, but "
            f"{'the run has no checkpoint' if best is None else f'the best checkpoint is that of step {best}'}: "
            f"confidences and times are not calibrated. {advice}"
        )
        return UNCALIBRATED
    return calibration


def fitted_text(run: Path, name: str) -> str | None:
    """Reads what was fitted: the file in the model's folder, or else what the model's file carries."""
    path = home(run) / name
    if path.exists():
        return path.read_text(encoding="utf-8")
    return read_metadata(run).get(name) if run.is_file() else None


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The best weights of a language model on the dev split.

    Attributes:
        lm: path of the language model's file, for information: the file's SHA-256 identifies the model.
        alpha: weight of the language model's log probabilities.
        beta: bonus for each word in nats.
        wer: word error rate with these weights, a fraction.
        cer: character error rate without spaces, a fraction.
        num_trials: number of pairs of weights that were tried.
        checkpoint: step of the checkpoint that recognised the dev split.
    """

    lm: str
    alpha: float
    beta: float
    wer: float
    cer: float
    num_trials: int
    checkpoint: int

    def __post_init__(self) -> None:
        check_fields(self)


def read_tuned(run: Path) -> dict[str, Tuned]:
    """Reads the tuned weights of a run: the SHA-256 of each language model's file and its weights, if any.

    Raises:
        InputError: the file is damaged.
    """
    path = home(run) / TUNED
    try:
        if (text := fitted_text(run, TUNED)) is None:
            return {}
        rows = json.loads(text)
        require(isinstance(rows, dict), "The file", "be a JSON object", rows)
        return {digest: build(Tuned, row, f"{digest[:8]}.") for digest, row in rows.items()}
    except (OSError, TypeError, InputError, *NO_JSON) as error:
        advice, reason = advice_for(error, "Delete it and run lm tune again."), str(error).rstrip(".")
        raise InputError(f"{path} must hold the result of lm tune, got: {reason}. {advice}") from error


def write_tuned(run: Path, digest: str, tuned: Tuned) -> None:
    """Stores the tuned weights of a language model. Those of other language models stay.

    Raises:
        InputError: the existing file is damaged, or the file cannot be written.
    """
    rows = {name: dataclasses.asdict(each) for name, each in (read_tuned(run) | {digest: tuned}).items()}
    write_text(home(run) / TUNED, json.dumps(rows, indent=2) + "\n")


def with_tuned(options: DecodingOptions, run: Path) -> DecodingOptions:
    """Fills in the weights that decoding options leave open, and logs them.

    They are the weights that `lm tune` found for the same language model, or else the defaults.

    Args:
        options: decoding options with a language model.
        run: folder of the run.

    Raises:
        InputError: the file of tuned weights is damaged.
    """
    assert options.lm is not None
    if options.alpha is not None and options.beta is not None:
        return options
    from ds2_jax.decoding.ngram.cache import digest_of  # this import loads Numba

    found = read_tuned(run).get(digest_of(options.lm))
    if found:
        alpha, beta, source = found.alpha, found.beta, f"tuned on the dev split, WER {found.wer:.2%} there"
        if options.alpha is not None or options.beta is not None:
            source = f"lm tune found alpha {alpha:g} with beta {beta:g}"
    else:
        advice = f"not tuned for this run: {command('lm', 'tune', told(run), '--lm', options.lm)}"
        alpha, beta, source = DEFAULT_ALPHA, DEFAULT_BETA, advice
    alpha = alpha if options.alpha is None else options.alpha
    beta = beta if options.beta is None else options.beta
    logger.info(f"{options.lm}: alpha {alpha:g}, beta {beta:g} ({source})")
    return dataclasses.replace(options, alpha=alpha, beta=beta)


def run_decoder(config: Config, run: Path, options: DecodingOptions = GREEDY) -> Decoder:
    """Makes the decoder of a run, with its calibration and the weights that `lm tune` found.

    Args:
        config: settings of the run.
        run: folder of the run.
        options: how to decode.

    Raises:
        InputError: see `make_decoder`; or the calibration or the tuned weights of the run are damaged.
    """
    calibration = read_calibration(run)
    return make_decoder(config, with_tuned(options, run) if options.lm else options, calibration)

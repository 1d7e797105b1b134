"""What was fitted to a trained run, in files of its folder: its calibration, and the weights of language models."""

import dataclasses
import json
import logging
from pathlib import Path

from ds2_jax.config import Config
from ds2_jax.decoding.calibration import UNCALIBRATED, Calibration
from ds2_jax.decoding.decoder import Decoder, make_decoder
from ds2_jax.decoding.options import DEFAULT_ALPHA, DEFAULT_BETA, GREEDY, DecodingOptions
from ds2_jax.runs.run_folder import CALIBRATION, TUNED, best_step
from ds2_jax.system.checks import build, check_fields, require
from ds2_jax.system.errors import NO_JSON, InputError
from ds2_jax.system.files import write_text
from ds2_jax.system.program import command

logger = logging.getLogger(__package__)


def write_calibration(run: Path, calibration: Calibration) -> Path:
    """Keeps a calibration with its run; returns its file."""
    path = run / CALIBRATION
    write_text(path, json.dumps(dataclasses.asdict(calibration), indent=2) + "\n")
    return path


def read_calibration(run: Path) -> Calibration:
    """The calibration of a run's best checkpoint.

    Returns:
        `UNCALIBRATED` where there is none, or one of another checkpoint, which is told on stderr.

    Raises:
        InputError: the file is damaged.
    """
    path = run / CALIBRATION
    if not path.exists():
        return UNCALIBRATED
    advice = f"Make it anew: {command('calibrate', run)}"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in dataclasses.fields(Calibration)}
        require(isinstance(tree, dict), "The calibration", "be an object", tree)
        require(names <= tree.keys(), "The calibration", f"have {', '.join(sorted(names))}", sorted(tree))
        calibration: Calibration = build(Calibration, tree, "")
    except (OSError, InputError, *NO_JSON) as error:
        reason = str(error).rstrip(".")
        raise InputError(f"{path} must hold the calibration of a run, got: {reason}. {advice}") from error
    best = best_step(run)
    if calibration.step != best:
        logger.warning(
            f"{path} was fitted to step {calibration.step}, the best checkpoint is of step {best}: confidences and "
            f"times are not calibrated. {advice}"
        )
        return UNCALIBRATED
    return calibration


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The best weights of a language model on the dev split.

    Attributes:
        lm: the file that it was; what counts is its content.
        alpha: weight of its log probabilities.
        beta: nats for each word.
        wer: word error rate with them, a fraction.
        cer: character error rate without spaces, a fraction.
        num_trials: pairs of weights that were tried.
        checkpoint: step of the weights that the dev split was heard with.
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
    """What was found, by the SHA-256 of the language model's file; empty where nothing was.

    Raises:
        InputError: the file is damaged.
    """
    path = run / TUNED
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        require(isinstance(rows, dict), "It", "be an object", rows)
        return {digest: build(Tuned, row, f"{digest[:8]}.") for digest, row in rows.items()}
    except (OSError, TypeError, InputError, *NO_JSON) as error:
        advice, reason = "Delete it and run lm tune again.", str(error).rstrip(".")
        raise InputError(f"{path} must hold what lm tune found, got another content: {reason}. {advice}") from error


def write_tuned(run: Path, digest: str, tuned: Tuned) -> None:
    """Keeps what was found, beside what was found with other language models.

    Raises:
        InputError: the file there is damaged, or cannot be written.
    """
    rows = {name: dataclasses.asdict(each) for name, each in (read_tuned(run) | {digest: tuned}).items()}
    write_text(run / TUNED, json.dumps(rows, indent=2) + "\n")


def with_tuned(options: DecodingOptions, run: Path) -> DecodingOptions:
    """The options, their weights filled in where not given; tells on stderr which they are.

    Args:
        options: with a language model.
        run: whose weights are taken where `lm tune` found some with the same language model, else the defaults.

    Raises:
        InputError: the run's file is damaged.
    """
    assert options.lm is not None
    if options.alpha is not None and options.beta is not None:
        return options
    from ds2_jax.decoding.ngram.cache import digest_of  # Numba loads with it

    found = read_tuned(run).get(digest_of(options.lm))
    if found:
        alpha, beta, source = found.alpha, found.beta, f"tuned on the dev split, WER {found.wer:.2%} there"
        if options.alpha is not None or options.beta is not None:
            source = f"lm tune found alpha {alpha:g} with beta {beta:g}"
    else:
        advice = f"not tuned for this run: {command('lm', 'tune', run, '--lm', options.lm)}"
        alpha, beta, source = DEFAULT_ALPHA, DEFAULT_BETA, advice
    alpha = alpha if options.alpha is None else options.alpha
    beta = beta if options.beta is None else options.beta
    logger.info(f"{options.lm}: alpha {alpha:g}, beta {beta:g} ({source})")
    return dataclasses.replace(options, alpha=alpha, beta=beta)


def run_decoder(config: Config, run: Path, options: DecodingOptions = GREEDY) -> Decoder:
    """The decoder of a run, with its calibration and the weights that `lm tune` found.

    Args:
        config: of the run.
        run: its folder.
        options: how to decode.

    Raises:
        InputError: as `make_decoder`, or what the run keeps is damaged.
    """
    calibration = read_calibration(run)
    return make_decoder(config, with_tuned(options, run) if options.lm else options, calibration)

"""What `lm tune` found for a run: the weights of language models, in a file of the run."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path

from ds2_jax.decoding.options import DEFAULT_ALPHA, DEFAULT_BETA, DecodingOptions
from ds2_jax.errors import NO_JSON, InputError
from ds2_jax.files import write_text
from ds2_jax.run import TUNED
from ds2_jax.settings import build, check_fields, require


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
    from ds2_jax.ngram.cache import digest_of  # Numba loads with it

    found = read_tuned(run).get(digest_of(options.lm))
    if found:
        alpha, beta, source = found.alpha, found.beta, f"tuned on the dev split, WER {found.wer:.2%} there"
        if options.alpha is not None or options.beta is not None:
            source = f"lm tune found alpha {alpha:g} with beta {beta:g}"
    else:
        command = shlex.join(["python", "main.py", "lm", "tune", str(run), "--lm", str(options.lm)])
        advice = f"not tuned for this run: {command}"
        alpha, beta, source = DEFAULT_ALPHA, DEFAULT_BETA, advice
    alpha = alpha if options.alpha is None else options.alpha
    beta = beta if options.beta is None else options.beta
    print(f"{options.lm}: alpha {alpha:g}, beta {beta:g} ({source})", file=sys.stderr)
    return dataclasses.replace(options, alpha=alpha, beta=beta)

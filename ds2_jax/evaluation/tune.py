"""Runs the command `lm tune`: finds the weights alpha and beta of a language model on a run's dev split."""

import dataclasses
import functools
import json
import logging
import math
import sys
import typing
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ds2_jax.config import Config
from ds2_jax.corpora import unseen_dev
from ds2_jax.data import splits
from ds2_jax.data.splits import Split, read_split
from ds2_jax.decoding.beam.search import BeamSearch
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.decoding.ngram.cache import digest_of
from ds2_jax.decoding.ngram.model import NGramModel, load
from ds2_jax.decoding.options import DEFAULT_ALPHA, DEFAULT_BETA, DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.evaluation.error_rates import ErrorCount, char_errors, word_errors
from ds2_jax.evaluation.split_outputs import split_outputs
from ds2_jax.evaluation.tune_picture import Surface, draw_surface
from ds2_jax.runs import run_folder
from ds2_jax.runs.fitted import Tuned, write_tuned
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import home
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system import interrupts
from ds2_jax.system.checks import build, require
from ds2_jax.system.errors import NO_JSON, InputError, advice_for
from ds2_jax.system.files import make_writable, write_text
from ds2_jax.system.program import command
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

ALPHAS = (0.0, 3.0)
"""The range of alpha that trials explore."""
BETAS = (-1.0, 5.0)
"""The range of beta that trials explore."""
STEP = 0.01
"""The step of both ranges."""
NUM_DRAWN = 20
"""The number of random trials before the sampler learns from them."""
FEW = 500
"""With fewer words, or characters in an alphabet without a space, an error is more than 0.2 points."""

ERRORS = {"spaced": bool, "words": int, "characters": int, "greedy_words": int, "greedy_characters": int}
"""The values of `without_model` and their types."""


class Trial(NamedTuple):
    """A pair of weights, and the number of errors on the dev split with them."""

    alpha: float
    beta: float
    word_errors: int
    char_errors: int


@dataclasses.dataclass
class Trials:
    """The trials so far and their file: JSON Lines, with the conditions first.

    Attributes:
        path: the file.
        conditions: what the errors depend on besides alpha and beta (language model, split, checkpoint, options), and
            the result of `without_model`.
        trials: the trials so far.
    """

    path: Path
    conditions: dict[str, Any]
    trials: list[Trial]

    def add(self, trial: Trial) -> None:
        """Adds a trial and saves the file.

        Raises:
            InputError: the file cannot be written.
        """
        self.trials.append(trial)
        rows = [self.conditions, *(each._asdict() for each in self.trials)]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    @property
    def best(self) -> Trial:
        """The trial with the fewest errors; ties go to the smallest weights."""
        return min(self.trials, key=lambda trial: (*self.errors(trial), trial.alpha, trial.beta))

    def errors(self, trial: Trial) -> tuple[int, int]:
        """Returns the errors to minimise, then the errors that break ties: word errors first if there is a space."""
        both = trial.word_errors, trial.char_errors
        return both if self.conditions["spaced"] else both[::-1]

    def rates(self, words: int, characters: int) -> tuple[float, float]:
        """Computes word and character error rate from the numbers of errors."""
        return words / max(self.conditions["words"], 1), characters / max(self.conditions["characters"], 1)

    def describe(self, words: int, characters: int) -> str:
        """Formats error rates as text."""
        wer, cer = self.rates(words, characters)
        return f"WER {wer:.2%} ({words:,} errors), CER {cer:.2%} ({characters:,})"


@dataclasses.dataclass(frozen=True)
class SplitOutputs:
    """The model's outputs for the dev split.

    Attributes:
        references: the normalised transcripts.
        log_probs: [T', V] float32 for each utterance.
    """

    references: Sequence[str]
    log_probs: Sequence[np.ndarray]

    def errors(self, texts: Sequence[str]) -> tuple[ErrorCount, ErrorCount]:
        """Counts the word and character errors of the recognised texts."""
        pairs = list(zip(self.references, texts, strict=True))
        characters = (char_errors(*pair, spaces=False) for pair in pairs)
        return sum((word_errors(*pair) for pair in pairs), start=ErrorCount()), sum(characters, start=ErrorCount())


def tune(run: Path, lm: Path, trials: int, engine: EngineName = "jax", manifest: Path | None = None) -> int:
    """Finds the weights of a language model and saves them in the run.

    Args:
        run: the folder of a training run.
        lm: an n-gram language model.
        trials: the number of trials, including earlier ones.
        engine: what computes the log-probabilities.
        manifest: the utterances; by default the run's dev split.

    Returns:
        The exit code 0.

    Raises:
        InputError: Optuna is not installed; the run has no dev split or no checkpoint; the language model cannot be
            read or does not fit the run; or a file of results is damaged or cannot be written.
    """
    require_optuna()
    config = read_config(run)
    manifest = manifest or unseen_dev(config.data)
    if manifest is None:
        raise InputError(
            "RUN must have a dev split that it did not train on, got none. Name other utterances with --manifest, or "
            "decode with --alpha and --beta."
        )
    alphabet = Alphabet.of(config.data)
    split = read_split(manifest, config, alphabet, prune=False)
    step = run_folder.best_step(run) or 0  # an exported model has no steps
    model = load(lm)
    digest = digest_of(lm)
    options = DecodingOptions(lm=lm)
    search = BeamSearch(alphabet, options, model)
    conditions = {"lm": digest, "split": splits.digest(split), "checkpoint": step, "options": rules_of(options)}
    folder = home(run) / run_folder.TUNING / f"{lm.name}-{digest[:12]}"
    make_writable(folder)  # now, because running the model may take long
    study = read_trials(folder / "trials.jsonl", conditions)
    heard = None
    if study is None or len(study.trials) < trials:
        heard = hear(run, config, split, engine)
        study = study or Trials(folder / "trials.jsonl", conditions | without_model(heard, config, alphabet), [])
    told = study.conditions
    print(f"{manifest}: {len(split.utterances):,} utterances, {told['words']:,} words")
    units = "words" if told["spaced"] else "characters"
    if (count := told[units]) < FEW:
        what = f"{manifest} has {count:,} {units}: one error is {1 / max(count, 1):.1%}"
        advice = "Tune on more utterances with --manifest, or decode with the default weights."
        logger.warning(f"{what}, so weights that win by a few errors may be no better elsewhere. {advice}")
    print(f"greedy decoding: {study.describe(told['greedy_words'], told['greedy_characters'])}", flush=True)
    if study.trials:
        print(f"{len(study.trials):,} trials are already done")
    try:
        if heard is not None:
            run_trials(study, trials, heard, search, alphabet, threads=isinstance(model, NGramModel))
    finally:
        if study.trials:
            keep(run, lm, study)
            print("\n".join(describe(study, run, lm)), flush=True)
    return 0


def require_optuna() -> None:
    """Raises InputError if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError(f"lm tune must find Optuna, got: {error}. Install it: pip install 'optuna>=5,<6'.") from error


def rules_of(options: DecodingOptions) -> dict[str, Any]:
    """Lists the decoding options other than the language model and its weights, as they are after reading from JSON."""
    rules = {name: value for name, value in vars(options).items() if name not in ("lm", "alpha", "beta")}
    found: dict[str, Any] = json.loads(json.dumps(rules))  # JSON turns tuples into lists
    return found


def hear(run: Path, config: Config, split: Split, engine: EngineName = "jax") -> SplitOutputs:
    """Runs the best checkpoint over a split.

    Raises:
        InputError: there is no checkpoint, or an audio file cannot be read and data.on_bad_utterance is "error".
    """
    model = TrainedModel.load(run, engine=engine)
    skipped: list[str] = []
    outputs = split_outputs(
        model,
        split,
        title="dev split",
        on_problem=(lambda problem: skipped.append(problem.id)) if config.data.on_bad_utterance == "skip" else None,
    )
    found = sorted((output.utterance_index, output.log_probs) for output in outputs)
    if skipped:
        print(f"{len(skipped):,} utterances are skipped because their audio cannot be read: {', '.join(skipped[:3])}")
    references = [model.alphabet.normalise(split.utterances[index].transcript) for index, _ in found]
    return SplitOutputs(references, [log_probs for _, log_probs in found])


def without_model(heard: SplitOutputs, config: Config, alphabet: Alphabet) -> dict[str, Any]:
    """Computes the baseline: reference lengths, errors of greedy decoding, and whether the alphabet has a space."""
    greedy = make_decoder(config)
    words, characters = heard.errors([greedy(log_probs)[0].text for log_probs in heard.log_probs])
    return {
        "spaced": alphabet.spaced,
        "words": words.reference_length,
        "characters": characters.reference_length,
        "greedy_words": words.edits,
        "greedy_characters": characters.edits,
    }


def read_trials(path: Path, conditions: dict[str, Any]) -> Trials | None:
    """Reads the trials in a file; None if the file does not exist or was written under other conditions.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        first, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        stale = [name for name, value in conditions.items() if first.get(name) != value]
        for name, kind in ERRORS.items():
            _check_count(name, build(kind, first.get(name), f"{name}."))
        study = Trials(path, first, [_trial(row) for row in rows])
    except (OSError, InputError, AttributeError, TypeError, *NO_JSON) as error:
        advice = advice_for(error, "Delete it and run the same command again.")
        raise InputError(f"{path} must hold trials, got {type(error).__name__}: {error}. {advice}") from error
    if stale:
        print(f"starting again without the {len(study.trials):,} earlier trials, because {' and '.join(stale)} changed")
        return None
    return study


def _trial(row: dict[str, Any]) -> Trial:
    kinds = typing.get_type_hints(Trial)
    trial = Trial(**{name: build(kinds[name], value, f"{name}.") for name, value in row.items() if name in kinds})
    require(math.isfinite(trial.alpha + trial.beta), "alpha and beta", "be finite", row)
    _check_count("word_errors", trial.word_errors)
    _check_count("char_errors", trial.char_errors)
    return trial


def _check_count(name: str, count: int) -> None:
    require(0 <= count < 2**53, name, "be a count", count)


def run_trials(
    study: Trials, count: int, heard: SplitOutputs, search: BeamSearch, alphabet: Alphabet, *, threads: bool
) -> None:
    """Runs trials until there are `count`.

    Args:
        study: the trials so far; new ones are added.
        count: the number of trials, including earlier ones.
        heard: the model's outputs, which every trial decodes.
        search: a beam search with any weights.
        alphabet: the model's alphabet.
        threads: whether threads decode several utterances at the same time.

    Raises:
        InputError: the file of trials cannot be written.
        Stopped: a signal asked to stop; the trials so far are saved.
    """

    def prospects() -> str:
        return f"{len(study.trials):,} trials are saved; the same command continues"

    known = {(trial.alpha, trial.beta): trial for trial in study.trials}
    bar = tqdm(total=count, initial=len(study.trials), unit="trial", leave=False, disable=not sys.stderr.isatty())
    with interrupts.deferred(prospects), bar, ThreadPoolExecutor(None if threads else 1) as pool:
        while len(study.trials) < count:
            interrupts.check()
            alpha, beta = propose(study)
            trial = known.get((alpha, beta))
            if trial is None:
                one = functools.partial(read, search.weighted(alpha, beta), alphabet)
                words, characters = heard.errors(list(pool.map(one, heard.log_probs)))
                trial = known[alpha, beta] = Trial(alpha, beta, words.edits, characters.edits)
            study.add(trial)
            bar.set_description(f"best WER {study.rates(study.best.word_errors, 0)[0]:.2%}", refresh=False)
            bar.update()


def read(search: BeamSearch, alphabet: Alphabet, log_probs: np.ndarray) -> str:
    """Decodes the most probable text of an utterance."""
    found = search(log_probs)
    return " ".join(alphabet.decode(found[0].labels).split()) if found else ""


def propose(study: Trials) -> tuple[float, float]:
    """Proposes the next pair of weights: first the defaults, then a pair that depends only on the earlier trials."""
    if not study.trials:
        return DEFAULT_ALPHA, DEFAULT_BETA
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges: dict[str, optuna.distributions.BaseDistribution] = {
        "alpha": optuna.distributions.FloatDistribution(*ALPHAS, step=STEP),
        "beta": optuna.distributions.FloatDistribution(*BETAS, step=STEP),
    }
    seed = len(study.trials)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=NUM_DRAWN)
    made = optuna.create_study(sampler=sampler)
    # With this scale, all tie-breaking errors together count less than one error of the main kind.
    scale = 1 + 2 * max(max(study.errors(trial)[1] for trial in study.trials), 1)
    for trial in study.trials:
        first, second = study.errors(trial)
        params = {"alpha": trial.alpha, "beta": trial.beta}
        made.add_trial(optuna.create_trial(params=params, distributions=ranges, value=first + second / scale))
    asked = made.ask(ranges)
    return round(asked.params["alpha"], 2), round(asked.params["beta"], 2)


def keep(run: Path, lm: Path, study: Trials) -> None:
    """Writes the best weights into the folder of the run, and draws the picture.

    Raises:
        InputError: a file cannot be written, or an existing one is damaged.
    """
    best, conditions = study.best, study.conditions
    rates = study.rates(best.word_errors, best.char_errors)
    tuned = Tuned(str(lm), best.alpha, best.beta, *rates, len(study.trials), conditions["checkpoint"])
    write_tuned(run, conditions["lm"], tuned)
    which = 0 if conditions["spaced"] else 1
    greedy = study.rates(conditions["greedy_words"], conditions["greedy_characters"])[which]
    found = f"alpha {best.alpha:g} and beta {best.beta:g} give {rates[which]:.2%}, greedy decoding {greedy:.2%}"
    surface = Surface(
        name=("WER", "CER")[which],
        title=f"{lm.name}: {found}",
        weights=np.array([trial[:2] for trial in study.trials]),
        rates=np.array([study.rates(*trial[2:])[which] for trial in study.trials]),
        best=best[:2],
        greedy=greedy,
        ranges=(ALPHAS, BETAS),
    )
    draw_surface(picture_of(study), surface)


def picture_of(study: Trials) -> Path:
    """Returns the path of the picture."""
    return study.path.with_name("surface.png")


def describe(study: Trials, run: Path, lm: Path) -> Iterator[str]:
    """Yields lines of text that describe the result."""
    best, told = study.best, study.conditions
    first = study.trials[0]
    rates = study.describe(first.word_errors, first.char_errors)
    yield f"alpha {first.alpha:g}, beta {first.beta:g}, the defaults: {rates}"
    rates = study.describe(best.word_errors, best.char_errors)
    yield f"alpha {best.alpha:g}, beta {best.beta:g}, the best of {len(study.trials):,} trials: {rates}"
    if study.errors(best) >= study.errors(Trial(0, 0, told["greedy_words"], told["greedy_characters"])):
        yield "  no better than greedy decoding: build the language model from text that is closer to the speech"
    # alpha cannot be negative, so its lower end is no limit of the search.
    ends = [
        name for name, value, ends in (("alpha", best.alpha, ALPHAS[1:]), ("beta", best.beta, BETAS)) if value in ends
    ]
    if ends:
        yield f"  {' and '.join(ends)} at the end of the range that was tried: better values may lie beyond"
    yield f"trials: {study.path}"
    yield f"picture: {picture_of(study)}"
    yield f"saved in {home(run) / run_folder.TUNED}. To use them: {command('evaluate', run, '--lm', lm)}"

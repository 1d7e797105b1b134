"""Declares the commands of evaluation. Slow modules are imported only after the options have been checked."""

from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.config.places import is_tfds
from ds2_jax.decoding.options import GREEDY, Combination, DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.evaluation.condition_settings import NONE, Conditions
from ds2_jax.evaluation.error_rates import Weights
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import find_model
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import check_is_readable

With = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="with", metavar="RUN")]
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def evaluate(
    run: Run,
    manifest: Path | None = None,
    report: Path | None = None,
    against: Path | None = None,
    engine: EngineName = "jax",
    with_: With = (),
    combine: Combination = "rover",
    conditions: Annotated[Conditions, tyro.conf.arg(name="")] = NONE,
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY,
) -> int:
    """Print the word and character error rates of a run's best checkpoint, and list every utterance in a file.

    Args:
        run: Folder of a training run, or a folder or file that export wrote.
        manifest: Manifest or tfds:NAME#SPLIT to evaluate; by default the run's test split. The results are written to
            RUN/evaluations, the worst utterances first.
        report: Folder for a report: index.html, which shows and plays the worst utterances, and report.json.
        against: Folder of another run, which is decoded in the same way, or an earlier evaluation (a .jsonl of
            RUN/evaluations). The difference between the error rates is printed with its interval.
        engine: What runs the model. onnx: ONNX Runtime, the fastest on a CPU. jax: JAX.
        with_: Another model of the same alphabet, which recognises together with RUN. You can repeat this option.
        combine: rover: each model decodes alone, and they vote for words with their confidences. average: decode the
            mean of the models' log-probabilities.
        conditions: Other conditions of recording: a table and a picture of the error rates in noise, rooms and so on.
        decoding: How to decode.
    """
    run, against = find_model(run), against and find_model(against)
    check_files(run, manifest)
    require(bool(with_) or combine == "rover", "--combine", "be used with --with", combine, "Name other models.")
    for other in with_:
        read_config(find_model(other))
    from ds2_jax.evaluation.evaluate import evaluate as evaluate_run
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    evaluate_run(
        run,
        manifest,
        decoding,
        report_folder=report,
        against=against,
        engine=engine,
        conditions=conditions,
        others=with_,
        combine=combine,
    )
    return 0


def score(
    references: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REFERENCES")],
    hypotheses: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="HYPOTHESES")],
    rules: Path | None = None,
    weights: Weights = "equal",
    against: Path | None = None,
    out: Path | None = None,
    report: Path | None = None,
) -> int:
    """Print the word and character error rates of texts that any recogniser has written.

    The suffix or the content of a file shows its format: JSON lines (manifests, NeMo's, results of evaluate, output of
    transcribe), CTM, STM, trn (WORDS (NAME)), or text, a line each, whose first words may be names. A word of a CTM
    file belongs to the STM segment that contains its middle. Other texts are matched by name, and lines without names
    by line number. A reference without a hypothesis counts as deleted.

    Args:
        references: What was said.
        hypotheses: What was recognised.
        rules: TOML file of rules that make texts alike first: case = "lower", punctuation = "remove",
            remove = ["uh"], and a table [replace] of words or phrases.
        weights: equal counts the fewest edits, as evaluate and jiwer do. nist counts as sclite does, which prefers more
            right words to fewer edits.
        against: Other hypotheses for the same references. The difference between the error rates is printed with its
            interval.
        out: File for one utterance a line as JSON, the worst first.
        report: Folder for a report: index.html, which shows the worst utterances, and report.json.
    """
    for path, name in (
        (references, "REFERENCES"),
        (hypotheses, "HYPOTHESES"),
        (rules, "--rules"),
        (against, "--against"),
    ):
        if path is not None:
            check_is_readable(path, name)
    from ds2_jax.evaluation.score import score as score_texts

    score_texts(references, hypotheses, rules, weights=weights, against=against, report_folder=report, out=out)
    return 0


def calibrate(run: Run, manifest: Path | None = None, engine: EngineName = "jax") -> int:
    """Fit a run's confidences and word times to its dev split or another manifest; training does so at the end.

    Args:
        run: Folder of a training run, or a folder or file that export wrote. The result is saved there in
            calibration.json.
        manifest: Manifest or tfds:NAME#SPLIT to fit to; by default the run's dev split.
        engine: What runs the model. onnx: ONNX Runtime, the fastest on a CPU. jax: JAX.
    """
    run = find_model(run)
    check_files(run, manifest)
    from ds2_jax.evaluation.calibrate import calibrate as calibrate_run
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    calibrate_run(run, manifest, engine)
    return 0


def tune(
    run: Run,
    lm: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    manifest: Path | None = None,
    trials: int = 100,
    engine: EngineName = "jax",
) -> int:
    """Find the weights of a language model that give the fewest word errors on a run's dev split.

    alpha, from 0 to 3, is the weight of the language model. beta, from -1 to 5 nats, is added for each word. The model
    runs over the split once. Then each trial decodes the split with one pair of weights, which Optuna proposes (a
    tree-structured Parzen estimator). After an interruption, the same command continues. The run saves the best pair:
    evaluate and transcribe use it with the same --lm if you give no weights. A picture shows the error rate over both
    weights.

    Args:
        run: Folder of a training run, or a folder or file that export wrote.
        lm: Language model: an ARPA file, plain or gzipped, or a KenLM binary.
        manifest: Manifest or tfds:NAME#SPLIT to tune on; by default the run's dev split, if it did not train on it.
        trials: Number of pairs of weights to try, including those of earlier calls.
        engine: What runs the model. onnx: ONNX Runtime, the fastest on a CPU. jax: JAX.
    """
    require(trials >= 1, "--trials", "be at least 1", trials)
    run = find_model(run)
    check_files(run, manifest)
    check_is_readable(lm, "--lm")
    from ds2_jax.evaluation.tune import tune as tune_weights
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    return tune_weights(run, lm, trials, engine, manifest)


def check_files(run: Path, manifest: Path | None = None) -> None:
    """Checks that a model and a manifest exist, before anything slow is imported.

    Raises:
        InputError: one of them does not exist.
    """
    read_config(run)
    if manifest is not None and not is_tfds(manifest) and not manifest.is_file():
        advice = "Give the path of a manifest: --manifest FILE."
        raise InputError(
            f"{manifest.absolute()} must be a manifest to evaluate, got a folder or nothing at this path. {advice}"
        )

"""The commands of evaluation: their options, and nothing that is slow to import before they are right."""

from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.system.checks import require

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def evaluate(
    run: Run,
    manifest: Path | None = None,
    report: Path | None = None,
    against: Path | None = None,
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY,
) -> int:
    """Word and character error rates of a run's best checkpoint, and a file with every utterance, worst first.

    Args:
        run: Folder of a training run.
        manifest: Manifest or tfds:NAME#SPLIT to evaluate; by default the run's test split. The results are written to
            RUN/evaluations.
        report: Folder for a report: index.html, a page to see and hear the worst utterances, and report.json.
        against: Compare with another run (its folder; it is decoded in the same way) or with an earlier evaluation (a
            .jsonl of RUN/evaluations): difference of the error rates with its interval.
        decoding: How to decode.
    """
    from ds2_jax.evaluation.evaluate import evaluate as evaluate_run
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    evaluate_run(run, manifest, decoding, report_folder=report, against=against)
    return 0


def calibrate(run: Run, manifest: Path | None = None) -> int:
    """Fit a run's confidences and word times to its dev split, or to another one; training does so at the end.

    Args:
        run: folder of a training run, which keeps the result in calibration.json.
        manifest: manifest or tfds:NAME#SPLIT to fit to; by default the run's dev split.
    """
    from ds2_jax.evaluation.calibrate import calibrate as calibrate_run
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    calibrate_run(run, manifest)
    return 0


def tune(run: Run, lm: Annotated[Path, tyro.conf.arg(metavar="FILE")], trials: int = 100) -> int:
    """Finds the weights of a language model with which the dev split of a run has the fewest word errors.

    alpha is the weight of the language model, 0 to 3; beta is what each word gets, -1 to 5 nats. The model runs over
    the split once. Then each trial decodes it with one pair of weights, which Optuna proposes (a tree-structured Parzen
    estimator). The same command continues after an interruption; more --trials add to those made. The run keeps the
    best pair: evaluate and transcribe use it if they are given the same --lm without weights. A picture shows the error
    rate over both weights.

    Args:
        run: folder of a training run.
        lm: language model: an ARPA file, plain or gzipped, or a KenLM binary.
        trials: pairs of weights to try, those of earlier calls included.
    """
    require(trials >= 1, "--trials", "be at least 1", trials)
    from ds2_jax.evaluation.tune import tune as tune_weights
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    return tune_weights(run, lm, trials)

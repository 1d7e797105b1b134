"""Runs the command `summary`: tables of the error rates of several runs, their means and their spread."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.evaluation.error_rates import ErrorCount
from ds2_jax.evaluation.report.bootstrap import Bootstrap
from ds2_jax.evaluation.results import Evaluation, read_evaluation
from ds2_jax.runs.run_folder import PLACES, differences, load_config, read_metric_log
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.markdown import table
from ds2_jax.system.program import command

logger = logging.getLogger(__package__)

RUNS = tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")  # `distinct` checks this
NOTHING = "–"
"""Marks a value in the table that is unknown or undefined."""


class FinishedRun(NamedTuple):
    """A run and its evaluations.

    Attributes:
        folder: the folder, as the user gave it.
        name: the folder's name, or its whole path if two runs have the same name.
        config: the settings of the run.
        seconds: wall-clock time of training; None if the version that trained it did not record it.
        evaluations: the evaluations by their paths in the folder without suffix: test, or evaluations/NAME.
    """

    folder: Path
    name: str
    config: Config
    seconds: float | None
    evaluations: dict[str, Evaluation]


def summary(runs: Annotated[tuple[Path, ...], tyro.conf.Positional, RUNS]) -> int:
    """Print Markdown tables of the error rates of runs, such as several seeds of one recipe, with their means.

    There is one table for the test split, which training evaluates at the end, and one for each file name in the runs'
    evaluations folders.

    Args:
        runs: Folders of training runs.
    """
    folders = distinct(runs)
    names = [folder.absolute().name for folder in folders]
    if len(set(names)) < len(names):
        names = list(map(str, folders))
    finished = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    tell_other_settings(finished)
    sections = []
    for place in dict.fromkeys(place for run in finished for place in run.evaluations):
        having = [run for run in finished if place in run.evaluations]
        if lacking := [str(run.folder) for run in finished if place not in run.evaluations]:
            logger.info(f"{place} is not in {', '.join(lacking)}: its table has only the other runs")
        sections.append("\n".join(section_lines(place, having)))
    print("\n\n".join(sections))
    return 0


def tell(message: str) -> None:
    """Logs a line, so that standard output holds only the table."""
    logger.info(message)


def distinct(folders: Sequence[Path]) -> list[Path]:
    """Removes repeated folders, which overlapping shell patterns can give; the order stays.

    Raises:
        InputError: there is no folder.
    """
    if not folders:
        raise InputError("RUN must be the folder of a training run, got none. Name at least one.")
    found: dict[Path, Path] = {}
    for folder in folders:
        first = found.setdefault(folder.resolve(), folder)
        if first is not folder:
            logger.info(f"{folder} is the same run as {first}: it counts once")
    return list(found.values())


def read_run(folder: Path, name: str) -> FinishedRun:
    """Reads the settings, training time and evaluations of a run.

    Raises:
        InputError: the folder is not a run, it was not evaluated, or one of its files is damaged.
    """
    config = load_config(folder)
    places = ["test", *sorted(f"evaluations/{path.stem}" for path in (folder / "evaluations").glob("*.json"))]
    evaluations = {}
    for place in places:
        path = folder / place
        if (evaluation := read_evaluation(path.parent, path.name)) is not None:
            evaluations[place] = evaluation
            if evaluation.left_out:
                logger.info(f"{path}: {evaluation.left_out} utterances were left out")
    if not evaluations:
        raise InputError(
            f"{folder} must hold an evaluation, got neither test.json nor evaluations. Continue its training to "
            f"the end, or evaluate it: {command('evaluate', folder)}"
        )
    seconds = [metrics["wall_seconds"] for _, metrics in read_metric_log(folder) if "wall_seconds" in metrics]
    return FinishedRun(folder, name, config, seconds[-1] if seconds else None, evaluations)


def tell_other_settings(runs: Sequence[FinishedRun]) -> None:
    """Logs in which settings the runs differ from the first one; the seed and `PLACES` do not count."""
    first, *others = runs
    settings = json.loads(config_lib.to_json(first.config))
    lines = [
        f"  {field}: {ours} in {first.folder}, {theirs} in {other.folder}"
        for other in others
        for field, (ours, theirs) in differences(settings, json.loads(config_lib.to_json(other.config))).items()
        if field not in PLACES | {"seed"}
    ]
    if lines:
        tell("\n".join(["the runs differ in more than the seed, so their mean says little:", *lines]))


def section_lines(place: str, runs: Sequence[FinishedRun]) -> list[str]:
    """Makes the Markdown lines for the evaluations of one name.

    Args:
        place: the path of the evaluations in the run folders, without suffix.
        runs: one or more runs, which all have this evaluation.

    Raises:
        InputError: the evaluations are of different utterances.
    """
    check_same_utterances(place, runs)
    evaluations = [run.evaluations[place] for run in runs]
    results = evaluations[0].results
    has_words = evaluations[0].words.reference_length > 0
    header = (
        *("run", "seed", "training, minutes", "WER (errors / words)"),
        f"95 % interval of the WER ({Bootstrap(results)})" if has_words else "95 % interval of the WER",
        *("CER without spaces (errors / characters)", "CER with spaces (errors / characters)"),
    )
    rows: list[tuple[str, ...]] = [
        (
            run.name,
            str(run.config.seed),
            minutes(run.seconds),
            rate(evaluation.words),
            interval(evaluation) if has_words else NOTHING,
            rate(evaluation.characters(spaces=False)),
            rate(evaluation.characters(spaces=True)),
        )
        for run, evaluation in zip(runs, evaluations, strict=True)
    ]
    if len(runs) > 1:
        rows.append(mean_row(runs, evaluations))
    return [f"### {Path(place).name}: {len(results)} utterances", "", *table(header, rows)]


def check_same_utterances(place: str, runs: Sequence[FinishedRun]) -> None:
    """Raises InputError if the evaluations have different utterances or references: a mean would make no sense."""
    first, *others = runs
    ours, *rest = ({(each.utterance.id, each.reference) for each in run.evaluations[place].results} for run in runs)
    for other, theirs in zip(others, rest, strict=True):
        unlike = sorted({name for name, _ in ours ^ theirs})
        if unlike:
            rule = f"be of the same utterances and references as {first.folder / place}.json"
            found = f"{len(unlike)} that are not in both, such as {shorten(unlike[0])}"
            advice = "Evaluate both on one manifest, or leave one of the runs out."
            raise InputError(f"{other.folder / place}.json must {rule}, got {found}. {advice}")


def mean_row(runs: Sequence[FinishedRun], evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """Makes the last row: the means over the runs, and the difference between the largest and the smallest WER."""
    seconds = [run.seconds for run in runs if run.seconds is not None]
    counts = [evaluation.words for evaluation in evaluations]
    wers = [count.rate for count in counts]
    spread = f", spread {100 * (max(wers) - min(wers)):.2f} points" if counts[0].reference_length else ""
    return (
        f"mean of {len(runs)} runs",
        "",
        minutes(sum(seconds) / len(seconds) if len(seconds) == len(runs) else None),
        mean_rate(counts) + spread,
        "",
        mean_rate([evaluation.characters(spaces=False) for evaluation in evaluations]),
        mean_rate([evaluation.characters(spaces=True) for evaluation in evaluations]),
    )


def interval(evaluation: Evaluation) -> str:
    """Formats the 95 % interval of the WER."""
    low, high = Bootstrap(evaluation.results).interval([result.words for result in evaluation.results])
    return f"{low:.2%} to {high:.2%}"


def minutes(seconds: float | None) -> str:
    """Formats seconds as minutes."""
    return NOTHING if seconds is None else f"{seconds / 60:.1f}"


def rate(count: ErrorCount) -> str:
    """Formats an error rate and its counts."""
    return f"{mean_rate([count])} ({count.edits} / {count.reference_length})"


def mean_rate(counts: Sequence[ErrorCount]) -> str:
    """Formats the mean of error rates on the same references."""
    if not counts[0].reference_length:
        return NOTHING
    return f"{sum(count.rate for count in counts) / len(counts):.2%}"

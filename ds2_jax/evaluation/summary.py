"""Runs the command `summary`: tables of the error rates of several runs, their means and their spread."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.config.live import can_stream, describe
from ds2_jax.evaluation.error_rates import ErrorCount
from ds2_jax.evaluation.provenance import DIGITS
from ds2_jax.evaluation.report.bootstrap import Bootstrap
from ds2_jax.evaluation.results import Evaluation, read_evaluation
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import find_model, home
from ds2_jax.runs.run_folder import EVALUATIONS, OLDER_TEST, PLACES, differences, read_metric_log
from ds2_jax.system.errors import InputError, brief, shorten
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
        evaluations: the evaluations by the paths of their .json files.
    """

    folder: Path
    name: str
    config: Config
    seconds: float | None
    evaluations: dict[Path, Evaluation]


class Row(NamedTuple):
    """An evaluation of a run.

    Attributes:
        run: the run.
        name: the run's name, with the step of the weights if the run has such evaluations of several weights.
        path: the .json file of the evaluation.
        evaluation: the evaluation.
    """

    run: FinishedRun
    name: str
    path: Path
    evaluation: Evaluation


class Section(NamedTuple):
    """Evaluations of one manifest, decoded in one way, with one set of weights of each run.

    Attributes:
        title: says what was evaluated and how.
        rows: one for each run that has such an evaluation.
    """

    title: str
    rows: list[Row]


def summary(runs: Annotated[tuple[Path, ...], tyro.conf.Positional, RUNS]) -> int:
    """Print Markdown tables of the error rates of runs, such as several seeds of one recipe, with their means.

    There is one table for each manifest and way of decoding, which the files of the evaluations state. Evaluations of
    older versions do not state them: there is one table for each of their file names.

    Args:
        runs: Folders of training runs.
    """
    folders = distinct(runs)
    names = names_of(folders)
    finished = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    tell_other_settings(finished)
    for run in finished:
        if can_stream(run.config):
            logger.info(f"{run.name}: live, {describe(run.config)}")
    tables = []
    for section in make_sections(finished):
        having = {row.run.folder for row in section.rows}
        if lacking := [str(run.folder) for run in finished if run.folder not in having]:
            logger.info(f"{section.title} is not in {', '.join(lacking)}: its table has only the other runs")
        tables.append("\n".join(section_lines(section)))
    print("\n\n".join(tables))
    return 0


def make_sections(runs: Sequence[FinishedRun]) -> list[Section]:
    """Groups the evaluations of runs by what their files say, in the order of the runs.

    A run that was trained further has several evaluations of a kind. The newest are in one section, those before them
    in the next, so that a mean takes one of each run.
    """
    found: dict[tuple[object, ...], Section] = {}
    for run in runs:
        kinds: dict[tuple[str, ...], list[Path]] = {}
        for path, evaluation in run.evaluations.items():
            kinds.setdefault(_kind(path, evaluation), []).append(path)
        for kind, paths in kinds.items():
            newest_first = sorted(paths, key=lambda path: _written(run.evaluations[path]), reverse=True)
            for age, path in enumerate(newest_first):
                evaluation = run.evaluations[path]
                title = _title(path, evaluation) + _age(evaluation, run.evaluations[newest_first[0]], age)
                name = run.name
                if evaluation.provenance and len(paths) > 1:
                    name += f", step {', '.join(map(str, evaluation.provenance.steps))}"
                section = found.setdefault((*kind, age), Section(title, []))
                section.rows.append(Row(run, name, path, evaluation))
    titles = [section.title for section in found.values()]
    return [
        section if titles.count(section.title) == 1 else section._replace(title=_longer(section))
        for section in found.values()
    ]


def _age(evaluation: Evaluation, newest: Evaluation, age: int) -> str:
    """Says what an evaluation has that is older than the newest of its kind; "" for the newest."""
    if age == 0:
        return ""
    own, other = evaluation.provenance, newest.provenance
    same = own is not None and other is not None and own.steps == other.steps
    return ", earlier evaluation" if same else ", earlier weights"


def _kind(path: Path, evaluation: Evaluation) -> tuple[str, ...]:
    """Identifies manifest and decoding; for evaluations of older versions, the name of the file."""
    provenance = evaluation.provenance
    return (provenance.manifest_digest, *provenance.how) if provenance else (path.stem,)


def _written(evaluation: Evaluation) -> str:
    return evaluation.provenance.written if evaluation.provenance else ""


def _title(path: Path, evaluation: Evaluation) -> str:
    return str(evaluation.provenance) if evaluation.provenance else path.stem


def _longer(section: Section) -> str:
    """Adds the manifest's path and digest to a title that is not the only one of its kind."""
    provenance = section.rows[0].evaluation.provenance
    if provenance is None:
        return section.title
    return f"{section.title} ({provenance.manifest}, digest {provenance.manifest_digest[:DIGITS]})"


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


def names_of(folders: Sequence[Path]) -> list[str]:
    """Names runs after their folders, or with their whole paths if two folders have the same name."""
    names = [folder.absolute().name for folder in folders]
    return names if len(set(names)) == len(names) else list(map(str, folders))


def read_run(folder: Path, name: str) -> FinishedRun:
    """Reads the settings, training time and evaluations of a run.

    Raises:
        InputError: the folder is not a run, it was not evaluated, or one of its files is damaged.
    """
    model = find_model(folder)
    config, results = read_config(model), home(model)
    evaluations = {}
    for path in (results / OLDER_TEST, *sorted((results / EVALUATIONS).glob("*.json"))):
        if (evaluation := read_evaluation(path.parent, path.stem)) is not None:
            evaluations[path] = evaluation
            if evaluation.left_out:
                logger.info(f"{path.with_suffix('')}: {evaluation.left_out} utterances were left out")
    if not evaluations:
        raise InputError(
            f"{folder} must hold an evaluation, got none. Continue its training to the end, or evaluate it: "
            f"{command('evaluate', folder)}"
        )
    seconds = [metrics["wall_seconds"] for _, metrics in read_metric_log(results) if "wall_seconds" in metrics]
    return FinishedRun(folder, name, config, seconds[-1] if seconds else None, evaluations)


def tell_other_settings(runs: Sequence[FinishedRun]) -> None:
    """Logs in which settings the runs differ from the first one; the seed and `PLACES` do not count."""
    first, *others = runs
    settings = json.loads(config_lib.to_json(first.config))
    lines = [
        f"  {field}: {brief(ours)} in {first.folder}, {brief(theirs)} in {other.folder}"
        for other in others
        for field, (ours, theirs) in differences(settings, json.loads(config_lib.to_json(other.config))).items()
        if field not in PLACES | {"seed"}
    ]
    if lines:
        tell("\n".join(["the runs differ in more than the seed, so their mean says little:", *lines]))


def section_lines(section: Section) -> list[str]:
    """Makes the Markdown lines of a section.

    Raises:
        InputError: the evaluations are of different utterances.
    """
    check_same_utterances(section.rows)
    evaluations = [row.evaluation for row in section.rows]
    results = evaluations[0].results
    has_words = evaluations[0].words.reference_length > 0
    header = (
        *("run", "seed", "training, minutes", "WER (errors / words)"),
        f"95 % interval of the WER ({Bootstrap(results)})" if has_words else "95 % interval of the WER",
        *("CER without spaces (errors / characters)", "CER with spaces (errors / characters)"),
    )
    rows: list[tuple[str, ...]] = [
        (
            name,
            str(run.config.seed),
            minutes(run.seconds),
            rate(evaluation.words),
            interval(evaluation) if has_words else NOTHING,
            rate(evaluation.characters(spaces=False)),
            rate(evaluation.characters(spaces=True)),
        )
        for run, name, _, evaluation in section.rows
    ]
    if len(section.rows) > 1:
        rows.append(mean_row([row.run for row in section.rows], evaluations))
    return [f"### {section.title}: {len(results)} utterances", "", *table(header, rows)]


def check_same_utterances(rows: Sequence[Row]) -> None:
    """Raises InputError if the evaluations have different utterances or references: a mean would make no sense."""
    first, *others = rows
    ours, *rest = ({(each.utterance.id, each.reference) for each in row.evaluation.results} for row in rows)
    for other, theirs in zip(others, rest, strict=True):
        unlike = sorted({name for name, _ in ours ^ theirs})
        if unlike:
            rule = f"be of the same utterances and references as {first.path}"
            found = f"{len(unlike)} that are not in both, such as {shorten(unlike[0])}"
            advice = "Evaluate both on one manifest, or leave one of the runs out."
            raise InputError(f"{other.path} must {rule}, got {found}. {advice}")


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

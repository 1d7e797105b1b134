"""Compares the error rates under several conditions: a table, a picture, and a file."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ds2_jax.evaluation.condition_settings import Conditions
from ds2_jax.evaluation.conditions import AS_RECORDED
from ds2_jax.evaluation.report.bootstrap import Bootstrap, Interval
from ds2_jax.evaluation.results import Evaluation
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import write_text, writing

WIDTH, HEIGHT_EACH, HEIGHT_MORE = 7.5, 0.42, 1.1
"""Size of the picture in inches, at 110 pixels each."""


class ConditionResult(NamedTuple):
    """The error rates under a condition.

    Attributes:
        name: name of the condition.
        evaluation: the results.
        interval: interval of the WER.
        increase: WER less that of the recordings as they are, with its interval; None for these.
    """

    name: str
    evaluation: Evaluation
    interval: Interval
    increase: tuple[float, Interval] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the numbers; rates are fractions."""
        counts = {"utterances": len(self.evaluation.results), "left_out": self.evaluation.left_out}
        numbers = {"condition": self.name, **counts, **self.evaluation.rates, "wer_interval": self.interval}
        return numbers | (
            {"wer_increase": self.increase[0], "wer_increase_interval": self.increase[1]} if self.increase else {}
        )


def against_clean(clean: Evaluation, others: Sequence[tuple[str, Evaluation]]) -> list[ConditionResult]:
    """Computes intervals, and paired differences from the recordings as they are.

    Utterances that were left out under a condition are left out of its difference.

    Raises:
        InputError: no utterance with words is left under a condition.
    """
    rows = [
        ConditionResult(
            AS_RECORDED.name, clean, Bootstrap(clean.results).interval([each.words for each in clean.results])
        )
    ]
    before = {each.utterance.id: each for each in clean.results}
    for name, evaluation in others:
        results = [each for each in evaluation.results if each.utterance.id in before]
        if not any(result.words.reference_length for result in results):
            raise InputError(
                f"Some utterances must be readable under the condition {name}, got none. Correct its sounds."
            )
        bootstrap = Bootstrap(results)
        words, plain = [each.words for each in results], [before[each.utterance.id].words for each in results]
        compared = bootstrap.compare(words, plain, AS_RECORDED.name)
        rows.append(
            ConditionResult(name, evaluation, bootstrap.interval(words), (compared.difference, compared.interval))
        )
    return rows


def table(rows: Sequence[ConditionResult]) -> str:
    """Formats the rows for a terminal."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  {'WER':>8}  {'95 %':>18}  {'CER':>8}  increase over the recordings"]
    for row in rows:
        rates, (low, high) = row.evaluation.rates, row.interval
        more = ""
        if row.increase:
            difference, (least, most) = row.increase
            more = f"{difference * 100:+.2f} points ({least * 100:+.2f} to {most * 100:+.2f})"
        interval = f"{low:.2%} to {high:.2%}"
        lines.append(f"{row.name:{width}}  {rates['wer']:8.2%}  {interval:>18}  {rates['cer']:8.2%}  {more}".rstrip())
    return "\n".join(lines)


def write(folder: Path, name: str, conditions: Conditions, rows: Sequence[ConditionResult]) -> Path:
    """Writes NAME-DIGEST.json and the picture of the same name.

    Args:
        folder: the folder of results under conditions.
        name: the name of the evaluation.
        conditions: the settings of the conditions; their digest keeps results of other settings apart.
        rows: the results.

    Returns:
        The path of the picture.

    Raises:
        InputError: a file cannot be written.
    """
    settings = {key: str(each.absolute()) if isinstance(each, Path) else each for key, each in vars(conditions).items()}
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    path = folder / f"{name}-{digest}.png"
    made_by = rows[0].evaluation.provenance
    numbers = {
        "provenance": made_by and dataclasses.asdict(made_by),
        "settings": settings,
        "conditions": [row.as_json() for row in rows],
    }
    write_text(path.with_suffix(".json"), json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    _draw(path, rows, name)
    return path


def _draw(path: Path, rows: Sequence[ConditionResult], title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no global state as in pyplot
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, HEIGHT_EACH * len(rows) + HEIGHT_MORE), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = range(len(rows))
    wers = [100 * row.evaluation.words.rate for row in rows]
    axes.barh(places, wers, color=["#2f5fc4" if row.increase is None else "#8fa6dd" for row in rows], height=0.6)
    for place, row, wer in zip(places, rows, wers, strict=True):
        low, high = (100 * each for each in row.interval)
        axes.plot([low, high], [place, place], color="#1d1d24", linewidth=1.5)
        axes.annotate(f"{wer:.1f} %", (max(high, wer), place), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, max(max(wers), *(100 * row.interval.high for row in rows)) * 1.15 or 1)
    axes.set(xlabel="word error rate, %; lines are 95 % intervals", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")

"""The report as one page of HTML that needs nothing else: no network, no other file."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from ds2_jax.evaluation.report import calibration_chart
from ds2_jax.evaluation.report.bootstrap import MIN_SPEAKERS, NUM_RESAMPLES, Comparison, Interval
from ds2_jax.evaluation.report.breakdown import Confusion, Group
from ds2_jax.evaluation.report.contents import Contents
from ds2_jax.evaluation.report.markup import Cell, interval, percent, section, table, text

SHOWN_SPEAKERS, SHOWN_CONFUSIONS = 100, 20
"""Rows of a table; report.json has all."""
FEW = 30
"""Units below which the page says what their number does to the intervals."""
SECTIONS = {
    "summary": "Summary",
    "comparison": "Comparison",
    "speakers": "By speaker",
    "lengths": "By length",
    "words": "Confused words",
    "calibration": "Confidence",
    "utterances": "Worst utterances",
}
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#summary">Skip to the summary</a>
<header>
<p class="kind">Evaluation report</p>
<h1>{heading}</h1>
<dl class="origin">{origin}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{sections}
</main>
<script>
{script}</script>
</body>
</html>
"""


def page(contents: Contents, utterances: Sequence[str]) -> str:
    """Writes the page.

    Args:
        contents: of the report.
        utterances: the worst ones, each as `utterance.article` writes it.
    """
    folder = Path(__file__).parent
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    # Only our own script runs, and nothing is fetched, whatever a transcript or a file name holds.
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    written = {
        "summary": _summary(contents),
        "comparison": _comparison(contents),
        "speakers": _groups(contents.speakers, "Speaker", "Error rates of each speaker", SHOWN_SPEAKERS),
        "lengths": _groups(contents.lengths, "Duration", "Error rates by duration of the recording", None),
        "words": _confusions(contents),
        "calibration": calibration_chart.calibration(contents.reliability, contents.bins),
        "utterances": _utterances(utterances),
    }
    parts = {name: part for name, part in written.items() if part}
    origin = contents.origin
    facts = {"Run": origin.run, "Utterances": origin.manifest, "Decoding": origin.decoding}
    return PAGE.format(
        policy=text(policy),
        title=text(f"Evaluation of {Path(origin.run).name}"),
        style=style,
        heading=text(Path(origin.run).name or origin.run),
        origin="".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items()),
        links="".join(f'<li><a href="#{name}">{SECTIONS[name]}</a></li>' for name in parts),
        sections="\n".join(section(name, SECTIONS[name], part) for name, part in parts.items()),
        script=script,
    )


def _summary(contents: Contents) -> str:
    evaluation = contents.evaluation
    words, characters = evaluation.words, evaluation.characters(spaces=False)
    with_spaces = evaluation.characters(spaces=True)
    right = sum(result.words.edits == 0 for result in evaluation.results)
    seconds = sum(result.utterance.duration for result in evaluation.results)
    tiles = []
    for title, count, found, unit, more in (
        ("Word error rate", words, contents.words, "words", ""),
        (
            "Character error rate",
            characters,
            contents.characters,
            "characters",
            f"{percent(with_spaces.rate)} with spaces",
        ),
    ):
        if found is None:
            tiles.append(_tile(title, "–", f"no {unit} in the references; {count.insertions} recognised"))
            continue
        rows = f"{count.edits:,} errors in {count.reference_length:,} {unit}" + (f"; {more}" if more else "")
        kinds = f"{count.substitutions:,} substituted, {count.deletions:,} deleted, {count.insertions:,} inserted"
        tiles.append(
            _tile(title, percent(count.rate), _whisker(count.rate, found), f"95 %: {interval(found)}", rows, kinds)
        )
    left_out = f"; {evaluation.left_out} left out" if evaluation.left_out else ""
    tiles.append(
        _tile(
            "Utterances",
            f"{len(evaluation.results):,}",
            f"{right:,} without a word error{left_out}",
            _duration(seconds),
            f"loss {evaluation.loss:.2f} nats per utterance"
            + (f", {evaluation.unalignable:,} without one" if evaluation.unalignable else ""),
        )
    )
    return f'<div class="tiles">{"".join(tiles)}</div>\n{_method(contents)}'


def _method(contents: Contents) -> str:
    bootstrap = contents.bootstrap
    if bootstrap is None:
        return ""
    reason = (
        "Whole speakers are drawn, since the errors of a speaker go together."
        if bootstrap.unit == "speakers"
        else f"Utterances are drawn, since not every one of at least {MIN_SPEAKERS} speakers is known; errors of one "
        "speaker go together, so the intervals may be too narrow."
    )
    few = f" Of only {bootstrap.num_units} the intervals tend to be too narrow." if bootstrap.num_units < FEW else ""
    return f'<p class="note">Intervals: {bootstrap}, {NUM_RESAMPLES:,} resamples, the middle 95 %. {reason}{few}</p>'


def _tile(title: str, value: str, *lines: str) -> str:
    shown = "".join(line if line.startswith("<") else f"<p>{text(line)}</p>" for line in lines)
    return f'<div class="tile"><h3>{text(title)}</h3><p class="value">{text(value)}</p>{shown}</div>'


def _whisker(rate: float, found: Interval, low: float = 0.0, high: float | None = None) -> str:
    """A rate and its interval on a line from `low` to `high`; a rate from 0 where they are not given."""
    high = max(found.high * 1.2, 1e-9) if high is None else high

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    width = f"{100 * (found.high - found.low) / (high - low):.2f}%"
    zero = f'<span class="zero" style="left:{at(0)}"></span>' if low < 0 else ""
    return (
        f'<div class="whisker" aria-hidden="true">{zero}<span class="range" style="left:{at(found.low)};width:{width}">'
        f'</span><span class="point" style="left:{at(rate)}"></span></div>'
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} minutes of audio" if minutes < 120 else f"{minutes / 60:.1f} hours of audio"


def _comparison(contents: Contents) -> str:
    comparison = contents.comparison
    if comparison is None:
        return ""
    tiles = [
        _tile("This run", percent(comparison.rate), contents.origin.run),
        _tile("Compared with", percent(comparison.other_rate), comparison.against),
        _tile(
            "Difference",
            f"{comparison.difference * 100:+.2f} points".replace("-", "−"),
            _signed_whisker(comparison),
            f"95 %: {interval(comparison.interval)}".replace(" %", " points").replace("95 points", "95 %"),
            verdict(comparison),
        ),
    ]
    return (
        f'<div class="tiles">{"".join(tiles)}</div>\n<p class="note">Paired {contents.bootstrap}: each resample draws '
        f"the same ones for both. This run has the lower word error rate in {comparison.lower:.1%} of "
        f"{NUM_RESAMPLES:,} resamples, the same in {comparison.equal:.1%}, the higher in {comparison.higher:.1%}. "
        f"One-sided p-value of the hypothesis that it is not the better one: {comparison.p_value:.4f}.</p>"
    )


def _signed_whisker(comparison: Comparison) -> str:
    reach = 1.2 * max(abs(comparison.interval.low), abs(comparison.interval.high), 1e-9)
    return _whisker(comparison.difference, comparison.interval, -reach, reach)


def verdict(comparison: Comparison) -> str:
    """What the interval of the difference says, in words."""
    if comparison.interval.high < 0:
        return "This run is better: the interval lies below 0."
    if comparison.interval.low > 0:
        return "This run is worse: the interval lies above 0."
    return "Not decided: the interval holds 0."


def _groups(groups: Sequence[Group], column: str, caption: str, most: int | None) -> str:
    if not groups:
        return ""
    shown = groups[:most]
    largest = max(group.words.rate for group in shown)
    rows = [
        (
            Cell.name(group.name),
            Cell.rate(group.words.rate, largest),
            *map(Cell.number, (group.words.edits, group.words.reference_length)),
            Cell(percent(group.characters.rate), group.characters.rate),
            Cell.number(group.utterances),
            Cell(f"{group.seconds / 60:.1f}", group.seconds),
        )
        for group in shown
    ]
    note = "" if len(shown) == len(groups) else f"The worst {len(shown)} of {len(groups)}; report.json has all."
    columns = (column, "WER", "Errors", "Words", "CER", "Utterances", "Minutes")
    return table(caption, columns, rows, f"Of few words a rate says little: look at the counts. {note}".strip())


def _confusions(contents: Contents) -> str:
    found = contents.confusions
    tables = [
        _confusion_table("Most substituted", ("Said", "Recognised", "Times", "Of"), found["substitution"]),
        _confusion_table("Most deleted", ("Said", "Times", "Of"), found["deletion"]),
        _confusion_table("Most inserted", ("Recognised", "Times", "Of"), found["insertion"]),
    ]
    note = (
        '<p class="note">Of: how often the word is said; of an inserted one, how often it is recognised. Words are set '
        "beside each other with the fewest edits, as the error rate counts them.</p>"
    )
    return f'<div class="columns">{"".join(tables)}</div>\n{note}'


def _confusion_table(caption: str, columns: Sequence[str], found: Sequence[Confusion]) -> str:
    if not found:
        return f'<p class="note">{caption}: none.</p>'
    shown = found[:SHOWN_CONFUSIONS]
    rows = []
    for each in shown:
        names = [Cell.name(word) for word in (each.reference, each.hypothesis) if word]
        count = Cell(f"{each.times:,}", each.times, each.times / shown[0].times)
        rows.append([*names, count, Cell.number(each.occurrences)])
    note = "" if len(shown) == len(found) else f"The first {len(shown)} of {len(found)}; report.json has all."
    return f"<div>{table(caption, columns, rows, note)}</div>"


def _utterances(utterances: Sequence[str]) -> str:
    if not utterances:
        return '<p class="note">No utterance was evaluated.</p>'
    legend = """\
<div class="legend">
<p>Most word errors first. The words: reference above, what was recognised below;
<b class="substitution">S</b> substituted, <b class="deletion">D</b> deleted, <b class="insertion">I</b> inserted.</p>
<p>Over time, under the spectrogram: bars above the line are the letter that the model itself writes in a frame and its
probability, bars below it the likeliest letter that it does not write; where neither is, it is sure of blank.
Two blues tell neighbouring letters apart; grey is “␣”, which ends a word.
The reference stands where the model would most probably put it.
Choose a recognised word to hear it, or any place in the spectrogram to go there.</p>
</div>
"""
    return legend + "\n".join(utterances)

"""Whether confidences are what they say: the reliability diagram and its numbers."""

from collections.abc import Sequence

from ds2_jax.evaluation.reliability import Bin, Reliability
from ds2_jax.evaluation.report.markup import Cell, percent, table, text

SIDE, MARGIN, COUNTS = 240, 34, 46
"""Pixels of the drawing: the square of the diagram, what its labels take, and the height of the counts below it."""


def calibration(reliability: Reliability | None, bins: Sequence[Bin]) -> str:
    """The section's content; "" where no word was recognised."""
    if reliability is None:
        return ""
    area = reliability.area_under_curve
    facts = {
        "Expected calibration error": (
            f"{reliability.calibration_error:.3f}",
            "mean distance between confidence and share right; 0 is perfect",
        ),
        "Area under the curve": (
            "undefined" if area is None else f"{area:.3f}",
            "chance that a right word has a higher confidence than a wrong one; 0.5 is guessing",
        ),
        "Base rate": (
            percent(reliability.base_rate),
            f"of the {reliability.count:,} recognised words are right",
        ),
    }
    listed = "".join(
        f'<div class="tile"><h3>{name}</h3><p class="value">{value}</p><p>{text(about)}</p></div>'
        for name, (value, about) in facts.items()
    )
    rows = [
        (
            Cell(f"{each.low:.1f}–{each.high:.1f}", f"{each.low:.1f}"),
            Cell.number(each.count),
            Cell(percent(each.confidence), each.confidence),
            Cell(percent(each.accuracy), each.accuracy),
        )
        for each in bins
    ]
    columns = ("Confidence", "Words", "Mean confidence", "Right")
    return (
        f'<div class="reliability"><figure>{_diagram(bins)}<figcaption>Recognised words by confidence: bars show the '
        "share that is right, dots the mean confidence; on the diagonal both agree. Below, how many words there are."
        f'</figcaption></figure>\n<div><div class="tiles">{listed}</div>\n{table("Words by confidence", columns, rows)}'
        "</div></div>"
    )


def _diagram(bins: Sequence[Bin]) -> str:
    width, height = SIDE + MARGIN + 12, SIDE + COUNTS + MARGIN + 16
    most = max(each.count for each in bins)

    def x(value: float) -> float:
        return MARGIN + value * SIDE

    def y(value: float) -> float:
        return 8 + (1 - value) * SIDE

    marks = [f'<rect class="frame" x="{MARGIN}" y="8" width="{SIDE}" height="{SIDE}"/>']
    floor = 8 + SIDE + 8 + COUNTS
    for each in bins:
        left, bar = x(each.low) + 2, SIDE * (each.high - each.low) - 4
        share, count = each.accuracy * SIDE, each.count / most * COUNTS
        about = f"{each.low:.1f} to {each.high:.1f}: {each.count} words, {each.accuracy:.1%} right"
        marks += [
            f'<rect class="accuracy" x="{left:.1f}" y="{y(each.accuracy):.1f}" width="{bar:.1f}" height="{share:.1f}">'
            f"<title>{about}</title></rect>",
            f'<rect class="count" x="{left:.1f}" y="{floor - count:.1f}" width="{bar:.1f}" height="{count:.1f}">'
            f"<title>{about}</title></rect>",
        ]
    marks.append(f'<line class="diagonal" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    marks += [f'<circle cx="{x(each.confidence):.1f}" cy="{y(each.accuracy):.1f}" r="4"/>' for each in bins]
    marks.append(f'<line class="floor" x1="{MARGIN}" x2="{MARGIN + SIDE}" y1="{floor}" y2="{floor}"/>')
    for tenth in (0, 5, 10):
        value = tenth / 10
        marks.append(f'<text x="{x(value)}" y="{floor + 16}" text-anchor="middle">{value:g}</text>')
        marks.append(f'<text x="{MARGIN - 6}" y="{y(value) + 4}" text-anchor="end">{value:g}</text>')
    marks.append(f'<text x="{x(0.5)}" y="{floor + 32}" text-anchor="middle">confidence</text>')
    said = "; ".join(f"{each.low:.1f} to {each.high:.1f}: {each.accuracy:.0%} of {each.count} right" for each in bins)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Reliability diagram. {said}">\n' + "\n".join(marks) + "\n</svg>"
    )

"""Pieces of HTML that all sections share; what comes from a manifest or a file name goes through `text`."""

import dataclasses
import html
from collections.abc import Sequence

from ds2_jax.evaluation.report.bootstrap import Interval


def text(value: object) -> str:
    """A value as text of HTML, or of a quoted attribute."""
    return html.escape(str(value))


def words(value: str) -> str:
    """Words of a transcript; their own characters decide the direction of writing."""
    return f'<bdi class="words">{text(value)}</bdi>'


def percent(rate: float) -> str:
    """A fraction in per cent, with two decimals as error rates are given."""
    return f"{rate * 100:.2f} %".replace("-", "−")


def interval(values: Interval) -> str:
    """The ends of an interval of rates, in per cent."""
    return f"{percent(values.low)} to {percent(values.high)}"


def section(name: str, title: str, *parts: str) -> str:
    """A section with its heading; `name` is its address within the page."""
    return f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{text(title)}</h2>\n' + (
        "\n".join(filter(None, parts)) + "\n</section>"
    )


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        shown: HTML.
        value: what the column is sorted by.
        share: in [0, 1], drawn as a bar behind the number; None: no bar.
    """

    shown: str
    value: float | str
    share: float | None = None

    @classmethod
    def number(cls, value: int) -> "Cell":
        """A count, its thousands set apart."""
        return cls(f"{value:,}".replace(",", "\u202f"), value)

    @classmethod
    def rate(cls, value: float, largest: float) -> "Cell":
        """A rate, and a bar that shows it beside the `largest` of its column."""
        return cls(percent(value), value, value / largest if largest else 0.0)

    @classmethod
    def name(cls, value: str) -> "Cell":
        """A name or a word."""
        return cls(words(value), value)


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str = "") -> str:
    """A table whose columns sort it; a row is headed by its first cell.

    Args:
        caption: its title.
        columns: their titles.
        rows: at least one.
        note: set below.
    """
    kinds = ["number" if isinstance(cell.value, int | float) else "name" for cell in rows[0]]
    head = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{text(column)}</button></th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(_cell(cell, kind, index == 0) for index, (cell, kind) in enumerate(zip(row, kinds, strict=True)))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroller" role="region" tabindex="0" aria-label="{text(caption)}"><table class="sortable">'
        f"<caption>{text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
        + (f'<p class="note">{text(note)}</p>' if note else "")
    )


def _cell(cell: Cell, kind: str, heads: bool) -> str:
    tag, scope = ("th", ' scope="row"') if heads else ("td", "")
    bar = "" if cell.share is None else f'<span class="bar" style="width:{cell.share * 100:.1f}%"></span>'
    return f'<{tag}{scope} class="{kind}" data-value="{text(cell.value)}">{bar}<span>{cell.shown}</span></{tag}>'

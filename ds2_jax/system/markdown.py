"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Makes the lines of a Markdown table."""
    return [f"| {' | '.join(map(_escape, cells))} |" for cells in (header, ["---"] * len(header), *rows)]


def _escape(cell: str) -> str:
    return cell.replace("|", r"\|")

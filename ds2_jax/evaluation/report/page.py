"""Writes the report as one HTML page that needs no network and no other file.

The templates escape every value, so that text from manifests, transcripts and file names is never read as HTML.
"""

import base64
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2

from ds2_jax.evaluation.report.bootstrap import MIN_SPEAKERS, NUM_RESAMPLES
from ds2_jax.evaluation.report.contents import Contents
from ds2_jax.evaluation.report.shown import ShownUtterance

LIMITS = {
    "FEW": 30,  # with fewer units, the page warns that intervals are too narrow
    "MIN_SPEAKERS": MIN_SPEAKERS,
    "NUM_RESAMPLES": NUM_RESAMPLES,
    "SHOWN_CONFUSIONS": 20,  # rows of a table; report.json has all
    "SHOWN_READINGS": 5,
    "SHOWN_SPEAKERS": 100,
}


def page(contents: Contents, utterances: Sequence[ShownUtterance]) -> str:
    """Writes the page.

    Args:
        contents: the contents of the report.
        utterances: the worst utterances, the worst first.
    """
    sections = {
        "summary": "Summary",
        "comparison": "Comparison" if contents.comparison else "",
        "speakers": "By speaker" if contents.speakers else "",
        "lengths": "By length" if contents.lengths else "",
        "words": "Confused words",
        "calibration": "Confidence" if contents.reliability else "",
        "utterances": "Worst utterances",
    }
    return (
        environment()
        .get_template("page.html")
        .render(
            contents=contents,
            utterances=utterances,
            sections={name: heading for name, heading in sections.items() if heading},
            title=Path(contents.origin.title).name or contents.origin.title,
        )
    )


@functools.cache
def environment() -> jinja2.Environment:
    """Loads the templates, with autoescape; an undefined name is an error."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"percent": percent, "points": points, "thousands": "{:,}".format}
    script = templates.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    templates.globals |= {**LIMITS, "script_digest": digest}
    return templates


def percent(rate: float) -> str:
    """Formats a fraction in per cent with two decimals."""
    return f"{rate * 100:.2f} %".replace("-", "−")


def points(difference: float) -> str:
    """Formats a difference of two fractions in percentage points, with its sign."""
    return f"{difference * 100:+.2f}".replace("-", "−")

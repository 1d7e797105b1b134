"""Helpers for tests of documented commands."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ds2_jax import cli


def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes commands parse their options and then do nothing."""
    parse = cli.parse

    def parsed(name: str, words: Sequence[str]) -> Callable[[], int | Path]:
        parse(name, words)
        return lambda: 0

    monkeypatch.setattr(cli, "parse", parsed)

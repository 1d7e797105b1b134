"""What the tests of documented commands share."""

from typing import Any

import pytest

from ds2_jax import cli


def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the commands that are functions parse their arguments and do nothing."""
    parse = cli._parse

    def parsed(*arguments: Any) -> Any:
        parse(*arguments)
        return lambda: 0

    monkeypatch.setattr(cli, "_parse", parsed)

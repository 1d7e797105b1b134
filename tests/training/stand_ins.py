"""Training that learns nothing, and a reader of the files that training writes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds2_jax.training import train as train_lib
from tests.small_runs import some_state


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written_test(run: Path) -> Path:
    """Finds the result of the test split, the only evaluation of a run."""
    [path] = (run / "evaluations").glob("*.json")
    return path


def without_time_of_writing(run: Path) -> dict[str, Any]:
    """Reads the result of the test split, but for the time at which it was written."""
    result: dict[str, Any] = json.loads(written_test(run).read_text())
    assert result["provenance"].pop("written")
    return result


def without_compiling(monkeypatch: pytest.MonkeyPatch, loss: float = 1.0) -> None:
    """Replaces the training step by one that learns nothing, and the first weights by others: neither is compiled."""

    def parallel_train_step(*_: Any) -> Callable[..., Any]:
        def step(state: Any, batch: dict[str, np.ndarray], _: Any, signal: int, __: Any) -> Any:
            samples = batch["num_samples"].sum()
            alignable = (batch["num_samples"] > 0).sum()
            counts = {
                "num_samples": samples,
                "alignable": alignable,
                "unalignable": 0,
                "empty": (batch["num_samples"] == 0).sum(),
            }
            metrics = {"loss": loss, "grad_norm": 1.0, **counts}
            new: dict[str, Any] = {"step": state.step + 1} if np.isfinite(loss) else {"stopped": True}
            return dataclasses.replace(state, **new), metrics, signal

        return step

    monkeypatch.setattr(train_lib, "parallel_train_step", parallel_train_step)
    monkeypatch.setattr(train_lib, "init_state", lambda config, *_: some_state(config))

"""A report of an untrained run, with hostile names and transcripts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ds2_jax import cli
from ds2_jax.config import Config, FeatureConfig
from ds2_jax.data.manifest import read_manifest, write_manifest
from tests.evaluation.report.document import Document
from tests.small_runs import RATE, SMALL_CONFIG, write_noise_manifest, write_untrained_run

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;"
TRANSCRIPTS = ("GO ON", "YES NO", "STOP", f"{HOSTILE} NOW", "ÉTÉ", "GO GO")


def with_test(config: Config, manifest: Path, sample_rate: int = RATE) -> Config:
    data = dataclasses.replace(config.data, test=manifest)
    return dataclasses.replace(config, data=data, features=FeatureConfig(sample_rate=sample_rate))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a run on noise by five speakers, with a hostile id, speaker and transcript, and another run."""
    folder = tmp_path_factory.mktemp("runs")
    path = write_noise_manifest(folder, TRANSCRIPTS, name="test")
    utterances = [
        dataclasses.replace(each, speaker=f"speaker{i % 5}", id=f"u{i}") for i, each in enumerate(read_manifest(path))
    ]
    utterances[3] = dataclasses.replace(utterances[3], id=f'"{HOSTILE}', speaker=f"'{HOSTILE}")
    write_manifest(path, utterances)
    write_untrained_run(folder / "run", with_test(SMALL_CONFIG, path))
    lower = dataclasses.replace(with_test(SMALL_CONFIG, path, 8000))
    alphabet = dataclasses.replace(lower.data, alphabet="' abcdefghijklmnopqrstuvwxyz")
    write_untrained_run(folder / "lower", dataclasses.replace(lower, data=alphabet))
    return folder


@pytest.fixture(scope="session")
def report(folder: Path) -> Path:
    """Makes the run's report, compared with a run of another sample rate and case, and gives its folder."""
    code = cli.main(
        ["evaluate", str(folder / "run"), "--report", str(folder / "report"), "--against", str(folder / "lower")]
    )
    assert code == 0
    return folder / "report"


@pytest.fixture(scope="session")
def numbers(report: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((report / "report.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def document(report: Path) -> Document:
    return Document((report / "index.html").read_text(encoding="utf-8"))

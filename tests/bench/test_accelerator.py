"""deploy/accelerator.sh: it needs few packages, and goes on past a part that fails."""

import re
import subprocess
import sys

import pytest

from ds2_jax.bench import accelerator
from ds2_jax.bench.size import Size
from tests.conftest import ROOT

TINY = (Size(1, 4, 2, 41),)
ALONE = """
import sys

class Without:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)

ABSENT = {"tensorflow", "tyro", "orbax", "soundfile", "soxr", "onnx", "onnxruntime", "tqdm", "rapidfuzz", "numba"}
sys.meta_path.insert(0, Without())
from ds2_jax.bench import accelerator
print(accelerator.row(accelerator.ON_CPU[0], [1.0], 2.0, 3.0))
import ds2_jax.model.update, ds2_jax.model.optimizer, ds2_jax.parallel.mesh, ds2_jax.training.memory
"""


def test_it_needs_few_packages() -> None:
    result = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_part_that_fails_is_told_and_the_others_follow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = accelerator.measure

    def measure(size: Size, dtype: accelerator.DType, parallel: accelerator.Parallel) -> str:
        if parallel == "shard_map" or dtype == "bfloat16":
            raise RuntimeError("no memory\nmore")
        return real(size, dtype, parallel)

    monkeypatch.setattr(accelerator, "ON_CPU", TINY)
    monkeypatch.setattr(accelerator, "PACKAGES", ("jax", "torch-that-is-not-there", "torch"))
    monkeypatch.setattr(accelerator, "_version", lambda name: "1" if name == "jax" else "")
    monkeypatch.setattr(accelerator, "measure", measure)
    monkeypatch.setattr(accelerator, "make_batch", lambda size, make=accelerator.make_batch: make(Size(1, 4, 8, 41)))
    assert accelerator.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("python 3.")
    rows = [line for line in lines if line.startswith("1 x 4, ")]
    assert [("failed: RuntimeError: no memory" in each) for each in rows] == [True, True, False, True]
    assert re.search(r"float32, pmap +\d+\.\d{4} +\d+ +\d+\.\d +\d+$", rows[2])


def test_parts_that_would_take_too_long_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accelerator, "SECONDS", -1.0)
    monkeypatch.setattr(accelerator, "ON_CPU", TINY)
    assert accelerator.main() == 0
    assert capsys.readouterr().out.count("left out: -1 s are over") >= 4

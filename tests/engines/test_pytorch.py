"""Reading PyTorch's files runs nothing, and takes no more memory than the file is long."""

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds2_jax.engines import pytorch
from ds2_jax.exchange.deepspeech_pytorch import translate
from ds2_jax.system.errors import InputError
from tests.exchange import hostile_checkpoints
from tests.exchange.checkpoints import Array, Call, Named, legacy, zipped

HOSTILE = hostile_checkpoints.all_of_them()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pth"
    path.write_bytes(HOSTILE[name])
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="must"):
            translate(pytorch.read(path), path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**24 + 8 * len(HOSTILE[name])
    assert time.process_time() - began < 10
    assert [each.name for each in tmp_path.iterdir()] == ["model.pth"], "something was run"


@pytest.mark.parametrize("write", [legacy, zipped])
def test_arrays_of_every_layout(write: Callable[[Any], bytes], tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32)
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    content = {
        "whole": Array(values.reshape(2, 3, 4)),
        "part": Call(rebuild, (("numbers", values), 5, (2, 3), (6, 2), False, None)),
        "transposed": Call(rebuild, (("numbers", values), 0, (4, 6), (1, 4), False, None)),
        "scalar": Array(np.array(7)),
        "empty": Array(np.zeros((0, 3), np.float32)),
        "none": Call(Named("torch", "Size"), ()),
    }
    path = tmp_path / "a.pth"
    path.write_bytes(write(content))
    read = pytorch.read(path)
    found = {name: read.array(tensor) for name, tensor in read.content.items()}
    assert found.pop("none") is None
    expected = {
        "whole": values.reshape(2, 3, 4),
        "part": values[5:].copy()[[[0, 2, 4], [6, 8, 10]]],
        "transposed": values.reshape(6, 4).T,
        "scalar": np.array(7),
        "empty": np.zeros((0, 3)),
    }
    for name, array in found.items():
        assert array is not None
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_names_are_never_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(zipped({"a": Call(Named("no.such.module", "Thing"), (1, 2), {"x": [3]})}))
    part = pytorch.read(path).content["a"]
    assert (pytorch.name_of(part), part.args, part.state) == ("Thing", (1, 2), {"x": [3]})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.pth must be a readable file, got: No such file"):
        pytorch.read(tmp_path / "no.pth")


@pytest.mark.parametrize("path", [Path(os.devnull), Path("/")])
def test_what_is_no_file_is_not_read(path: Path) -> None:
    with pytest.raises(InputError, match="must be a file on disk, got a folder, a pipe or a device"):
        pytorch.read(path)

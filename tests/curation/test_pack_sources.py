"""Sources of a pack: their names, and what is wrong with them."""

import re
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.curation.pack import pack
from ds2_jax.system.errors import InputError
from tests.tfds_sets import prepare


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_range_of_beam_is_that_of_the_extra() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'beam = ["apache-beam>=2.73,<3"]' in project


def test_a_damaged_tfrecord_is_named(tmp_path: Path) -> None:
    rows = [{"speech": np.ones(1600, np.int16), "text": "GO", "speaker_id": 1, "chapter_id": 0, "id": "u"}]
    folder = prepare(tmp_path, {"train": rows}, file_format="tfrecord")
    [shard] = folder.glob("*.tfrecord-*")
    shard.write_bytes(shard.read_bytes()[:-10])
    message = rf"^tfds:{re.escape(str(folder))}#train\[0\] must be readable, got: .*\. Prepare or pack the set again\.$"
    with pytest.raises(InputError, match=message):
        pack((f"tfds:{folder}#train",), str(tmp_path / "pack"))


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((), "SOURCE must be a manifest or tfds:NAME#SPLIT, got none. See data pack --help."),
        (
            ("dev-clean.jsonl",),
            "The name of a split must begin with a letter (A-Z, a-z) and have only letters, digits and _, got "
            "'dev-clean'. Write another name before the source: SPLIT=dev-clean.jsonl.",
        ),
        (
            ("tfds:x#train[:5%]",),
            "The name of a split must begin with a letter (A-Z, a-z) and have only letters, digits and _, got "
            "'train[:5%]'. Write another name before the source: SPLIT='tfds:x#train[:5%]'.",
        ),
        (
            ("a/dev.jsonl", "b/dev.jsonl"),
            "The name of a split must differ from the other splits' names, got 'dev'. Write another name before the "
            "source: SPLIT=b/dev.jsonl.",
        ),
        (
            ("all.jsonl",),
            "The name of a split must differ from \"all\", which TFDS reserves, got 'all'. Write another name before "
            "the source: SPLIT=all.jsonl.",
        ),
        (("none.jsonl",), "none.jsonl must be a readable file, got: No such file or directory. Correct the path."),
    ],
)
def test_sources_and_their_names(sources: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pack(sources, str(tmp_path / "pack"))
    assert not (tmp_path / "pack").exists()

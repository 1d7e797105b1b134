"""Locations stay valid when a run is continued from another folder."""

from pathlib import Path

import pytest

from ds2_jax.config.places import DATASET_INFO, absolute, relative


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / DATASET_INFO).touch()
    return tmp_path


def test_paths_become_absolute(folder: Path) -> None:
    assert absolute(Path("data/train.jsonl")) == folder / "data/train.jsonl"
    assert absolute(folder / "train.jsonl") == folder / "train.jsonl"


def test_folders_of_data_sets_become_absolute(folder: Path) -> None:
    assert absolute(Path("tfds:speech#train[:10%]")) == Path(f"tfds:{folder}/speech#train[:10%]")


def test_paths_inside_a_folder_become_relative_to_it(folder: Path) -> None:
    for name in ("wav/a.wav", "tfds:speech#train[3]", "tfds:librispeech/en#train[3]"):
        assert relative(absolute(Path(name)), folder) == Path(name)
        assert absolute(Path(name), folder) == absolute(Path(name))
    for name in ("wav/a.wav", "tfds:speech#train[3]"):
        assert relative(absolute(Path(name)), folder / "else") == absolute(Path(name))


def test_names_of_published_data_sets_stay() -> None:
    assert absolute(Path("tfds:librispeech/en#train_clean100")) == Path("tfds:librispeech/en#train_clean100")

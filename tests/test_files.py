"""files.py: whole files or none."""

from pathlib import Path

import pytest

from ds2_jax.errors import InputError
from ds2_jax.files import write_text, writing


def test_text_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a/b.txt"
    for text in ("one\n", "été\n"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert list(path.parent.iterdir()) == [path]


def test_stop_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with pytest.raises(InputError) as caught, writing(path):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == (
        f"{path} must be writable, got: No space left on device. "
        "Make room or mend the permissions, then run the same command again."
    )

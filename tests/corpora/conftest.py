"""Fixtures that several tests of corpora use."""

from pathlib import Path

import pytest

from tests.corpora.voxforge_submissions import write_submission


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """Makes twelve submissions of ten speakers."""
    folder = tmp_path / "tgz"
    for user in "abcdefgh":
        write_submission(folder, f"{user}-20080101-xyz", audio="flac" if user < "c" else "wav")
    write_submission(folder, "A-20090101-xyz", user="A ")  # another case or a blank does not make another speaker
    write_submission(folder, "a-20090102-xyz")
    write_submission(folder, "anonymous-20090101-abc")
    write_submission(folder, "anonymous-20090101-abd", user="Anonymous")
    return folder

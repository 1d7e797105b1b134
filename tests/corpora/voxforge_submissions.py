"""Makes small submissions of VoxForge for the tests."""

import json
from pathlib import Path

from ds2_jax.data.manifest import read_manifest
from tests.speech import SENTENCES, recording, write_archive

SPLITS = ("train", "dev", "test")


def submission(name: str, user: str, audio: str = "wav") -> dict[str, bytes]:
    """Makes the files of a submission of two recordings."""
    prompts = "".join(f"{name}/mfc/b{i:04d} {sentence}\n" for i, sentence in enumerate(SENTENCES[:2]))
    files = {
        f"{name}/etc/PROMPTS": prompts.encode(),
        f"{name}/etc/prompts-original": b"b0000 Go left.\nb0001 Open the door.\n",
        f"{name}/etc/README": f"User Name:{user}\n\nSpeaker Characteristics:\n\nGender: Male\n".encode(),
        f"{name}/LICENSE": b"GPL\n",
    }
    for i, sentence in enumerate(SENTENCES[:2]):
        files[f"{name}/{audio}/b{i:04d}.{audio}"] = recording(sentence, audio.upper())
    return files


def write_submission(folder: Path, name: str, changes: dict[str, bytes | None] | None = None, **of: str) -> Path:
    """Makes a submission's archive with `changes` to the files at the given paths (None removes a file)."""
    files = submission(name, **{"user": name.split("-")[0], **of}) | {
        f"{name}/{path}": content for path, content in (changes or {}).items()
    }
    return write_archive(
        folder / f"{name}.tgz", {path: content for path, content in files.items() if content is not None}
    )


def rows_of(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Gives the (id, speaker) pairs of each split."""
    return {
        path.stem: [(row.id, row.speaker) for row in read_manifest(path)]
        for path in sorted(folder.glob("*.jsonl"))
        if path.stem in SPLITS
    }


def left_out(folder: Path) -> dict[str, str]:
    """Gives the reasons by id."""
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return {row["id"]: row["reason"] for row in map(json.loads, lines)}

"""Logs the utterances that turn out to be unusable when they are read, and lists them in a file of the run."""

import dataclasses
import json
import logging
from pathlib import Path

from ds2_jax.data.manifest import Problem
from ds2_jax.system.errors import NO_JSON, InputError, shorten
from ds2_jax.system.files import write_text, writing

logger = logging.getLogger(__package__)


class Skipped:
    """Names each utterance that turns out to be unusable once, in the log and in a file.

    Args:
        path: a JSON Lines file in the run folder; utterances that it lists already are not named again.

    Raises:
        InputError: a line of the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
        *whole, cut = text.split("\n")  # a killed run may leave the last line incomplete
        self._named = {self._key(line, number) for number, line in enumerate(whole, start=1)}
        if cut:
            write_text(path, "".join(f"{line}\n" for line in whole))

    def _key(self, line: str, number: int) -> tuple[str, str]:
        try:
            row = json.loads(line)
            audio = row["audio"]
            if not isinstance(audio, str):
                raise TypeError
        except (KeyError, TypeError, *NO_JSON) as error:
            rule = f"must be a JSON object with the key audio, got {shorten(repr(line))}"
            raise InputError(f"{self._path}, line {number} {rule}. Delete the line.") from error
        return str(row.get("id", "")), audio

    def __call__(self, problem: Problem) -> None:
        """Names an utterance, unless it was named before."""
        if (key := (problem.id, problem.audio)) in self._named:  # segments may share a file
            return
        self._named.add(key)
        logger.warning(f"left out: {problem.id} ({problem.reason}: {problem.detail})")
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(problem), ensure_ascii=False) + "\n")

"""Makes recordings of real speech with pauses, breaths, clicks and breaks, drawn by seed from AN4's utterances."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

RATE = 16_000
NUM_UTTERANCES = 120


def read_utterances(archive: Path) -> list[np.ndarray]:
    """Reads the first utterances of the AN4 archive, [S] float32 each, without the silence at both ends."""
    found: list[np.ndarray] = []
    with tarfile.open(archive) as members:
        for member in members:
            if len(found) == NUM_UTTERANCES:
                break
            if member.name.endswith(".sph"):
                stream = members.extractfile(member)
                assert stream is not None
                found.append(trimmed(np.frombuffer(stream.read()[1024:], "<i2") / np.float32(2**15)))
    return found


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Trims a waveform to the part between the first and the last 20 ms that are within 25 dB of the loudest."""
    power = np.square(samples[: len(samples) // 320 * 320]).reshape(-1, 320).mean(1)
    loud = np.flatnonzero(power > power.max() / 10**2.5)
    return samples[loud[0] * 320 : (loud[-1] + 1) * 320]


class Studio:
    """Makes recordings from utterances and the sounds between them.

    Args:
        utterances: utterances of `read_utterances`.
        seed: seed of all random draws.
    """

    def __init__(self, utterances: Sequence[np.ndarray], seed: int) -> None:
        self._utterances, self._rng = utterances, np.random.default_rng(seed)

    def speech(self) -> np.ndarray:
        """Draws an utterance."""
        return self._utterances[int(self._rng.integers(len(self._utterances)))]

    def room(self, shortest: float, longest: float, level: float = 1e-4) -> np.ndarray:
        """Draws steady noise; its length in seconds is drawn too."""
        size = int(self._rng.uniform(shortest, longest) * RATE)
        return (level * self._rng.normal(size=size)).astype(np.float32)

    def breath(self) -> np.ndarray:
        """Draws a part of an utterance, 0.2 to 0.7 s long, and makes it 20 to 40 dB softer."""
        utterance = self.speech()
        size = int(self._rng.uniform(0.2, 0.7) * RATE)
        start = self._rng.integers(max(1, len(utterance) - size))
        softer: np.ndarray = utterance[start : start + size] * np.float32(10 ** (-self._rng.uniform(1.0, 2.0)))
        return softer

    def click(self) -> np.ndarray:
        """Draws a loud sound of 40 to 160 ms."""
        return self.room(0.04, 0.16, 0.3)

    def pauses(self, count: int, shortest: float, longest: float, noise: float = 0.0) -> np.ndarray:
        """Makes a recording of utterances with pauses between them, and steady noise over everything."""
        parts = [part for _ in range(count) for part in (self.speech(), self.room(shortest, longest))]
        whole = np.concatenate(parts)
        return whole + (noise * self._rng.normal(size=len(whole))).astype(np.float32)

    def between(self, kind: str, count: int) -> np.ndarray:
        """Makes a recording of utterances with a breath or a click in the middle of every pause."""
        parts: list[np.ndarray] = []
        for _ in range(count):
            sound = self.breath() if kind == "breath" else self.click()
            pause = (0.7, 2.6) if kind == "breath" else (0.12, 0.5)
            parts += [self.speech(), self.room(*pause), sound, self.room(*pause)]
        return np.concatenate(parts)

    def after_a_break(self, seconds: float) -> np.ndarray:
        """Makes a recording of utterances before and after a break of noise with an occasional faint sound."""
        faint = [part for _ in range(int(seconds / 10)) for part in (self.room(9.5, 9.5), self.room(0.5, 0.5, 2e-3))]
        return np.concatenate([self.pauses(8, 0.3, 1.0), *faint, self.pauses(8, 0.3, 1.0)])


def recordings(utterances: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Makes the recordings by name, [S] float32 at 16 kHz."""
    long = Studio(utterances, 9).pauses(30, 0.1, 0.4)
    return {
        "long pauses": Studio(utterances, 0).pauses(40, 0.1, 3.0),
        "pauses in noise": Studio(utterances, 1).pauses(40, 0.1, 3.0, noise=3e-3),
        "short pauses": Studio(utterances, 2).pauses(60, 0.05, 0.6),
        "short pauses in noise": Studio(utterances, 3).pauses(60, 0.05, 1.0, noise=1e-2),
        "hardly a pause": Studio(utterances, 4).pauses(60, 0.08, 0.17),
        "less than a pause": Studio(utterances, 10).pauses(60, 0.04, 0.12),
        "breaths": Studio(utterances, 5).between("breath", 50),
        "clicks": Studio(utterances, 6).between("click", 60),
        "after a break of 290 s": Studio(utterances, 7).after_a_break(290),
        "after a break of 340 s": Studio(utterances, 8).after_a_break(340),
        "34.8 s": long[: int(34.8 * RATE)],
        "35.2 s": long[: int(35.2 * RATE)],
    }

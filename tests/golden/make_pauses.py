"""Stores the places at which `recognition.segments` cuts the recordings of pauses.py, in pauses.json.

    python -m tests.golden.make_pauses an4_sphere.tar.gz

Run it when you change the rules of cutting on purpose, and listen to the changed cuts.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ds2_jax.config import Config
from ds2_jax.recognition.segments import cut
from tests.golden.pauses import read_utterances, recordings


def cuts(waveform: np.ndarray) -> list[list[int]]:
    """Returns start and overlap in output frames, and the samples, of every piece of a recording."""
    pieces = cut(np.array_split(waveform, 50), Config())
    return [[piece.start, piece.overlap, len(piece.waveform)] for piece in pieces]


def main() -> None:
    """Writes pauses.json."""
    found = {name: cuts(each) for name, each in recordings(read_utterances(Path(sys.argv[1]))).items()}
    lines = (f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in found.items())
    Path(__file__).with_name("pauses.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

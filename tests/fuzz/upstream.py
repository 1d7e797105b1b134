"""Crashes inside the libraries that read files: the inputs, and what keeps users from them.

python -m tests.fuzz.upstream NAME      crashes
"""

import io
import sys
from collections.abc import Callable
from typing import NamedTuple

import soundfile

from tests.fuzz import seeds


class Crash(NamedTuple):
    """A way to end the process.

    Attributes:
        library: and its version.
        what: is called on which input.
        signal: that ends the process.
        protection: why this project's readers do not meet it.
        run: does it.
    """

    library: str
    what: str
    signal: int
    protection: str
    run: Callable[[], object]


def damaged_codebooks() -> bytes:
    """A Vorbis stream with one byte of its setup header changed, and the page's checksum right again."""
    data = bytearray(seeds.encode("OGG", "VORBIS"))
    data[205] ^= 0x80
    return seeds.mend_ogg(bytes(data))


CRASHES = {
    "vorbis-seek": Crash(
        "libsndfile 1.2.2, in soundfile 0.14.0",
        "sf_seek to a sample behind the first in a Vorbis stream with damaged codebooks",
        11,
        "audio.py decodes Ogg up to the place and does not seek",
        lambda: soundfile.SoundFile(io.BytesIO(damaged_codebooks())).seek(2000),
    )
}

if __name__ == "__main__":
    CRASHES[sys.argv[1]].run()

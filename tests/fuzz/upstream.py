"""Crashes inside the libraries that read files: the inputs, and the protection of users.

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
        library: name and version of the library.
        what: the call and its input.
        signal: signal that ends the process.
        protection: why this project's readers avoid the crash.
        run: makes the crash.
    """

    library: str
    what: str
    signal: int
    protection: str
    run: Callable[[], object]


def damaged_codebooks() -> bytes:
    """Makes a Vorbis stream with one changed byte in its setup header and a corrected checksum of the page."""
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

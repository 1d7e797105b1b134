"""espeak-ng speaks with one voice: the child process of `synthetic.py`, a script of the standard library alone.

The library keeps state between utterances that not even a new initialisation clears, so the same requests give the
same bytes only in a fresh process and a fixed order. On stdin: JSON with `library`, `data`, `voice` and `requests`
([text, rate, pitch] each). On stdout: a JSON line with `sample_rate` and `num_samples` (one count a request), then
the 16-bit samples, in the machine's byte order. An error is a line on stderr and exit status 1.

Source: espeak-ng 1.52, `speak_lib.h`.
"""

import ctypes
import json
import sys
from pathlib import Path

AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
RATE, VOLUME, PITCH = 1, 2, 3
POS_CHARACTER = 1
CHARS_UTF8 = 1

QUIET = 35
"""Volume, of 100: at 100 the library itself clips many voices, at 35 no voice of `synthetic.py` exceeds 0.5."""

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Engine:
    """The library, set to one voice.

    Args:
        library: path of the shared library.
        data: path of its folder `espeak-ng-data`.
        voice: `LANGUAGE` or `LANGUAGE+VARIANT`.

    Raises:
        SystemExit: the library does not start, or does not have the voice.
    """

    def __init__(self, library: str, data: str, voice: str) -> None:
        self._library = ctypes.CDLL(library)
        self._spoken = bytearray()
        self._callback = Callback(self._receive)  # kept here, or it would be collected while the library holds it
        self.sample_rate: int = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            sys.exit(f"espeak_Initialize returned {self.sample_rate}")
        self._library.espeak_SetSynthCallback(self._callback)
        # Breath is drawn noise, which the library itself seeds with the second on the clock.
        self._call("espeak_ng_SetRandSeed", ctypes.c_long(0))
        _, plus, variant = voice.partition("+")
        if plus and not (Path(data) / "voices" / "!v" / variant).is_file():
            sys.exit(f"no variant {variant!r}")  # the library would speak without it, and return 0
        self._call("espeak_SetVoiceByName", voice.encode())
        self._call("espeak_SetParameter", VOLUME, QUIET, 0)

    def speak(self, text: str, rate: int, pitch: int) -> bytes:
        """The 16-bit samples of `text`, at `rate` words per minute and `pitch` of 0 to 100."""
        self._spoken.clear()
        self._call("espeak_SetParameter", RATE, rate, 0)
        self._call("espeak_SetParameter", PITCH, pitch, 0)
        data = text.encode()
        size = ctypes.c_size_t(len(data) + 1)
        self._call("espeak_Synth", data, size, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        return bytes(self._spoken)

    def _receive(self, samples: int | None, num_samples: int, _events: int | None) -> int:
        if samples:
            self._spoken += ctypes.string_at(samples, 2 * num_samples)
        return 0  # go on

    def _call(self, function: str, *arguments: object) -> None:
        code = self._library[function](*arguments)
        if code != 0:
            sys.exit(f"{function} returned {code}")


def main() -> None:
    """Reads the requests, speaks them in their order and writes the answer."""
    job = json.load(sys.stdin)
    engine = Engine(job["library"], job["data"], job["voice"])
    spoken = [engine.speak(*request) for request in job["requests"]]
    header = {"sample_rate": engine.sample_rate, "num_samples": [len(samples) // 2 for samples in spoken]}
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + b"".join(spoken))


if __name__ == "__main__":
    main()

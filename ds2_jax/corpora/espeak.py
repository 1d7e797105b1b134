"""Makes espeak-ng speak with one voice. `synthetic.py` runs this script, which needs only the standard library.

The library keeps state between utterances that even a new initialisation does not clear. So the same requests give the
same bytes only in a new process and in a fixed order.

Standard input is JSON with `library`, `data`, `voice` and `requests`, a list of [text, rate, pitch]. Standard output is
a JSON line and then the 16-bit samples in the machine's byte order. The line has `sample_rate`, `num_samples` (a count
for each request) and `words` (the `word_spans` of each request). After an error, there is a line on standard error, and
the exit status is 1.

Source: espeak-ng 1.52, `speak_lib.h`.
"""

import ctypes
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS = 0x0001  # these events do not change the samples
INITIALIZE_DONT_EXIT = 0x8000
END_OF_EVENTS, WORD, PHONEME = 0, 1, 7
PAUSE = "_"
"""The first character in the names of phonemes that are pauses."""
FUSED = {"THE": ("D", "d")}
"""Words that espeak-ng may join with the previous one ("turn on the light") without giving their start, and the
phonemes with which they begin in all accents of `synthetic.py`."""
UNTOLD = -1
RATE, VOLUME, PITCH = 1, 2, 3
POS_CHARACTER = 1
CHARS_UTF8 = 1

QUIET = 35
"""Volume, at most 100. At 100 the library clips many voices; at 35 no voice of `synthetic.py` exceeds 0.5."""


class Event(ctypes.Structure):
    """`espeak_EVENT`."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("phoneme", ctypes.c_char * 8),  # a union; this is its member for phonemes
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Event))
Mark = tuple[int, int, int, str]
"""An event: kind, position in the text counted from 0, sample, phoneme."""


class Engine:
    """The library, set to one voice.

    Args:
        library: path of the shared library.
        data: path of its folder `espeak-ng-data`.
        voice: `LANGUAGE` or `LANGUAGE+VARIANT`.

    Raises:
        OSError: the library cannot be loaded.
        SystemExit: the library does not start, or does not have the voice.
    """

    def __init__(self, library: str, data: str, voice: str) -> None:
        self._library = ctypes.CDLL(library)
        self._spoken = bytearray()
        self._marks: list[Mark] = []
        self._callback = Callback(self._receive)  # keeps it alive: Python does not see that the library uses it
        self.sample_rate: int = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), INITIALIZE_DONT_EXIT | INITIALIZE_PHONEME_EVENTS
        )
        if self.sample_rate <= 0:
            sys.exit(f"espeak_Initialize returned {self.sample_rate}")
        self._library.espeak_SetSynthCallback(self._callback)
        # Breath is random noise, which the library would seed with the time.
        self._call("espeak_ng_SetRandSeed", ctypes.c_long(0))
        _, plus, variant = voice.partition("+")
        if plus and not (Path(data) / "voices" / "!v" / variant).is_file():
            sys.exit(f"no variant {variant!r}")  # the library would ignore it
        self._call("espeak_SetVoiceByName", voice.encode())
        self._call("espeak_SetParameter", VOLUME, QUIET, 0)

    def speak(self, text: str, rate: int, pitch: int) -> tuple[bytes, list[tuple[int, int]]]:
        """Speaks at `rate` words per minute and `pitch` 0 to 100; returns 16-bit samples and their `word_spans`."""
        self._spoken.clear()
        self._marks.clear()
        self._call("espeak_SetParameter", RATE, rate, 0)
        self._call("espeak_SetParameter", PITCH, pitch, 0)
        data = text.encode()
        size = ctypes.c_size_t(len(data) + 1)
        self._call("espeak_Synth", data, size, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        return bytes(self._spoken), word_spans(text, self._marks, len(self._spoken) // 2)

    def _receive(self, samples: int | None, num_samples: int, events: Sequence[Event]) -> int:
        if samples:
            self._spoken += ctypes.string_at(samples, 2 * num_samples)
        index = 0
        while (event := events[index]).kind != END_OF_EVENTS:
            phoneme = event.phoneme.decode(errors="replace") if event.kind == PHONEME else ""
            self._marks.append((event.kind, event.text_position - 1, event.sample, phoneme))
            index += 1
        return 0  # continue

    def _call(self, function: str, *arguments: object) -> None:
        code = self._library[function](*arguments)
        if code != 0:
            sys.exit(f"{function} returned {code}")


def word_spans(text: str, marks: Sequence[Mark], num_samples: int) -> list[tuple[int, int]]:
    """Finds when each word of `text` was spoken.

    Args:
        text: words and white space.
        marks: the library's events, in order.
        num_samples: the number of samples of the speech.

    Returns:
        For every word, its first sample and the sample after its last, where a pause or the next word begins. The list
        is empty if a start is unknown, because the library joined words that are not in `FUSED`.
    """
    told = {position: sample for kind, position, sample, _ in reversed(marks) if kind == WORD}
    words = [(word[0], told.get(word.start(), UNTOLD)) for word in re.finditer(r"\S+", text)]
    starts: list[int] = []
    limit = num_samples
    for word, start in reversed(words):
        if start == UNTOLD:
            phonemes = FUSED.get(word.upper(), ())
            start = max((sample for _, _, sample, name in marks if name in phonemes and sample < limit), default=limit)
        if start >= limit:
            return []
        starts.insert(0, start)
        limit = start
    pauses = [sample for _, _, sample, name in marks if name.startswith(PAUSE)]
    return [
        (start, min([limit, *(sample for sample in pauses if start < sample < limit)]))
        for start, limit in zip(starts, [*starts[1:], num_samples], strict=True)
    ]


def main() -> None:
    """Reads the requests, speaks them in order and writes the result."""
    job = json.load(sys.stdin)
    engine = Engine(job["library"], job["data"], job["voice"])
    spoken = [engine.speak(*request) for request in job["requests"]]
    header = {
        "sample_rate": engine.sample_rate,
        "num_samples": [len(samples) // 2 for samples, _ in spoken],
        "words": [words for _, words in spoken],
    }
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + b"".join(samples for samples, _ in spoken))


if __name__ == "__main__":
    main()

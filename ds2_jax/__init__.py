"""Deep Speech 2 in JAX and Flax: trains speech recognisers and recognises speech.

Three lines recognise speech. They print nothing, and raise `ds2_jax.InputError` for errors that you can correct:

    >>> import ds2_jax
    >>> recogniser = ds2_jax.load("runs/an4_cpu")
    >>> text = recogniser.transcribe("talk.wav").text

Axis letters, used in every docstring:
    B utterances, S samples, T input frames (10 ms), T' output frames (20 or 40 ms), F frequency bins,
    C channels, H hidden units, V labels with blank, N label positions, G gates of a recurrent cell.

Each public name is loaded when it is first used, so that `import ds2_jax.model` loads neither TensorFlow nor Orbax and
starts no backend. The package logs to the logger "ds2_jax".
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from ds2_jax.system.program import VERSION

if TYPE_CHECKING:
    from ds2_jax.decoding.hypothesis import Character, Hypothesis, Word
    from ds2_jax.recognition.endpoints import Endpoints
    from ds2_jax.recognition.recogniser import Recogniser, load
    from ds2_jax.recognition.streaming import FinalText, PartialText, Stream
    from ds2_jax.recognition.transcript import Segment, Transcript
    from ds2_jax.system.errors import InputError

__all__ = [
    "Character",
    "Endpoints",
    "FinalText",
    "Hypothesis",
    "InputError",
    "PartialText",
    "Recogniser",
    "Segment",
    "Stream",
    "Transcript",
    "Word",
    "__version__",
    "load",
]

_MODULES = {
    "Character": "decoding.hypothesis",
    "Endpoints": "recognition.endpoints",
    "FinalText": "recognition.streaming",
    "Hypothesis": "decoding.hypothesis",
    "InputError": "system.errors",
    "PartialText": "recognition.streaming",
    "Recogniser": "recognition.recogniser",
    "Segment": "recognition.transcript",
    "Stream": "recognition.streaming",
    "Transcript": "recognition.transcript",
    "Word": "decoding.hypothesis",
    "load": "recognition.recogniser",
}

__version__ = VERSION
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

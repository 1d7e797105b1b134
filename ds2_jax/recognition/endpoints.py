"""Settings that say when a segment of a stream ends."""

import dataclasses

from ds2_jax.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class Endpoints:
    """When a segment ends, in seconds. Source: the rules of Kaldi and sherpa."""

    no_speech: float = 5.0
    """A segment without text ends in the first pause of the signal after this, and is forgotten."""
    pause: float = 0.8
    """A segment with text ends after so long a pause of both the signal and the model's labels."""
    no_labels: float = 1.6
    """A segment with text ends when the model has written nothing for so long, even if the signal goes on."""
    longest: float = 20.0
    """A segment ends after this."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not (value := getattr(self, field.name)) > 0:
                raise InputError(f"{field.name} must be a positive number of seconds, got {value}. Correct it.")


ENDPOINTS = Endpoints()
"""The defaults."""

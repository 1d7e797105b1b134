"""Interim."""

from typing import NamedTuple

import numpy as np


class Partial(NamedTuple):
    final: str
    open: str


class StreamDecoder:
    def __init__(self, decoder):
        self._d = decoder
        self._parts = []
        self.trailing_blanks = 0
        self.has_text = False

    def read(self, log_probs):
        self._parts.append(np.array(log_probs))
        for l in log_probs.argmax(1).tolist():
            self.trailing_blanks = 0 if l else self.trailing_blanks + 1
            self.has_text |= bool(l)

    def partial(self):
        lp = np.concatenate(self._parts) if self._parts else np.zeros((0, self._d._alphabet.size), np.float32)
        t = self._d(lp)[0].text
        return Partial(t, "")

    def finish(self, duration=None):
        lp = np.concatenate(self._parts) if self._parts else np.zeros((0, self._d._alphabet.size), np.float32)
        return self._d(lp, duration)

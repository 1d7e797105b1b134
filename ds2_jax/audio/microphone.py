"""Hears a microphone through PortAudio (the package sounddevice)."""

import contextlib
import logging
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

BLOCK_SECONDS = 0.04
SECONDS_AHEAD = 60.0
"""If the text is so far behind the speech, the device loses samples, which is told."""
SECONDS_OF_SILENCE = 5.0
"""A microphone that gives no samples for so long has been unplugged, or its driver has stopped."""


class Microphone:
    """A microphone that is open.

    Args:
        device: number or part of the name of a device; None for the system's.
        sample_rate: sample rate of the model in Hz. The device's own is used if it does not have it.

    Attributes:
        name: the device.
        sample_rate: of `blocks`, in Hz.

    Raises:
        InputError: sounddevice or PortAudio is not installed, or there is no such device, or it cannot be opened.
    """

    def __init__(self, device: str | None, sample_rate: int) -> None:
        self._library = _sounddevice()
        self._blocks: queue.Queue[np.ndarray] = queue.Queue(round(SECONDS_AHEAD / BLOCK_SECONDS))
        self._lost, self._closed = 0, False
        key = int(device) if device is not None and device.isdecimal() else device
        try:
            about = self._library.query_devices(key, "input")
            self.name = str(about["name"])
            self.sample_rate = sample_rate
            try:
                self._library.check_input_settings(device=key, channels=1, samplerate=sample_rate, dtype="float32")
            except self._library.PortAudioError:
                self.sample_rate = int(about["default_samplerate"])
            self._stream = self._library.InputStream(
                device=key,
                channels=1,
                samplerate=self.sample_rate,
                dtype="float32",
                blocksize=round(BLOCK_SECONDS * self.sample_rate),
                callback=self._heard,
            )
            self._stream.start()
        except (self._library.PortAudioError, ValueError) as error:
            got = device if device is not None else "the system's"
            raise InputError(
                f"--device must be a microphone, got {got}: {error}. The devices: {self._devices()}."
            ) from error

    def _devices(self) -> str:
        inputs = [each for each in self._library.query_devices() if each["max_input_channels"] > 0]
        return ", ".join(f"{each['index']}: {each['name']}" for each in inputs) or "none"

    def _heard(self, samples: np.ndarray, _: int, __: Any, status: Any) -> None:
        self._lost += bool(status.input_overflow)
        block = samples[:, 0].copy()
        while not self._closed:  # PortAudio waits for this function when the device is closed
            with contextlib.suppress(queue.Full):
                self._blocks.put(block, timeout=0.1)
                return

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields [S] float32 as it is heard, without end.

        Raises:
            InputError: the device gives no samples any more.
        """
        while True:
            try:
                yield self._blocks.get(timeout=SECONDS_OF_SILENCE)
            except queue.Empty:
                advice = "Connect it again and repeat the command."
                raise InputError(
                    f"{self.name} must give samples, got none for {SECONDS_OF_SILENCE:.0f} s. {advice}"
                ) from None

    def close(self) -> None:
        """Closes the device. Logs how often it lost samples, because the text was too far behind the speech."""
        self._closed = True
        self._stream.close(ignore_errors=True)
        if self._lost:
            logger.warning(
                f"{self.name}: samples were lost {self._lost:,} times. Use a smaller model, or stop other work."
            )


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        advice = "Install it: pip install sounddevice."
        raise InputError(f"A microphone needs the package sounddevice, got: {error}. {advice}") from None
    except OSError as error:  # PortAudio is missing
        advice = "Install it, on Debian: apt-get install libportaudio2."
        raise InputError(f"A microphone needs PortAudio, got: {error}. {advice}") from None
    return sounddevice

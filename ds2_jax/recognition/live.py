"""Runs the command `live`: shows what is said while it is said."""

import itertools
import logging
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds2_jax.audio.microphone import Microphone
from ds2_jax.audio.pcm import SampleFormat, read_pcm
from ds2_jax.audio.reading import read_blocks
from ds2_jax.audio.timeline import Timeline
from ds2_jax.config import Config
from ds2_jax.config.live import describe
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.endpoints import Endpoints
from ds2_jax.recognition.formats import LiveFormat, LiveWriter
from ds2_jax.recognition.inputs import STANDARD_INPUT
from ds2_jax.recognition.outputs import open_stdout
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import Event, FinalText, PartialText
from ds2_jax.recognition.transcript import in_file
from ds2_jax.system import interrupts
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

BLOCKS_AHEAD = 256
REALTIME_BLOCK = 0.04  # seconds
ERASE, DIM, PLAIN = "\r\x1b[K", "\x1b[2m", "\x1b[0m"  # ANSI


class Source(NamedTuple):
    """Where samples come from.

    Attributes:
        name: for the user.
        sample_rate: in Hz.
        blocks: the samples, as they come.
        timeline: maps seconds of sound to times of the file.
        close: ends it.
    """

    name: str
    sample_rate: int
    blocks: Iterator[np.ndarray]
    timeline: Timeline
    close: Callable[[], None] = lambda: None


def live(
    run: Path,
    audio: Path | None,
    output_format: LiveFormat,
    device: str | None,
    sample_rate: int | None,
    sample_format: SampleFormat,
    realtime: bool,
    endpoints: Endpoints,
    decoding: DecodingOptions,
    engine: EngineName | None = None,
) -> int:
    """Recognises a microphone, a pipe or a file while it is heard. Returns 0, after Ctrl-C too.

    Args:
        run: a run or an exported model.
        audio: a file, or STANDARD_INPUT; None for a microphone.
        output_format: what is written when a segment has ended.
        device: the microphone; None for the system's.
        sample_rate: rate of samples without a header on standard input, in Hz.
        sample_format: their coding.
        realtime: whether to read a file at the speed of speech.
        endpoints: when a segment ends.
        decoding: the decoding options.
        engine: what runs the model; see `recogniser.load`.

    Raises:
        InputError: the run or the audio cannot be read, or a microphone cannot be opened or gives no samples any more.
            What was said before is written first.
    """
    piped = audio == STANDARD_INPUT
    require(audio is None or device is None, "--device", "be used without AUDIO", device, "Leave out one.")
    require(piped or sample_rate is None, "--sample-rate", "be used with AUDIO -", sample_rate, "Leave it out.")
    require(not realtime or not (audio is None or piped), "--realtime", "be used with a file", True, "Leave it out.")
    recogniser = Recogniser(run, decoding, engine)
    config = recogniser.config
    source = _open(audio, device, sample_rate, sample_format, realtime, config)
    open_stdout()
    stream = recogniser.stream(source.sample_rate, endpoints)
    logger.info(f"hearing {source.name}; {describe(config)}")
    screen = Screen(output_format, source.timeline)
    error: InputError | None = None
    stopped: interrupts.Stopped | None = None
    started, computing = time.perf_counter(), 0.0
    try:
        with interrupts.deferred(lambda: "", task="finishing the last words"):
            try:
                for block in _ahead(source.blocks):
                    began = time.perf_counter()
                    screen.show(stream.feed(block))
                    computing += time.perf_counter() - began
            except InputError as failed:  # a microphone that is gone, or a damaged file
                error = failed
            screen.show(stream.finish())
    except interrupts.Stopped as signalled:
        stopped = signalled
    finally:
        source.close()
    screen.close(source.timeline.end_time(stream.seconds))
    seconds, elapsed = stream.seconds, time.perf_counter() - started
    factor = f" (real-time factor {computing / seconds:.3f})" if seconds else ""
    logger.info(f"{seconds:.1f} s of audio in {elapsed:.1f} s, computing for {computing:.1f} s{factor}")
    if error is not None:
        raise error
    if stopped is not None and stopped.number != signal.SIGINT:
        raise stopped
    return 0


def _open(
    audio: Path | None,
    device: str | None,
    sample_rate: int | None,
    sample_format: SampleFormat,
    realtime: bool,
    config: Config,
) -> Source:
    rate = config.features.sample_rate
    if audio is None:
        microphone = Microphone(device, rate)
        return Source(microphone.name, microphone.sample_rate, microphone.blocks(), Timeline(), microphone.close)
    if audio == STANDARD_INPUT:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("AUDIO - must be samples on standard input, got none. Pipe them in, or leave - out.")
        pcm = read_pcm(sys.stdin.buffer, sample_rate, sample_format)
        return Source("standard input", pcm.sample_rate, pcm.blocks, Timeline())
    timeline = Timeline()
    rest = read_blocks(audio, rate, timeline)
    blocks = itertools.chain(list(itertools.islice(rest, 1)), rest)  # tells at once if it is no audio
    return Source(str(audio), rate, _at_speed_of_speech(blocks, rate) if realtime else blocks, timeline)


def _at_speed_of_speech(blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    started, num_samples = time.monotonic(), 0
    for block in blocks:
        for part in np.array_split(block, max(1, round(len(block) / rate / REALTIME_BLOCK))):
            num_samples += len(part)
            time.sleep(max(0.0, started + num_samples / rate - time.monotonic()))
            yield part


def _ahead(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Reads blocks in another thread, so that a signal is heeded while none come. Ends after a signal."""
    waiting: queue.Queue[np.ndarray | Exception | None] = queue.Queue(BLOCKS_AHEAD)

    def read() -> None:
        try:
            for block in blocks:
                waiting.put(block)
            waiting.put(None)
        except Exception as error:
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    while not interrupts.requested():
        try:
            block = waiting.get(timeout=0.1)
        except queue.Empty:
            continue
        if isinstance(block, Exception):
            raise block
        if block is None:
            return
        yield block


class Screen:
    """Shows texts: as plain text on a terminal as they come, with what may change dimmed; else segment by segment."""

    def __init__(self, output_format: LiveFormat, timeline: Timeline) -> None:
        self._writer, self._timeline = LiveWriter(output_format), timeline
        self._interactive = output_format == "txt" and sys.stdout.isatty()
        sys.stdout.write(self._writer.head)

    def show(self, events: list[Event]) -> None:
        """Shows what is new."""
        for event in events:
            if isinstance(event, FinalText):
                sys.stdout.write(
                    (ERASE if self._interactive else "") + self._writer.segment(in_file(event.segment, self._timeline))
                )
            elif self._interactive:
                sys.stdout.write(ERASE + _on_one_line(event))
        if events:
            sys.stdout.flush()

    def close(self, seconds: float) -> None:
        """Writes what is left, after so many seconds of the stream."""
        sys.stdout.write(self._writer.rest(seconds))
        sys.stdout.flush()


def _on_one_line(event: PartialText) -> str:
    """Cuts the front of a text that is longer than the terminal is wide."""
    width = shutil.get_terminal_size().columns - 1
    over = max(0, len(event.final) + len(event.open) - width)
    final, open_ = event.final[over:], event.open[max(0, over - len(event.final)) :]
    return f"{final}{DIM}{open_}{PLAIN}"

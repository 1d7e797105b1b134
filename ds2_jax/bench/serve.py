"""Measures a server with many clients, beside transcribing the same recordings without one."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from ds2_jax.audio import made_speech
from ds2_jax.bench.child import Child
from ds2_jax.bench.clients import Server, count_streams, seconds_of_request, start_server
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.inputs import find_audio
from ds2_jax.system.interrupts import temporary_folder
from ds2_jax.system.markdown import table

logger = logging.getLogger(__package__)

NUM_FILES, FILE_SECONDS = 16, 3.0
"""The recordings that are made if none are given."""
IDLE_REQUESTS = 100
"""Requests one at a time."""


class Load(NamedTuple):
    """What the clients do; see `bench_serve`."""

    clients: int
    requests: int
    runs: int
    streams: bool


@dataclasses.dataclass
class Result:
    """What was measured. Latencies are the 50th, 95th and 99th percentile, in seconds.

    Attributes:
        ready_seconds: from the start of the server until it could be used.
        requests_per_second: with all clients at once.
        audio_per_second: seconds of audio a second, with all clients at once.
        transcribe_per_second: the same of `transcribe`, after its start.
        idle_latency: of one request at a time.
        loaded_latency: of a request, with all clients at once.
        streams: live streams that got their text in real time; None if not measured.
        streams_latency: of their answers.
    """

    ready_seconds: float
    requests_per_second: float
    audio_per_second: float
    transcribe_per_second: float
    idle_latency: list[float]
    loaded_latency: list[float]
    streams: int | None
    streams_latency: list[float] | None

    @property
    def ratio(self) -> float:
        """The server's throughput over that of `transcribe`."""
        return self.audio_per_second / self.transcribe_per_second


def measure_server(run: Path, engine: EngineName | None, audio: Sequence[Path], load: Load) -> Result:
    """Starts a server and measures it.

    Raises:
        InputError: the model or a recording cannot be read, or the server fails.
    """
    with temporary_folder() as folder, contextlib.ExitStack() as stack:
        files = link_files(folder / "audio", audio)
        transcriber = stack.enter_context(Child("ds2_jax.bench.latency"))
        transcriber.ask("load", run=str(run), engine=engine or "onnx")
        server = stack.enter_context(start_server(run, engine, folder / "log"))
        seconds = sum(server.seconds_of(file) for file in files) / len(files)  # also warms it
        transcriber.ask("transcribe", folder=str(folder / "audio"))
        idle = [seconds_of_request(server, file) for file in itertools.islice(itertools.cycle(files), IDLE_REQUESTS)]
        alone, served, latencies = [], [], []
        for index in range(load.runs):
            logger.info(f"{load.clients} clients, run {index + 1} of {load.runs}")
            alone.append(transcriber.ask("transcribe", folder=str(folder / "audio"))["seconds"])
            took, own = send_all(server, files, load)
            served.append(took)
            latencies += own
        streams, streams_latency = count_streams(server) if load.streams else (None, None)
    took = statistics.median(served)
    return Result(
        server.ready_seconds,
        load.requests / took,
        load.requests * seconds / took,
        len(files) * seconds / statistics.median(alone),
        percentiles(idle),
        percentiles(latencies),
        streams,
        None if streams_latency is None else percentiles(streams_latency),
    )


def link_files(folder: Path, audio: Sequence[Path]) -> list[Path]:
    """Makes a folder with links to recordings, or with made ones if there are none."""
    folder.mkdir()
    if not audio:
        for index in range(NUM_FILES):
            samples = made_speech.utterance(FILE_SECONDS, seed=index)
            soundfile.write(folder / f"{index:04d}.wav", samples, made_speech.SAMPLE_RATE, subtype="PCM_16")
    for index, path in enumerate(each.path for each in find_audio(audio)) if audio else ():
        (folder / f"{index:04d}{path.suffix}").symlink_to(path.resolve())
    return sorted(folder.iterdir())


def send_all(server: Server, files: Sequence[Path], load: Load) -> tuple[float, list[float]]:
    """Lets all clients send recordings; returns the seconds of all together, and of each request."""
    turns: Iterator[Path] = itertools.islice(itertools.cycle(files), load.requests)
    shares = [list(each) for each in np.array_split(np.array(list(turns), object), load.clients)]
    with concurrent.futures.ThreadPoolExecutor(load.clients) as pool:
        started = time.perf_counter()
        found = pool.map(lambda share: [seconds_of_request(server, file) for file in share], shares)
        latencies = [each for share in found for each in share]
        return time.perf_counter() - started, latencies


def percentiles(seconds: Sequence[float]) -> list[float]:
    """Returns the 50th, 95th and 99th percentile."""
    return [round(float(each), 4) for each in np.percentile(seconds, (50, 95, 99))]


def print_result(result: Result, *, as_json: bool) -> None:
    """Prints a table, or JSON."""
    if as_json:
        content: dict[str, Any] = dataclasses.asdict(result) | {"ratio": result.ratio}
        print(json.dumps(content, indent=2))
        return

    def milliseconds(latency: Sequence[float]) -> str:
        return " / ".join(f"{1000 * each:.0f}" for each in latency) + " ms (p50 / p95 / p99)"

    rows = [
        ("ready after its start", f"{result.ready_seconds:.1f} s"),
        ("requests a second", f"{result.requests_per_second:.1f}"),
        ("seconds of audio a second", f"{result.audio_per_second:.0f}"),
        ("the same of `transcribe`", f"{result.transcribe_per_second:.0f} (ratio {result.ratio:.2f})"),
        ("latency, one request at a time", milliseconds(result.idle_latency)),
        ("latency, all clients at once", milliseconds(result.loaded_latency)),
    ]
    if result.streams is not None and result.streams_latency is not None:
        rows += [
            ("live streams in real time", f"{result.streams}"),
            ("latency of their answers", milliseconds(result.streams_latency)),
        ]
    print("\n".join(table(("server", "measured"), rows)))

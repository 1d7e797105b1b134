"""Starts a server, and speaks to it as its clients do."""

import asyncio
import contextlib
import http.client
import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ds2_jax.audio import made_speech
from ds2_jax.engines.engine import EngineName
from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

BOUNDARY = "ds2-jax-bench"
STREAMS_AT_ONCE = (10, 20, 40, 60, 80, 100, 150, 200, 300)
CHUNK_SECONDS, STREAM_SECONDS = 0.25, 8.0
IN_TIME = 0.5
"""Seconds. Streams are in real time if 99 % of the answers come within it."""
START_SECONDS = 300.0


class Server:
    """A server that runs.

    Args:
        port: where it listens.
        ready_seconds: from its start until it could be used.
    """

    def __init__(self, port: int, ready_seconds: float) -> None:
        self.port, self.ready_seconds = port, ready_seconds
        self._of_thread = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._bodies: dict[Path, bytes] = {}

    def seconds_of(self, file: Path) -> float:
        """Recognises a recording; returns its length in seconds."""
        self._bodies[file] = _form(file)
        seconds: float = self.post(file)["usage"]["seconds"]
        return seconds

    def post(self, file: Path) -> dict[str, Any]:
        """Sends a recording that `seconds_of` has read, over a connection of this thread.

        Raises:
            InputError: the server does not recognise it.
        """
        if not hasattr(self._of_thread, "connection"):
            self._of_thread.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
            self._connections.append(self._of_thread.connection)
        connection = self._of_thread.connection
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        connection.request("POST", "/v1/audio/transcriptions", self._bodies[file], headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise InputError(f"The server must recognise {file}, got {response.status}: {content[:500]!r}.")
        answer: dict[str, Any] = json.loads(content)
        return answer

    def close(self) -> None:
        """Closes the connections of all threads, which must have ended their requests."""
        for connection in self._connections:
            connection.close()


def seconds_of_request(server: Server, file: Path) -> float:
    """Measures a request."""
    started = time.perf_counter()
    server.post(file)
    return time.perf_counter() - started


def _form(file: Path) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a{file.suffix}"\r\n\r\n'
    return head.encode() + file.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def start_server(run: Path, engine: EngineName | None, log: Path) -> Iterator[Server]:
    """Runs `serve` in a process of its own.

    Raises:
        InputError: it does not start.
    """
    words = [sys.executable, "-m", "ds2_jax", "serve", str(run), "--port", "0"]
    words += ["--max-streams", "1000", "--max-requests", "1000"]
    words += ["--engine", engine] if engine else []
    with log.open("wb") as file:
        started = time.perf_counter()
        process = subprocess.Popen(words, stderr=file, cwd=Path(__file__).resolve().parents[2])
    try:
        while not (found := re.search(r"ready after .* http://127\.0\.0\.1:(\d+)/", log.read_text())):
            if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                raise InputError(f"serve must start, got:\n{log.read_text()}")
            time.sleep(0.01)
        with contextlib.closing(Server(int(found[1]), time.perf_counter() - started)) as server:
            yield server
    finally:
        process.terminate()
        process.wait()


def count_streams(server: Server) -> tuple[int, list[float]]:
    """Finds how many live streams get their text in real time.

    Returns:
        The number, and the seconds that each of their answers took.
    """
    best: tuple[int, list[float]] = (0, [0.0])
    for number in STREAMS_AT_ONCE:
        logger.info(f"{number} live streams")
        latencies = asyncio.run(_streams(server.port, number))
        if np.percentile(latencies, 99) > IN_TIME:
            break
        best = number, latencies
    return best


async def _streams(port: int, number: int) -> list[float]:
    samples = made_speech.utterance(STREAM_SECONDS, seed=0)
    content = np.round(samples * (2**15 - 1)).astype("<i2").tobytes()
    streams = (_stream(port, content, index / number * CHUNK_SECONDS) for index in range(number))
    return [each for own in await asyncio.gather(*streams) for each in own]


async def _stream(port: int, content: bytes, wait: float) -> list[float]:
    """Sends samples at the speed of speech; returns the seconds until each answer."""
    from websockets.asyncio.client import connect

    size = round(CHUNK_SECONDS * made_speech.SAMPLE_RATE) * 2
    sent: list[float] = []
    latencies: list[float] = []
    async with connect(f"ws://127.0.0.1:{port}/vosk", compression=None, ping_interval=None) as socket:
        await socket.send(json.dumps({"config": {"sample_rate": made_speech.SAMPLE_RATE}}))

        async def hear() -> None:
            for _ in range(0, len(content), size):
                await socket.recv()
                latencies.append(time.perf_counter() - sent[len(latencies)])

        hearing = asyncio.create_task(hear())
        await asyncio.sleep(wait)
        started = time.perf_counter()
        for index in range(0, len(content), size):
            await asyncio.sleep(started + index // size * CHUNK_SECONDS - time.perf_counter())
            sent.append(time.perf_counter())
            await socket.send(content[index : index + size])
        await hearing
        await socket.send('{"eof" : 1}')
        await socket.recv()
    return latencies

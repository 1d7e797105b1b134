"""`make soak-serve`: many clients use a server for an hour, some of them badly. Every answer must be right.

The server runs in a process of its own, on this machine alone. Recordings of 1 s to 10 min, live streams, and clients
that go away, are slow or say nothing come at once. Each text is compared with that of `transcribe`. Memory, open files
and threads must not grow after the first minute. At the end SIGTERM comes under load: what has begun is finished.
Findings are printed.
"""

import concurrent.futures
import dataclasses
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import requests
import soundfile
import tyro
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import FinalText
from tests.serving.servers import LIVE_CONFIG, talk, talkative
from tests.small_runs import RATE, SMALL_CONFIG
from tests.soak import measure

ROOT = Path(__file__).resolve().parent.parent
SECONDS = (1, 2, 3, 3, 3, 5, 10, 30, 120, 600)
"""Lengths of the recordings."""
MAX_REQUESTS = 48
"""Fewer than there are clients, so that the queue is full at times."""
SETTLED_SECONDS = 60.0
SHARES = {"file": 0.6, "stream": 0.25, "gone": 0.1, "silent": 0.05}
"""How often a client does what."""
MOST_GROWTH = 1.1


@dataclasses.dataclass(frozen=True)
class Soak:
    """Uses a server with many clients."""

    folder: Path = Path("runs/soak-serve")
    """Folder for the models, the recordings and the log of the server."""
    minutes: float = 60.0
    """Length of the test."""
    clients: int = 64
    """Clients at once."""
    seed: int = 0


class Clients:
    """The clients of a server.

    Attributes:
        counts: what happened how often.
        problems: what should not have happened.
    """

    def __init__(self, port: int, texts: dict[tuple[str, Path], str], streams: dict[Path, list[str]]) -> None:
        self.port, self.texts, self.stream_texts = port, texts, streams
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.stopping = threading.Event()
        self.url = f"http://127.0.0.1:{port}"

    def run(self, seed: int) -> None:
        """Is one client until the test is over."""
        draw = random.Random(seed)
        while not self.stopping.is_set():
            kind = draw.choices(list(SHARES), list(SHARES.values()))[0]
            try:
                getattr(self, kind)(draw)
            except (requests.RequestException, WebSocketException, OSError, TimeoutError) as error:
                if not self.stopping.is_set():
                    self.problems.append(f"{kind}: {error!r}")

    def file(self, draw: random.Random) -> None:
        """Sends a recording and compares its text."""
        model, path = draw.choice(list(self.texts))
        with path.open("rb") as content:
            answer = requests.post(
                f"{self.url}/v1/audio/transcriptions", data={"model": model}, files={"file": content}, timeout=600
            )
        self.counts[f"file {answer.status_code}"] += 1
        if answer.status_code == 429:
            time.sleep(float(answer.headers["retry-after"]))
        elif answer.status_code == 503 and self.stopping.is_set():
            return
        elif answer.status_code != 200 or answer.json()["text"] != self.texts[model, path]:
            self.problems.append(f"{model} {path.name}: {answer.status_code} {answer.text[:200]}")

    def stream(self, draw: random.Random) -> None:
        """Speaks for some seconds, faster than in real time, and compares the text."""
        path = draw.choice(list(self.stream_texts))
        samples, _ = soundfile.read(path, dtype="int16")
        found = []
        with connect(f"ws://127.0.0.1:{self.port}/vosk", ping_interval=None) as client:
            client.send(json.dumps({"config": {"sample_rate": RATE, "model": "live"}}))
            for part in np.array_split(samples, max(1, len(samples) // 4000)):
                client.send(part.astype("<i2").tobytes())
                found.append(json.loads(client.recv(timeout=120)).get("text", ""))
                time.sleep(0.02)
            client.send('{"eof" : 1}')
            found.append(json.loads(client.recv(timeout=120))["text"])
        self.counts["stream"] += 1
        if (text := " ".join(filter(None, found))) != " ".join(self.stream_texts[path]):
            self.problems.append(f"stream {path.name}: {text[:200]}")

    def gone(self, draw: random.Random) -> None:
        """Goes away in mid-upload or mid-stream."""
        if draw.random() < 0.5:
            head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n"
            head += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            with socket.create_connection(("127.0.0.1", self.port)) as client:
                client.sendall(head + b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
                client.sendall(bytes(draw.randrange(80_000)))
        else:
            stream = connect(f"ws://127.0.0.1:{self.port}/vosk", ping_interval=None)
            stream.send(bytes(8000))
            stream.socket.close()
        self.counts["gone"] += 1
        time.sleep(0.1)

    def silent(self, draw: random.Random) -> None:
        """Connects and says little, for a while."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(b"POST /v1/audio/tr"[: draw.randrange(18)])
            self.stopping.wait(draw.uniform(1, 20))
        self.counts["silent"] += 1


def prepare(folder: Path) -> tuple[dict[tuple[str, Path], str], dict[Path, list[str]], list[str]]:
    """Makes models and recordings, and finds their texts without a server."""
    models = {}
    for name, config in (("whole", SMALL_CONFIG), ("live", LIVE_CONFIG)):
        run = folder / name
        models[name] = Recogniser(run) if run.exists() else talkative(run, config)
    paths = []
    for index, seconds in enumerate(SECONDS):
        paths.append(folder / f"{index}-{seconds}s.wav")
        if not paths[-1].exists():
            soundfile.write(paths[-1], talk(seconds, index), RATE)
    texts = {(name, path): model.transcribe(path).text for name, model in models.items() for path in paths}
    streams = {}
    for path in paths[:7]:
        samples, _ = soundfile.read(path, dtype="int16")
        stream = models["live"].stream(RATE)
        events = stream.feed(samples) + stream.finish()
        streams[path] = [event.text for event in events if isinstance(event, FinalText) and event.text]
    return texts, streams, [f"--model={name}={folder / name}" for name in models]


def main() -> int:
    """Runs the test. The exit code is 1 if it finds a fault."""
    soak = tyro.cli(Soak, description=__doc__)
    soak.folder.mkdir(parents=True, exist_ok=True)
    texts, streams, models = prepare(soak.folder)
    words = [sys.executable, "main.py", "serve", *models, "--port=0", f"--max-requests={MAX_REQUESTS}"]
    places = soak.folder / "places"
    places.mkdir(exist_ok=True)
    with (soak.folder / "serve.err").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--engine=onnx", "--idle-seconds=10"],
            cwd=ROOT,
            stderr=log,
            env=os.environ | {"TMPDIR": str(places.resolve())},
        )
    try:
        said = soak.folder / "serve.err"
        while not (found := re.search(r"ready after .*http://127\.0\.0\.1:(\d+)/", said.read_text())):
            assert process.poll() is None, said.read_text()
            time.sleep(0.1)
        clients = Clients(int(found[1]), texts, streams)
        samples = use(soak, clients, process.pid)
        code = process.wait(timeout=120)
    finally:
        process.kill()
    problems = clients.problems + problems_of(samples, code, said.read_text(errors="replace"))
    problems += [f"left: {path}" for path in places.glob("*/*")]
    print(dict(clients.counts), *problems[:20], f"{len(problems)} problems", sep="\n")
    return 1 if problems else 0


def use(soak: Soak, clients: Clients, pid: int) -> list[dict[str, float]]:
    """Lets the clients work and measures the server every 5 s, then sends SIGTERM under load."""
    samples, started = [], time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(soak.clients) as pool:
        working = [pool.submit(clients.run, soak.seed * 1000 + index) for index in range(soak.clients)]
        try:
            while (seconds := time.monotonic() - started) < 60 * soak.minutes:
                time.sleep(5)
                samples.append({"seconds": seconds, **measure(pid)})
                if int(seconds / 60) != int((seconds - 5) / 60):
                    print(f"{seconds / 60:.0f} min, {samples[-1]}, {len(clients.problems)} problems", flush=True)
        finally:
            clients.stopping.set()
            os.kill(pid, signal.SIGTERM)
        for each in working:
            each.result()
    return samples


def problems_of(samples: list[dict[str, float]], code: int, said: str) -> list[str]:
    """Lists what is wrong with the process."""
    problems = [] if code == 128 + signal.SIGTERM else [f"exit code {code}"]
    problems += ["a traceback"] if "Traceback" in said else []
    settled = [each for each in samples if each["seconds"] > SETTLED_SECONDS]
    if len(settled) >= 12:
        third = len(settled) // 3
        for name in ("mib", "threads"):
            first, last = (
                float(np.median([each[name] for each in part])) for part in (settled[:third], settled[-third:])
            )
            print(f"{name}: {first:.0f} -> {last:.0f}")
            problems += [f"{name} grew: {first:.0f} -> {last:.0f}"] if last > MOST_GROWTH * first else []
    return problems


if __name__ == "__main__":
    sys.exit(main())

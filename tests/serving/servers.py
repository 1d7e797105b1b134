"""Servers for tests: a real one on a free port of this process, and recordings of different lengths."""

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import requests
import soundfile
import soxr
import uvicorn

from ds2_jax.config import Config
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.app import make_app
from ds2_jax.serving.options import DEFAULTS, LOG, Limits, Log, Network
from ds2_jax.serving.server import Server, server_config
from ds2_jax.serving.service import Service
from tests.small_runs import RATE, SMALL_CONFIG, some_state, write_untrained_run

FREE_PORT = Network(port=0)
LIVE_CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    features=dataclasses.replace(SMALL_CONFIG.features, normalisation="running"),
    model=dataclasses.replace(SMALL_CONFIG.model, bidirectional=False, lookahead_context=3),
)


def talkative(folder: Path, config: Config, pause_label: int = 0, seed: int = 2) -> Recogniser:
    """Makes an untrained model that writes another text for each `talk`. The label is exchanged with blank."""
    state = some_state(config, seed=seed)
    params = jax.tree.map(lambda leaf: 8 * leaf, state.params)
    order = list(range(params["head"].shape[1]))
    order[0], order[pause_label] = pause_label, 0
    params["head"] = params["head"][:, order]
    return Recogniser(write_untrained_run(folder, config, dataclasses.replace(state, params=params)))


def talk(seconds: float, seed: int) -> np.ndarray:
    """Makes tones of 0.2 s, with a pause of a second after every four, [S] float32."""
    generator = np.random.default_rng(seed)
    time_ = np.arange(RATE // 5) / RATE
    tones = [
        generator.uniform(0.02, 0.5) * np.sin(2 * np.pi * generator.uniform(100, 7000) * time_)
        + 0.01 * generator.standard_normal(len(time_))
        for _ in range(-(-round(seconds * RATE) // len(time_)))
    ]
    samples = np.concatenate(tones)[: round(seconds * RATE)].astype(np.float32)
    for start in range(4, int(seconds), 5):
        samples[start * RATE : (start + 1) * RATE] = 0
    return samples


def write_talk(path: Path, seconds: float, seed: int, sample_rate: int = RATE) -> Path:
    """Writes such noise as a WAV file."""
    soundfile.write(path, soxr.resample(talk(seconds, seed), RATE, sample_rate), sample_rate)
    return path


class Running:
    """A server that runs.

    Attributes:
        url: its address.
        port: its port.
        service: its service.
    """

    def __init__(self, service: Service, port: int) -> None:
        self.service, self.port = service, port
        self.url = f"http://127.0.0.1:{port}"

    def post(self, path: Path, to: str = "/v1/audio/transcriptions", **fields: object) -> requests.Response:
        """Sends a recording; "_" at the end of a field's name stands for "[]"."""
        data = {f"{name[:-1]}[]" if name.endswith("_") else name: value for name, value in fields.items()}
        with path.open("rb") as file:
            return requests.post(self.url + to, data=data, files={"file": (path.name, file)}, timeout=60)

    def wait_until_idle(self) -> None:
        """Waits until no request is left, and checks that nothing else is."""
        deadline = time.monotonic() + 10
        while self.service.num_requests or self.service.num_streams or self.service.thread.num_waiting:
            assert time.monotonic() < deadline, "something is left"
            time.sleep(0.01)
        assert list(self.service.folder.iterdir()) == []


@contextlib.contextmanager
def running(
    models: Mapping[str, Recogniser],
    folder: Path,
    limits: Limits = DEFAULTS,
    keys: Sequence[str] = (),
    hosts: Sequence[str] = (),
    network: Network = FREE_PORT,
    log: Log = LOG,
) -> Iterator[Running]:
    """Runs a server in a thread."""
    folder.mkdir(exist_ok=True)
    service = Service(models, folder, limits)
    server = Server(
        server_config(make_app(service, keys, hosts, network.allow_origin, log), "127.0.0.1", network, limits)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield Running(service, _port(server))
    finally:
        server.should_exit = True
        thread.join()
        service.close()


def _port(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port

"""The command `bench serve`. It checks the options before it imports anything slow."""

from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.engines.engine import EngineName
from ds2_jax.system.checks import require

ENGINE = tyro.conf.arg(help_behavior_hint="(default: jax if JAX can use an accelerator, otherwise onnx)")


def bench_serve(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    audio: tuple[Path, ...] = (),
    clients: int = 16,
    requests: int = 200,
    runs: int = 3,
    streams: bool = True,
    engine: Annotated[EngineName | None, ENGINE] = None,
    json: bool = False,
) -> int:
    """Measure a server: its start, requests and audio a second, latency, and live streams at once in real time.

    Beside it, the same recordings are transcribed without a server. The clients run on the same cores.

    Args:
        run: Folder of a training run, or a folder or file that export wrote.
        audio: Recordings that the clients send. By default 16 of made speech, of 3 s each.
        clients: Clients that send recordings at once, each the next one when it has its answer.
        requests: Requests of all clients in a timed run.
        runs: Timed runs of the server and of transcribing, in turn. The median is reported.
        streams: Also find how many live streams the server keeps up with.
        engine: What runs the model.
        json: Print JSON instead of a table.
    """
    for name, value in (("--clients", clients), ("--requests", requests), ("--runs", runs)):
        require(value >= 1, name, "be at least 1", value)
    from ds2_jax.bench.serve import Load, measure_server, print_result

    print_result(measure_server(run, engine, audio, Load(clients, requests, runs, streams)), as_json=json)
    return 0

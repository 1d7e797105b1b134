"""Measures: starts both sides (this project and its peer), asks them in turn, and makes a row for each measurement."""

import dataclasses
import importlib.util
import logging
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

from ds2_jax.bench import costs
from ds2_jax.bench.child import Child
from ds2_jax.bench.options import Forward, Options, parse_size
from ds2_jax.bench.size import Size
from ds2_jax.engines.engine import EngineName
from ds2_jax.system.interrupts import temporary_folder
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)

OURS, PEER, LIVE_PEER = "ds2_jax.bench.work", "ds2_jax.bench.peer", "ds2_jax.bench.live_peer"
PEER_ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}
"""Settings of glibc for PyTorch only. They keep freed memory, in large pages. The gradient of PyTorch's packed LSTMs
allocates an array of all frames at each frame: a step of 5 x 1024 took 43 s without these settings and 20 s with
them."""
PRODUCT_SIDE = 4096
"""Rows and columns of the matrices (64 MiB each) whose product shows the speed of the machine."""
UTTERANCE_FRAMES = 501
"""Frames of an utterance of 5 s."""
STREAMS_AT_ONCE = (1, 8, 16, 64, 256)
STREAMS_OF_PEER = 8
"""Streams at once of both sides, beside a single one."""
LIVE_SECONDS, LIVE_WARM_UP = 16.0, 0.64
"""Seconds of a stream that are timed, and that compile before."""
FOLDER_SECONDS = [1.5, 14.8, 3.1, 7.4, 5.6, 2.2, 11.9, 9.3, 4.4, 12.7, 6.5, 8.1]
"""Durations of the files in the folder that is transcribed."""


@dataclasses.dataclass
class Row:
    """A measurement. Seconds are medians, memory is in MiB. None means "does not apply" or "no peer".

    Attributes:
        work: name of the measurement.
        seconds: seconds of this project.
        peer_seconds: seconds of PyTorch.
        gigaflops: 10^9 operations on valid frames per second, counted by `costs.py`. Both sides do the same operations.
        peer_gigaflops: the same for the peer.
        compile_seconds: seconds of compilation in a new process with an empty cache. For transcribe, both compilation
            times are the additional seconds of the first answer.
        cached_compile_seconds: seconds of compilation in a new process with the program in the cache.
        peak_mib: largest resident memory of a process that does nothing else, with its program from the cache.
        peer_peak_mib: the same for the peer.
        runs: number of timed runs.
        times: seconds of each run.
        peer_times: the same for the peer.
        remarks: other findings, in words.
        values: the numbers in the remarks.
    """

    work: str
    seconds: float
    peer_seconds: float | None = None
    gigaflops: float | None = None
    peer_gigaflops: float | None = None
    compile_seconds: float | None = None
    cached_compile_seconds: float | None = None
    peak_mib: float | None = None
    peer_peak_mib: float | None = None
    runs: int = 0
    times: list[float] = dataclasses.field(default_factory=list)
    peer_times: list[float] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The peer's seconds over ours. Larger is better."""
        return None if self.peer_seconds is None else self.peer_seconds / self.seconds


@dataclasses.dataclass
class Machine:
    """The sides' descriptions of themselves, and their best matrix products so far (Gflop/s)."""

    ours: str = ""
    peer: str = "PyTorch not installed"
    product: float = 0.0
    peer_product: float = 0.0

    @property
    def best_product(self) -> float:
        """The best product of both sides."""
        return max(self.product, self.peer_product)


@contextmanager
def compilation_cache() -> Iterator[dict[str, str | None]]:
    """Yields the environment of processes that share a new compilation cache. It overrides the user's settings."""
    with temporary_folder() as folder:
        yield {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": str(folder),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }


def has_peer() -> bool:
    """Whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


def steps_to_measure(options: Options, kind: Literal["train", "forward"]) -> list[tuple[str, Size, Forward]]:
    """Lists the names, sizes and engines of the rows of train or forward."""
    sizes = [parse_size(text, options.batch_size, options.frames) for text in options.sizes]
    if kind == "train":
        return [(f"train {size}", size, "jax") for size in sizes]
    sizes.append(dataclasses.replace(sizes[0], batch_size=1, num_frames=UTTERANCE_FRAMES))
    return [(f"forward {size}, {engine}", size, engine) for size in sizes for engine in get_args(Forward)]


def measure_step(
    kind: Literal["train", "forward"], name: str, size: Size, engine: Forward, options: Options, machine: Machine
) -> Row:
    """Measures a training step or forward pass. Both sides run in turn, after one run of each to warm up."""
    logger.info(f"measuring {name}")
    row = Row(name, 0.0, runs=options.runs)
    with ExitStack() as stack:
        environment = stack.enter_context(compilation_cache())
        inputs = str(stack.enter_context(temporary_folder()) / "inputs.npz")
        with Child(OURS, environment) as cold:
            cold.ask("load", kind=kind, size=size.to_json(), engine=engine)
            row.values["first_process"] = cold.ask("compile")
            cold.ask("write_inputs", path=inputs)
        ours = stack.enter_context(Child(OURS, environment))
        ours.ask("load", kind=kind, size=size.to_json(), engine=engine)
        row.values["second_process"] = ours.ask("compile")
        ours.timed("run")
        peer = None
        if options.peer and has_peer():
            peer = stack.enter_context(Child(PEER, PEER_ALLOCATOR))
            peer.ask("load", kind=kind, size=size.to_json(), inputs=inputs)
            peer.timed("run")
        for _ in range(options.runs):
            row.times.append(ours.timed("run"))
            if peer:
                row.peer_times.append(peer.timed("run"))
        row.peak_mib = ours.ask("peak_memory")
        machine.ours = ours.ask("describe")
        machine.product = max(machine.product, ours.ask("matrix_product", side=PRODUCT_SIDE))
        if peer:
            row.peer_peak_mib = peer.ask("peak_memory")
            machine.peer = peer.ask("describe")
            machine.peer_product = max(machine.peer_product, peer.ask("matrix_product", side=PRODUCT_SIDE))
    flops = useful_flops(kind, size)
    row.compile_seconds = row.values["first_process"]["seconds"]
    row.cached_compile_seconds = row.values["second_process"]["seconds"]
    row.seconds = statistics.median(row.times)
    row.gigaflops = flops / row.seconds / 1e9
    if row.peer_times:
        row.peer_seconds = statistics.median(row.peer_times)
        row.peer_gigaflops = flops / row.peer_seconds / 1e9
    return row


def measure_product(machine: Machine) -> float:
    """Measures this project's matrix product, for when no other measurement has done so."""
    with Child(OURS) as ours:
        machine.ours = ours.ask("describe")
        machine.product = ours.ask("matrix_product", side=PRODUCT_SIDE)
    return machine.product


def arrays_memory(size: Size) -> float:
    """Compiles a training step, without running it, and returns the MiB of its arrays."""
    logger.info(f"compiling train {size}")
    with Child(OURS) as ours:
        ours.ask("load", kind="train", size=size.to_json())
        ours.ask("compile")
        return float(ours.ask("arrays_memory"))


def useful_flops(kind: Literal["train", "forward"], size: Size) -> float:
    """Counts the operations on the valid frames of a batch."""
    count = costs.train_flops if kind == "train" else costs.forward_flops
    return count(size.config, Alphabet(size.config.data.alphabet).size, size.frames_of_rows)


def measure_live(name: str, size: Size | None, engine: EngineName, options: Options) -> Row:
    """Measures recognising streams that come in chunks: one, and more at once. Both sides run in turn."""
    logger.info(f"measuring {name}")
    row = Row(name, 0.0, runs=options.runs)
    factors: dict[int, list[float]] = {}
    of_peer: dict[int, list[float]] = {}
    rounds: list[float] = []
    sent = None if size is None else size.to_json()
    with ExitStack() as stack:
        ours = stack.enter_context(Child("ds2_jax.bench.live_child"))
        ours.ask("load", size=sent, engine=engine)

        def run(num_streams: int) -> None:
            found = ours.timed("run", num_streams=num_streams, seconds=LIVE_SECONDS)
            factors.setdefault(num_streams, []).append(found["seconds"] / found["audio_seconds"])
            if num_streams == 1:
                rounds.extend(found["rounds"])

        for num_streams in STREAMS_AT_ONCE:
            ours.ask("run", num_streams=num_streams, seconds=LIVE_WARM_UP)
            run(num_streams)
            if factors[num_streams][0] > 1:  # more would not run in real time
                break
        best = max(factors, key=lambda number: number / factors[number][0])
        peer = None
        if options.peer and has_peer():
            peer = stack.enter_context(Child(LIVE_PEER, PEER_ALLOCATOR))
            peer.ask("load", size=sent)
        compared = {1, STREAMS_OF_PEER} & factors.keys()
        for repeat in range(options.runs):
            for number in sorted({*compared, best}) if repeat else ():  # each was run once to find the best
                run(number)
            for number in sorted(compared):
                if peer is None:
                    break
                found = peer.timed("run", num_streams=number, seconds=LIVE_SECONDS)
                of_peer.setdefault(number, []).append(found["seconds"] / found["audio_seconds"])
        row.peak_mib = ours.ask("peak_memory")
    rounds.sort()
    medians, peers = ({n: statistics.median(each) for n, each in one.items()} for one in (factors, of_peer))
    row.times, row.seconds = factors[1], medians[1]
    at_once = int(best / medians[best])
    row.values = {"real_time_factors": medians, "streams_at_once": at_once, "peer_real_time_factors": peers}
    row.remarks = [
        f"real-time factor of one stream {row.seconds:.3f}; a chunk of 320 ms takes "
        f"{1000 * statistics.median(rounds):.0f} ms (95 %: {1000 * rounds[int(0.95 * len(rounds))]:.0f} ms)",
        f"{at_once} streams at once in real time, in steps of {best}",
    ]
    if peers:
        row.peer_times, row.peer_seconds = of_peer[1], peers[1]
        row.remarks += [
            f"{number} at once: {medians[number]:.3f} of real time, PyTorch's model alone {peers[number]:.3f}, ratio "
            f"{peers[number] / medians[number]:.2f}"
            for number in sorted(peers)
        ]
    return row


def measure_pipeline(options: Options) -> Row:
    """Measures epochs of planning, decoding and padding. Each perturbation begins with an epoch that is not timed."""
    logger.info("measuring the pipeline")
    with temporary_folder() as folder, Child("ds2_jax.bench.pipeline") as host:
        manifest = str(options.manifest) if options.manifest else None
        host.ask("load", folder=str(folder), minutes=options.minutes, manifest=manifest)
        corpus = host.ask("describe")
        perturbed: dict[str, float] = {}
        for name in corpus.pop("perturbations"):  # "nothing" comes last
            host.ask("run", perturbation=name)
            epochs = [host.ask("run", perturbation=name) for _ in range(options.runs)]
            seconds = statistics.median(epoch["seconds"] for epoch in epochs)
            perturbed[name] = corpus["audio_seconds"] / (seconds * corpus["cores"])
        row = Row("pipeline", 0.0, runs=options.runs, times=[epoch["seconds"] for epoch in epochs])
        row.peak_mib = host.ask("peak_memory")
    row.seconds = statistics.median(row.times)
    processor = statistics.median(epoch["processor_seconds"] for epoch in epochs)
    speed = perturbed.pop("nothing")
    processor_speed = corpus["audio_seconds"] / processor
    row.values = corpus | {"times_real_time_per_core": speed, "times_real_time_per_processor_second": processor_speed}
    row.values["times_real_time_per_core_perturbed"] = perturbed
    row.remarks = [
        f"{speed:,.0f} times real time a core ({corpus['cores']} cores; {processor_speed:,.0f} by processor time)",
        *(
            f"{each:,.0f} times real time a core with every utterance changed: {name}"
            for name, each in perturbed.items()
        ),
        f"{corpus['files']} {'files of ' + manifest if manifest else 'synthetic FLAC files'}, "
        f"{corpus['audio_seconds'] / 60:.1f} minutes, {corpus['bytes_per_second'] * 8 / 1000:.0f} kbit/s",
        f"plan: {corpus['plan']}",
    ]
    return row


def measure_transcribe(engine: EngineName, options: Options) -> Row:
    """Measures transcribing a file of 5 s and a folder, in a first process, in a second process, and when warm."""
    size = dataclasses.replace(parse_size(options.sizes[0], 1, UTTERANCE_FRAMES))
    logger.info(f"measuring transcribe {size.num_layers} x {size.hidden_size}")
    processes: list[dict[str, Any]] = []
    name = f"transcribe {size.num_layers} x {size.hidden_size}, a file of 5 s, {engine}"
    row = Row(name, 0.0, runs=options.runs)
    with compilation_cache() as environment, temporary_folder() as folder:
        run, one, many = (str(folder / name) for name in ("run", "one", "many"))
        with Child("ds2_jax.bench.latency") as maker:
            maker.ask("write_run", folder=run, size=size.to_json())
            maker.ask("write_audio", folder=one, seconds=[5.0])
            maker.ask("write_audio", folder=many, seconds=FOLDER_SECONDS)
        for _ in range(2):
            with Child("ds2_jax.bench.latency", environment) as process:
                found = {
                    "load_seconds": process.ask("load", run=run, engine=engine),
                    "first": process.ask("transcribe", folder=one),
                }
                warm = [process.ask("transcribe", folder=one) for _ in range(options.runs)]
                found |= {"warm": warm, "folder_first": process.ask("transcribe", folder=many)}
                found["folder_again"] = process.ask("transcribe", folder=many)
                row.peak_mib = process.ask("peak_memory")
                processes.append(found)
    first, second = processes
    row.times = [answer["seconds"] for answer in second["warm"]]
    row.seconds = statistics.median(row.times)
    row.gigaflops = useful_flops("forward", size) / row.seconds / 1e9
    row.compile_seconds = max(0.0, first["first"]["seconds"] - row.seconds)
    row.cached_compile_seconds = max(0.0, second["first"]["seconds"] - row.seconds)
    folder_seconds, again = sum(FOLDER_SECONDS), second["folder_again"]
    row.values = {"first_process": first, "second_process": second, "folder_audio_seconds": folder_seconds}
    compiled = sum(int(answer["compiled"]) for answer in second["warm"])
    row.remarks = [
        f"warm: real-time factor {row.seconds / 5:.3f}, {compiled} programs compiled in {options.runs} answers",
        *(
            f"{name} process: model loaded in {each['load_seconds']:.1f} s, {_answer('first file', each['first'])}, "
            f"{_answer(f'folder of {len(FOLDER_SECONDS)} files', each['folder_first'])}"
            for name, each in zip(("first", "second"), processes, strict=True)
        ),
        f"the same folder ({folder_seconds:.0f} s) again: {_answer('', again)}, real-time factor "
        f"{again['seconds'] / folder_seconds:.3f}",
    ]
    return row


def _answer(name: str, answer: dict[str, float]) -> str:
    counts = f"{answer['compiled']:.0f} compiled, {answer['from_cache']:.0f} from the cache"
    return f"{name} {answer['seconds']:.2f} s ({counts})".strip()


def measure_all(options: Options, machine: Machine) -> list[Row]:
    """Makes the measurements of train, forward, pipeline, transcribe and live that `options` names, in this order."""
    rows: list[Row] = []
    kinds: tuple[Literal["train", "forward"], ...] = ("train", "forward")
    for kind in kinds:
        if kind in options.work:
            rows += [measure_step(kind, *step, options, machine) for step in steps_to_measure(options, kind)]
    if "pipeline" in options.work:
        rows.append(measure_pipeline(options))
    if "transcribe" in options.work:
        rows += [measure_transcribe(engine, options) for engine in get_args(EngineName)]
    if "live" in options.work:
        sizes = [parse_size(text, options.batch_size, options.frames) for text in options.sizes]
        named = {f"live {size.num_layers} x {size.hidden_size}": size for size in sizes}
        rows += [
            measure_live(f"{name}, {engine}", size, engine, options)
            for name, size in {"live an4_live": None, **named}.items()
            for engine in get_args(EngineName)
        ]
        if options.run:
            rows += [measure_latency(options, number) for number in (1, 16)]
    return rows


def measure_latency(options: Options, num_streams: int) -> Row:
    """Measures how far the text of `options.run` is behind the speech of its test split."""
    logger.info(f"measuring the latency of {options.run}, {num_streams} at once")
    run, manifest, lm = (None if path is None else str(path) for path in (options.run, options.manifest, options.lm))
    with Child("ds2_jax.bench.live_latency") as process:
        found = process.ask("measure", run=run, manifest=manifest, lm=lm, num_streams=num_streams)
        peak_mib = process.ask("peak_memory")
    endpoints = found["endpoint"]
    row = Row(f"live {options.run}, {num_streams} at once", statistics.median(endpoints), peak_mib=peak_mib, runs=1)
    row.times, row.values = endpoints, found
    named = {"first": "first partial text after the first word began", "words": "each word after its end"}
    for kind, about in (named | {"final": "final text after the last word's end"}).items():
        heard, computing = (sorted(each) for each in zip(*found[kind], strict=True))
        row.remarks.append(f"{about}: {_half_and_95(heard)} of sound, {_half_and_95(computing)} of computing")
    row.remarks.append(f"final text after its endpoint was found: {_half_and_95(sorted(endpoints))}")
    row.remarks.append(f"{found['unstable']:.1%} of the words changed after they had been shown")
    return row


def _half_and_95(seconds: list[float]) -> str:
    return f"{1000 * seconds[len(seconds) // 2]:.0f} ms (95 %: {1000 * seconds[int(0.95 * len(seconds))]:.0f})"

"""Fuzz targets: folders of runs, with damaged checkpoints and with files that would run if unpickled or executed."""

import functools
import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.target import PAYLOADS, PICKLE, Payload, Target, accepted


@functools.cache
def _run() -> Mapping[str, bytes]:
    """Makes the files of a run with a checkpoint. Some names and contents differ in every process."""
    from tests.small_runs import SMALL_CONFIG, write_untrained_run

    with tempfile.TemporaryDirectory() as folder:
        run = write_untrained_run(Path(folder) / "run", SMALL_CONFIG)
        return {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def _files(kind: str) -> Sequence[bytes]:
    """Lists the run's files that this project writes, or the others; a line with the index precedes each file."""
    ours = ("config.json", "meta/metadata", "metrics/metrics")
    files = enumerate(sorted(_run().items()))
    return [b"%d\n" % place + data for place, (name, data) in files if name.endswith(ours) == (kind == "ours")]


def _read_run(path: Path) -> None:
    """Reads a whole run in which one file is damaged. The weights must be the saved ones, bit for bit."""
    import jax

    from ds2_jax.parallel.mesh import data_mesh
    from ds2_jax.runs.checkpoints import load_variables
    from ds2_jax.runs.run_folder import load_config
    from tests.small_runs import SMALL_CONFIG, some_state

    place, _, content = path.read_bytes().partition(b"\n")
    names = sorted(_run())
    damaged = names[int(place) % len(names) if place[:5].isdigit() and len(place) < 5 else 0]
    run = path.parent / "run"
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content if name == damaged else _run()[name])
    mesh = data_mesh(jax.devices()[:1])
    config = accepted(run, lambda: load_config(run))
    variables = accepted(run, lambda: load_variables(run, config, mesh))
    state = some_state(SMALL_CONFIG)
    for saved, read in zip(
        jax.tree.leaves([state.params, state.batch_stats]),
        jax.tree.leaves([variables["params"], variables["batch_stats"]]),
        strict=True,
    ):
        np.testing.assert_array_equal(saved, read)


def _planted() -> Sequence[bytes]:
    """Replaces each of the files by one that would run if it was unpickled or executed."""
    ours, others = (_files(kind) for kind in ("ours", "others"))
    planted = [(file, payload) for file in ours for payload in PAYLOADS] + [(file, PICKLE) for file in others]
    return [file[: file.index(b"\n") + 1] + payload for file, payload in planted]


def _read_failed_step(path: Path) -> None:
    from ds2_jax.training.replay.batch_file import read_batch

    failed = accepted(path, lambda: read_batch(path))
    assert len(failed.ids) == len(failed.batch["waveforms"])
    assert failed.batch["num_samples"].max() <= failed.batch["waveforms"].shape[1]


def _failed_steps() -> Sequence[bytes]:
    from ds2_jax.training.replay.batch_file import FailedStep, write_batch

    counts = np.array([100, 50], np.int32)
    batch = {"waveforms": np.zeros((2, 100), np.float32), "num_samples": counts, "indices": counts}
    batch |= {"labels": np.ones((2, 3), np.int32), "num_labels": np.array([3, 2], np.int32)}
    step = FailedStep(3, 0, np.nan, np.inf, 5, 1, 1, 0, "1 x cpu", ["a", "b"], ["a.wav", "b.wav"], batch)
    with tempfile.TemporaryDirectory() as folder:
        return [write_batch(Path(folder), step).read_bytes()]


def _failed_step_claims() -> Sequence[bytes]:
    """Makes archives of bad arrays: compressed, of objects, larger than the file, with a name that leads outside."""
    objects = io.BytesIO()
    np.savez(objects, allow_pickle=True, waveforms=np.array([Payload()], object))
    zeros, outside = io.BytesIO(), io.BytesIO()
    np.savez_compressed(zeros, waveforms=np.zeros(10_000_000))
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("../../up.npy", PICKLE)
    [whole] = _failed_steps()
    claims = [whole.replace(b"(2, 100)", b"(2, 1e9)"), whole.replace(b"(2, 100)", b"(2147483")]
    return [*claims, objects.getvalue(), zeros.getvalue(), outside.getvalue()]


RUNS = {
    "failed step": Target("step-3.npz", _failed_steps, _read_failed_step, _failed_step_claims),
    "configuration and metadata of a run": Target("damaged", lambda: _files("ours"), _read_run, _planted),
    "arrays of a checkpoint": Target("damaged", lambda: _files("others"), _read_run),
}

"""A child process that loads a run, transcribes files, and counts the programs that it compiles."""

import time
from pathlib import Path

import optax
import soundfile

from ds2_jax.audio import made_speech
from ds2_jax.bench import child
from ds2_jax.bench.compile_counts import Programs
from ds2_jax.bench.size import Size
from ds2_jax.engines.engine import EngineName
from ds2_jax.model.update import init_state
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet


def write_run(folder: Path, size: Size) -> None:
    """Makes a run with one checkpoint that has untrained weights."""
    config = size.config
    run_folder.open_run(folder, config, overwrite=False)
    with Checkpoints(folder, config) as checkpoints:
        checkpoints.save(init_state(config, Alphabet(config.data.alphabet).size, optax.identity()))


def write_audio(folder: Path, seconds: list[float]) -> None:
    """Writes FLAC files of the given durations, all with different contents."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, duration in enumerate(seconds):
        samples = made_speech.utterance(duration, seed=index)
        soundfile.write(folder / f"{index:02d}.flac", samples, made_speech.SAMPLE_RATE, subtype="PCM_16")


def main() -> None:
    """Serves requests: write_run and write_audio; load, which opens a `Recogniser`, then transcribe and peak_memory."""
    loaded: list[Recogniser] = []
    programs = Programs()

    def load(run: str, engine: EngineName) -> float:
        started = time.perf_counter()
        loaded.append(Recogniser(Path(run), engine=engine))
        return time.perf_counter() - started

    def transcribe(folder: str) -> dict[str, float]:
        programs.take()
        started = time.perf_counter()
        for result in loaded[0].transcribe_files(sorted(Path(folder).iterdir())):
            if isinstance(result, InputError):
                raise result
        elapsed = time.perf_counter() - started
        return {"seconds": elapsed, **programs.take()}

    child.serve(
        {
            "write_run": lambda folder, size: write_run(Path(folder), Size(**size)),
            "write_audio": lambda folder, seconds: write_audio(Path(folder), seconds),
            "load": load,
            "transcribe": transcribe,
            "peak_memory": child.peak_memory,
        }
    )


if __name__ == "__main__":
    main()

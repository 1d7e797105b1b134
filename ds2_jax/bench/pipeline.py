"""A child process that plans, decodes and pads epochs of FLAC files, like training, but without a model."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import soundfile

from ds2_jax.audio import made_speech
from ds2_jax.bench import child
from ds2_jax.bench.costs import librispeech_durations
from ds2_jax.config import Config, DataConfig, PerturbConfig
from ds2_jax.config.settings import ENGLISH
from ds2_jax.data import epochs
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.splits import Split, read_utterances
from ds2_jax.parallel.rows import ONE_DEVICE
from ds2_jax.system.cores import num_cores
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training.splits import make_stream


def write_corpus(folder: Path, minutes: float) -> list[Utterance]:
    """Writes different FLAC files (16 kHz, 16 bits) of at least `minutes` in total, with LibriSpeech's durations."""
    count = max(1, int(minutes * 60 // 12.3))
    durations = librispeech_durations(count)
    if missing := max(0.0, minutes * 60 - durations.sum()):
        durations += missing / count
    utterances = []
    for index, duration in enumerate(durations.tolist()):
        samples = made_speech.utterance(duration, seed=index)
        path = folder / f"{index:04d}.flac"
        soundfile.write(path, samples, made_speech.SAMPLE_RATE, subtype="PCM_16")
        utterances.append(Utterance(path, len(samples) / made_speech.SAMPLE_RATE, "A", f"{index:04d}"))
    return utterances


def write_sounds(folder: Path) -> tuple[Path, Path]:
    """Writes eight FLAC files of noise (30 s) and four impulse responses of rooms (0.5 s). Returns their folders."""
    generator = np.random.default_rng(0)
    noise, responses = folder / "noise", folder / "responses"
    for each in (noise, responses):
        each.mkdir()
    for index in range(8):
        samples = generator.normal(0, 0.1, 30 * made_speech.SAMPLE_RATE)
        soundfile.write(noise / f"{index}.flac", samples, made_speech.SAMPLE_RATE, subtype="PCM_16")
    decay = np.exp(-np.arange(made_speech.SAMPLE_RATE // 2) / (0.1 * made_speech.SAMPLE_RATE))
    for index in range(4):
        response = decay * generator.normal(0, 0.1, len(decay))
        response[0] = 1
        soundfile.write(responses / f"{index}.flac", response / 2, made_speech.SAMPLE_RATE, subtype="PCM_16")
    return noise, responses


class Epochs:
    """Epochs of a corpus that are read, but not used for training.

    Args:
        utterances: the utterances of the corpus.
        folder: the folder in which to write noise and impulse responses.
    """

    def __init__(self, utterances: list[Utterance], folder: Path) -> None:
        # Alphabet and transcripts do not matter for these measurements.
        short = [dataclasses.replace(utterance, transcript="A") for utterance in utterances]
        self._split = Split(short, Alphabet(ENGLISH))
        longest = max(utterance.duration for utterance in utterances)
        self._config = Config(data=DataConfig(num_workers=num_cores(), max_duration=max(20.0, longest)))
        noise, responses = write_sounds(folder)
        plain = PerturbConfig()
        some = PerturbConfig(
            speed_probability=1.0, gain_probability=1.0, noise=noise, noise_probability=1.0, noise_snr=(10.0, 10.0)
        )
        every = dataclasses.replace(some, tempo_probability=1.0, responses=responses, response_probability=1.0)
        self._perturbations = {"speed, gain and noise": some, "everything": every, "nothing": plain}
        self._epoch = 0

    def describe(self) -> dict[str, object]:
        """Describes the corpus: seconds of audio, files, bytes per second, cores, perturbations and plan."""
        seconds = sum(utterance.duration for utterance in self._split.utterances)
        files = [utterance.audio for utterance in self._split.utterances if utterance.record is None]
        num_bytes = sum(path.stat().st_size for path in files)  # 0 for a TensorFlow data set
        return {
            "audio_seconds": seconds,
            "files": len(self._split.utterances),
            "bytes_per_second": num_bytes / seconds,
            "cores": num_cores(),
            "perturbations": list(self._perturbations),
            "plan": str(epochs.Epochs(self._config, self._split)),
        }

    def run(self, perturbation: str) -> dict[str, float]:
        """Plans, decodes, perturbs and pads the next epoch. Returns its seconds and CPU seconds."""
        config = dataclasses.replace(self._config, perturb=self._perturbations[perturbation])
        started, used = time.perf_counter(), time.process_time()
        source = epochs.Epochs(config, self._split)
        plan, perturb = source.plan(self._epoch), source.perturb(self._epoch)
        num_samples = 0
        for batch in make_stream(plan, self._split, config, ONE_DEVICE, None, perturb):
            num_samples += int(batch["num_samples"].sum(dtype=np.int64))
        self._epoch += 1
        return {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - used}


def main() -> None:
    """Serves requests for `Epochs`: load, then describe, run and peak_memory."""
    loaded: list[Epochs] = []

    def load(folder: str, minutes: float, manifest: str | None) -> None:
        utterances = read_utterances(Path(manifest)) if manifest else write_corpus(Path(folder), minutes)
        loaded.append(Epochs(utterances, Path(folder)))

    child.serve(
        {
            "load": load,
            "describe": lambda: loaded[0].describe(),
            "run": lambda perturbation: loaded[0].run(perturbation),
            "peak_memory": child.peak_memory,
        }
    )


if __name__ == "__main__":
    main()

"""A child process that recognises streams, several at once, with untrained weights."""

import time
from typing import Any

import numpy as np

from ds2_jax.audio import made_speech
from ds2_jax.bench import child
from ds2_jax.bench.options import CHUNK_SECONDS, live_config
from ds2_jax.bench.size import Size
from ds2_jax.bench.work import make_variables
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.endpoints import ENDPOINTS
from ds2_jax.recognition.streaming import Streams
from ds2_jax.runs.model import Model, jax_engine, onnx_engine
from ds2_jax.text.alphabet import Alphabet


def main() -> None:
    """Serves requests: load, then run and peak_memory."""
    loaded: list[Streams] = []

    def load(size: dict[str, Any] | None, engine: EngineName) -> None:
        config = live_config(None if size is None else Size(**size))
        variables = make_variables(config, Alphabet.of(config.data).size)
        make_engine = jax_engine if engine == "jax" else onnx_engine
        loaded.append(Streams(Model(config, make_engine(config, variables)), make_decoder(config)))

    def run(num_streams: int, seconds: float) -> dict[str, Any]:
        """Feeds streams, chunk by chunk. The first chunk, which compiles, is not timed."""
        rate = loaded[0].config.features.sample_rate
        size = round(CHUNK_SECONDS * rate)
        waveform = made_speech.utterance(seconds + CHUNK_SECONDS, seed=0)
        streams = [loaded[0].open(rate, ENDPOINTS) for _ in range(num_streams)]
        own = [np.roll(waveform, 1000 * i) for i in range(num_streams)]
        rounds = []
        for start in range(0, len(waveform) - size + 1, size):
            began = time.perf_counter()
            loaded[0].feed({stream: each[start : start + size] for stream, each in zip(streams, own, strict=True)})
            rounds.append(time.perf_counter() - began)
        for stream in streams:
            stream.close()
        return {"seconds": sum(rounds[1:]), "audio_seconds": (len(rounds) - 1) * CHUNK_SECONDS, "rounds": rounds[1:]}

    child.serve({"load": load, "run": run, "peak_memory": child.peak_memory})


if __name__ == "__main__":
    main()

"""The peer of `bench live`: a child process with the same forward model in plain torch.nn layers, fed in chunks.

It computes the best label of each frame. Running statistics, resampling, text and endpoints are left out, which favours
it. All of its streams are at the same place, so one batch holds their state.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ds2_jax.bench import child
from ds2_jax.bench.options import CHUNK_SECONDS, live_config
from ds2_jax.bench.peer import NUM_LABELS, normalise
from ds2_jax.bench.size import Size
from ds2_jax.config import Config
from ds2_jax.config.feature_settings import FLOOR
from ds2_jax.config.mel_bands import mel_bands
from ds2_jax.system.cores import num_cores


class ForwardModel(nn.Module):
    """Convolutions, LSTMs that run forward, a look-ahead convolution and a head. Each keeps what the next chunk needs.

    Args:
        config: settings of the model and its features.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        features, model, bins, channels = config.features, config.model, config.features.num_bins, 1
        assert features.window == "hamming"  # that of the recipes
        self._features, self._window = features, torch.hamming_window(features.window_length)
        self._bands = torch.tensor(mel_bands(features), dtype=torch.float32) if features.num_mels else None
        self.convs, self.conv_norms = nn.ModuleList(), nn.ModuleList()
        for i, (taps, of_frequency) in enumerate(zip(model.time_kernels, model.frequency_kernels, strict=True)):
            strides = (model.frequency_strides[i], model.time_strides[i])
            kernel, padding = (of_frequency, taps), (of_frequency // 2, 0)
            self.convs.append(nn.Conv2d(channels, model.channels[i], kernel, strides, padding))
            self.conv_norms.append(nn.BatchNorm2d(model.channels[i]))
            bins, channels = -(-bins // strides[0]), model.channels[i]
        self.contexts = [taps - stride for taps, stride in zip(model.time_kernels, model.time_strides, strict=True)]
        hidden = model.hidden_size
        widths = [channels * bins] + [hidden] * (model.num_layers - 1)
        self.recurrent = nn.ModuleList(nn.LSTM(width, hidden) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(model.num_layers))  # the last: for the head
        self.lookahead = nn.Conv1d(hidden, hidden, model.lookahead_context, groups=hidden, bias=False)
        self.head = nn.Linear(hidden, NUM_LABELS, bias=False)

    def forward(self, samples: Tensor, state: dict[str, Any]) -> Tensor:
        """Finds the best labels [T', B] of the next chunk.

        Args:
            samples: [B, S] float32, a multiple of the samples of an output frame.
            state: what the chunk before has left, empty before the first one; it is replaced.
        """
        features = self._features
        size, hop = features.window_length, features.hop_length
        samples, state["samples"] = _with_context(samples, state.get("samples"), size - hop)
        parts = torch.stft(samples, features.fft_length, hop, size, self._window, center=False, return_complex=True)
        values = parts.abs().log1p() if self._bands is None else (self._bands @ parts.abs().square() + FLOOR).log()
        values = (values - values.mean()) / values.std()
        values = values[:, None]  # [B, 1, F, T]
        for i, (conv, norm) in enumerate(zip(self.convs, self.conv_norms, strict=True)):
            values, state[f"conv_{i}"] = _with_context(values, state.get(f"conv_{i}"), self.contexts[i])
            values = norm(conv(values)).clamp(0, 20)
        values = values.flatten(1, 2).permute(2, 0, 1).contiguous()  # [T', B, C*F']
        for i, lstm in enumerate(self.recurrent):
            if i:
                values = normalise(self.norms[i - 1], values)
            values, state[f"lstm_{i}"] = lstm(values, state.get(f"lstm_{i}"))
        ahead = self.lookahead.kernel_size[0] - 1
        values, state["lookahead"] = _with_context(values.permute(1, 2, 0), state.get("lookahead"), ahead)
        values = self.lookahead(values).clamp(0, 20).permute(2, 0, 1).contiguous()
        return self.head(normalise(self.norms[-1], values)).log_softmax(-1).argmax(-1)


def _with_context(values: Tensor, before: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """Puts the last `size` frames of the chunk before in front of [..., T], and returns the last ones of this too."""
    if before is None:
        before = values.new_zeros((*values.shape[:-1], size))
    values = torch.cat([before, values], dim=-1)
    return values, values[..., values.shape[-1] - size :]


class Step:
    """Streams that are recognised at once, with untrained weights."""

    def __init__(self, config: Config) -> None:
        torch.manual_seed(0)
        self._config, self._model = config, ForwardModel(config).eval()

    @torch.inference_mode()
    def run(self, num_streams: int, seconds: float) -> dict[str, Any]:
        """Feeds streams, chunk by chunk. The first chunk is not timed."""
        num_samples = round(CHUNK_SECONDS * self._config.features.sample_rate)
        state: dict[str, Any] = {}
        rng, rounds = np.random.default_rng(0), []
        for _ in range(1 + int(seconds / CHUNK_SECONDS)):
            chunk = rng.standard_normal((num_streams, num_samples), np.float32)
            began = time.perf_counter()
            self._model(torch.from_numpy(chunk), state).tolist()
            rounds.append(time.perf_counter() - began)
        return {"seconds": sum(rounds[1:]), "audio_seconds": (len(rounds) - 1) * CHUNK_SECONDS}


def main() -> None:
    """Serves requests: load, then run."""
    torch.set_num_threads(num_cores())
    loaded: list[Step] = []
    child.serve(
        {
            "load": lambda size: loaded.append(Step(live_config(None if size is None else Size(**size)))),
            "run": lambda **arguments: loaded[0].run(**arguments),
        }
    )


if __name__ == "__main__":
    main()

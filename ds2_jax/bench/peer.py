"""The peer: a child process with deepspeech.pytorch's model and training step in plain torch.nn layers.

It is written from the description of the model. Only this file and `live_peer.py` import PyTorch.
deepspeech.pytorch sets the masks row by row in a loop. Here they are one comparison, which is faster.
"""

import os
import time
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ds2_jax.bench import child
from ds2_jax.bench.size import Size
from ds2_jax.system.cores import num_cores

NUM_LABELS = 29
CLIP_NORM = 400.0
"""Largest norm of the gradient of the batch's summed loss."""


class DeepSpeech2(nn.Module):
    """Two masked convolutions, bidirectional LSTMs whose directions are summed, and a head.

    Args:
        num_layers: number of recurrent layers.
        hidden_size: units of each layer and direction (H).
    """

    def __init__(self, num_layers: int, hidden_size: int) -> None:
        super().__init__()
        self.front_end = nn.ModuleList(
            [
                nn.Conv2d(1, 32, (41, 11), (2, 2), (20, 5)),
                nn.BatchNorm2d(32),
                nn.Hardtanh(0, 20, inplace=True),
                nn.Conv2d(32, 32, (21, 11), (2, 1), (10, 5)),
                nn.BatchNorm2d(32),
                nn.Hardtanh(0, 20, inplace=True),
            ]
        )
        widths = [32 * 41] + [hidden_size] * (num_layers - 1)
        self.recurrent = nn.ModuleList(nn.LSTM(width, hidden_size, bidirectional=True) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden_size) for _ in range(num_layers))  # the last: for the head
        self.head = nn.Linear(hidden_size, NUM_LABELS, bias=False)

    def forward(self, spectrograms: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Computes logits [T', B, V] and valid output frames [B].

        Args:
            spectrograms: [B, 1, F, T] float32.
            num_frames: [B] int64, valid frames, in descending order.
        """
        output_lengths = (num_frames - 1) // 2 + 1
        values = spectrograms
        for module in self.front_end:
            values = module(values)
            padding = torch.arange(values.shape[-1]) >= output_lengths[:, None]
            values = values.masked_fill(padding[:, None, None].to(values.device), 0)
        values = values.flatten(1, 2).permute(2, 0, 1).contiguous()  # [T', B, C*F']
        for layer, lstm in enumerate(self.recurrent):
            if layer:
                values = normalise(self.norms[layer - 1], values)
            packed = pack_padded_sequence(values, output_lengths)
            values, _ = pad_packed_sequence(lstm(packed)[0], total_length=values.shape[0])
            values = values.unflatten(-1, (2, -1)).sum(2)
        return self.head(normalise(self.norms[-1], values)), output_lengths


def normalise(norm: nn.Module, values: Tensor) -> Tensor:
    """Applies batch norm over all frames of all rows to [T', B, H]."""
    return norm(values.flatten(0, 1)).view(values.shape)


class Step:
    """A training step or a forward pass.

    Args:
        kind: train runs forward pass, CTC, backward pass, clipping and AdamW. forward runs the forward pass in
            evaluation mode, up to the probabilities.
        size: the sizes of model and batch.
        inputs: the file of spectrograms and labels that this project's side has written.
    """

    def __init__(self, kind: Literal["train", "forward"], size: Size, inputs: str) -> None:
        torch.manual_seed(0)
        with np.load(inputs) as arrays:
            self._spectrograms = torch.tensor(arrays["spectrograms"]).transpose(1, 2)[:, None].contiguous()
            self._num_frames = torch.tensor(arrays["num_frames"], dtype=torch.int64)
            self._num_labels = torch.tensor(arrays["num_labels"], dtype=torch.int64)
            rows = zip(arrays["labels"], arrays["num_labels"], strict=True)
            self._labels = torch.tensor(np.concatenate([labels[:count] for labels, count in rows]), dtype=torch.int64)
        self._model = DeepSpeech2(size.num_layers, size.hidden_size).train(kind == "train")
        self._loss = nn.CTCLoss(reduction="sum", zero_infinity=True)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1.5e-4, weight_decay=1e-5)
        self._call = self._train if kind == "train" else self._forward

    def run(self) -> float:
        """Makes one call and returns its seconds."""
        started = time.perf_counter()
        self._call()
        return time.perf_counter() - started

    def _train(self) -> None:
        logits, output_lengths = self._model(self._spectrograms, self._num_frames)
        loss = self._loss(logits.log_softmax(-1), self._labels, output_lengths, self._num_labels)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), CLIP_NORM)
        self._optimizer.step()

    @torch.inference_mode()
    def _forward(self) -> None:
        self._model(self._spectrograms, self._num_frames)[0].softmax(-1)


def time_steps(
    size: Size, labels: np.ndarray, num_labels: np.ndarray, bfloat16: bool, runs: int
) -> tuple[list[float], float]:
    """Times training steps on a GPU, or without one on the CPU.

    Args:
        size: the sizes of model and batch.
        labels: [B, N] int32.
        num_labels: [B] int32.
        bfloat16: whether to use autocast.
        runs: number of steps.

    Returns:
        Seconds of each step, and the most MiB that tensors took on the GPU; NaN on the CPU.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frames = torch.tensor(size.frames_of_rows)
    spectrograms = torch.randn(size.batch_size, 1, 161, size.num_frames, device=device)
    rows = zip(labels, num_labels, strict=True)
    targets = torch.tensor(np.concatenate([each[:count] for each, count in rows]), dtype=torch.int64, device=device)
    model = DeepSpeech2(size.num_layers, size.hidden_size).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-4, weight_decay=1e-5)
    loss_of = nn.CTCLoss(reduction="sum", zero_infinity=True)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            logits, lengths = model(spectrograms, frames)
        loss = loss_of(logits.float().log_softmax(-1), targets, lengths, torch.tensor(num_labels))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else float("nan")
    return seconds, memory


def matrix_product(side: int, repeats: int = 5) -> float:
    """Returns the Gflop/s of the fastest of `repeats` products of two float32 matrices of `side` rows and columns."""
    matrix = torch.randn(side, side)
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds[1:]) / 1e9


def describe() -> str:
    """Describes version, threads, libraries and settings."""
    allocator = ", ".join(
        f"{name}={value}" for name, value in os.environ.items() if name.startswith(("GLIBC_", "MALLOC_"))
    )
    return (
        f"torch {torch.__version__} on the CPU, {torch.get_num_threads()} threads, oneDNN "
        f"{'on' if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled else 'off'}, MKL "
        f"{'on' if torch.backends.mkl.is_available() else 'off'}, float32, inference_mode and eval() for forward, "
        f"{allocator or 'default glibc settings'}"
    )


def main() -> None:
    """Serves requests for one `Step`: load, then run, peak_memory and matrix_product."""
    torch.set_num_threads(num_cores())
    loaded: list[Step] = []

    def load(kind: Literal["train", "forward"], size: dict[str, int], inputs: str) -> float:
        loaded.append(Step(kind, Size(**size), inputs))
        return child.peak_memory()

    handlers: dict[str, Any] = {
        "load": load,
        "run": lambda: loaded[0].run(),
        "peak_memory": child.peak_memory,
        "matrix_product": matrix_product,
        "describe": describe,
    }
    child.serve(handlers)


if __name__ == "__main__":
    main()

"""Stores the outputs of PyTorch's layers for the inputs of inputs.py, in one .npz file for each area.

Run it from the root of the repository in an environment with PyTorch and NumPy: `python -m tests.golden.make_golden`.
The files hold the versions that made them. The same versions give the same bytes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ds2_jax.config import ModelConfig
from tests.golden import inputs

RNN_TYPES: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def zero_padding(values: Tensor, lengths: Tensor) -> Tensor:
    """Sets [B, C, F, T] to zero from the length of each row on."""
    padding = torch.arange(values.shape[-1]) >= lengths[:, None]
    return values.masked_fill(padding[:, None, None], 0)


def run_recurrent(layer: nn.RNNBase, values: Tensor, lengths: Tensor) -> Tensor:
    """Computes [B, T, F] -> [B, T, H] with summed directions and zeros on padding."""
    packed = pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=values.shape[1])
    return outputs.unflatten(-1, (-1, layer.hidden_size)).sum(-2)


def run_norm(norm: nn.BatchNorm1d, values: Tensor) -> Tensor:
    """Normalises [B, T, H] over all rows and frames."""
    return norm(values.flatten(0, 1)).view(values.shape)


def run_lookahead(conv: nn.Conv1d, values: Tensor) -> Tensor:
    """Computes the clipped, weighted sum of each unit over the present and the following frames, [B, T, H]."""
    padded = nn.functional.pad(values.transpose(1, 2), (0, conv.kernel_size[0] - 1))
    return nn.functional.hardtanh(conv(padded), 0, 20).transpose(1, 2)


def make_lookahead(hidden_size: int, context: int) -> nn.Conv1d:
    return nn.Conv1d(hidden_size, hidden_size, context, groups=hidden_size, bias=False)


class DeepSpeech2(nn.Module):
    """The network of the source, with the names of our parameters."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        in_channels = 1
        for layer, channels in enumerate(config.channels):
            taps = (config.frequency_kernels[layer], config.time_kernels[layer])
            strides = (config.frequency_strides[layer], config.time_strides[layer])
            padding = (taps[0] // 2, taps[1] // 2)
            self.add_module(f"conv_{layer}", nn.Conv2d(in_channels, channels, taps, strides, padding))
            self.add_module(f"conv_norm_{layer}", nn.BatchNorm2d(channels))
            in_channels = channels
        num_inputs = in_channels * inputs.num_output_bins(config)
        for layer in range(config.num_layers):
            if layer:
                self.add_module(f"rnn_norm_{layer}", nn.BatchNorm1d(config.hidden_size))
            recurrent = RNN_TYPES[config.rnn_type](
                num_inputs, config.hidden_size, bidirectional=config.bidirectional, batch_first=True
            )
            self.add_module(f"rnn_{layer}", recurrent)
            num_inputs = config.hidden_size
        if not config.bidirectional:
            self.lookahead = make_lookahead(config.hidden_size, config.lookahead_context)
        self.head_norm = nn.BatchNorm1d(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, inputs.NUM_LABELS, bias=False)

    def front_end(self, spectrograms: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Computes [B, T, F] -> [B, C, F', T'] and the valid output frames; clears the padding after every module."""
        lengths = (num_frames - 1) // self.config.time_reduction + 1
        # The source clears with the final lengths, which is right after the first convolution only if the second has
        # time stride 1.
        first_lengths = (num_frames - 1) // self.config.time_strides[0] + 1
        values = spectrograms.transpose(1, 2)[:, None]
        for layer, layer_lengths in enumerate((first_lengths, lengths)):
            values = zero_padding(self.get_submodule(f"conv_{layer}")(values), layer_lengths)
            values = zero_padding(self.get_submodule(f"conv_norm_{layer}")(values), layer_lengths)
            values = zero_padding(nn.functional.hardtanh(values, 0, 20), layer_lengths)
        return values, lengths

    def forward(self, spectrograms: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Computes [B, T, F] -> logits [B, T', V] and the valid output frames."""
        values, lengths = self.front_end(spectrograms, num_frames)
        values = values.flatten(1, 2).transpose(1, 2)
        for layer in range(self.config.num_layers):
            if layer:
                values = run_norm(self.get_submodule(f"rnn_norm_{layer}"), values)
            values = run_recurrent(self.get_submodule(f"rnn_{layer}"), values, lengths)
        if not self.config.bidirectional:
            values = run_lookahead(self.lookahead, values)
        return self.head(run_norm(self.head_norm, values)), lengths


def load(module: nn.Module, weights: inputs.Weights) -> nn.Module:
    """Loads `weights` into `module`; their names must match exactly."""
    state = {name: torch.tensor(value) for name, value in weights.items()}
    counters = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    module.load_state_dict(state | counters)
    return module


def gradients(module: nn.Module) -> dict[str, np.ndarray]:
    return {f"gradients.{name}": parameter.grad.numpy() for name, parameter in module.named_parameters()}


def statistics(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in module.named_buffers() if "running" in name}


def recurrent_outputs(name: str) -> dict[str, np.ndarray]:
    case = inputs.RECURRENT_CASES[name]
    values, weights, cotangents = inputs.recurrent_inputs(name)
    layer = RNN_TYPES[case.rnn_type](
        case.num_inputs, case.hidden_size, bidirectional=case.bidirectional, batch_first=True
    )
    values = torch.tensor(values, requires_grad=True)
    outputs = run_recurrent(load(layer, weights), values, torch.tensor(case.lengths))
    stored = {"outputs": outputs.detach().numpy()}
    if case.hidden_size < 100:  # the gradients of the full-size layer would fill 75 MB
        outputs.backward(torch.tensor(cotangents))
        stored |= {"gradients.inputs": values.grad.numpy()} | gradients(layer)
    return stored


def lookahead_outputs() -> dict[str, np.ndarray]:
    values, kernel = inputs.lookahead_inputs()
    conv = load(make_lookahead(kernel.shape[0], kernel.shape[2]), {"weight": kernel})
    return {"outputs": run_lookahead(conv, torch.tensor(values)).detach().numpy()}


def make_model(case: inputs.ModelCase) -> tuple[DeepSpeech2, Tensor, Tensor]:
    """Makes the model with its weights, the spectrograms and their lengths."""
    model = load(DeepSpeech2(case.config), inputs.model_weights(case)).train(case.train)
    return model, torch.tensor(inputs.spectrograms(case)), torch.tensor(case.num_frames_of_rows)


def front_end_outputs(case: inputs.ModelCase) -> dict[str, np.ndarray]:
    model, spectrograms, num_frames = make_model(case)
    outputs, _ = model.front_end(spectrograms, num_frames)
    assert outputs.max() == 20
    assert outputs.min() == 0
    stored = {"outputs": outputs.detach().numpy()}
    if case.train:
        stored |= {name: value for name, value in statistics(model).items() if name.startswith("conv")}
    return stored


def model_outputs(case: inputs.ModelCase) -> dict[str, np.ndarray]:
    model, spectrograms, num_frames = make_model(case)
    logits, lengths = model(spectrograms, num_frames)
    stored = {"logits": logits.detach().numpy(), "output_lengths": lengths.numpy()}
    if case.train:
        labels = torch.tensor([label for row in case.labels_of_rows for label in row])
        num_labels = torch.tensor([len(row) for row in case.labels_of_rows])
        loss = nn.CTCLoss(reduction="sum")(logits.log_softmax(-1).transpose(0, 1), labels, lengths, num_labels)
        loss.backward()
        stored |= {"loss": loss.detach().numpy()} | gradients(model) | statistics(model)
    return stored


def ctc_outputs() -> dict[str, np.ndarray]:
    logits, output_lengths, labels, num_labels = map(torch.tensor, inputs.ctc_batch())
    logits = logits.double().requires_grad_()
    loss = nn.CTCLoss(reduction="none", zero_infinity=True)
    losses = loss(logits.log_softmax(-1).transpose(0, 1), labels, output_lengths, num_labels)
    losses.sum().backward()
    # Stored in float32: its rounding is far below the error of the float32 computation under test.
    return {"losses": losses.detach().numpy(), "gradients": logits.grad.numpy().astype(np.float32)}


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    areas = {
        "recurrent": {name: recurrent_outputs(name) for name in inputs.RECURRENT_CASES},
        "front_end": {name: front_end_outputs(case) for name, case in inputs.FRONT_END_CASES.items()},
        "lookahead": {"clipped": lookahead_outputs()},
        "model": {name: model_outputs(case) for name, case in inputs.MODEL_CASES.items()},
        "ctc": {"batch": ctc_outputs()},
    }
    versions = np.array(f"torch {torch.__version__}, numpy {np.__version__}")
    for area, cases in areas.items():
        stored: dict[str, Any] = {
            f"{case}/{name}": value for case, outputs in cases.items() for name, value in outputs.items()
        }
        np.savez_compressed(Path(__file__).with_name(f"{area}.npz"), versions=versions, **stored)


if __name__ == "__main__":
    main()

"""The weights that a model has, from its settings alone, without JAX."""

from collections.abc import Iterator

from ds2_jax.config import Config

NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def weight_shapes(config: Config, num_labels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Lists name and shape of the arrays in params and batch_stats, all float32; see `model.network.DeepSpeech2`.

    They come one by one, because settings from elsewhere may ask for two billion layers.

    Args:
        config: settings of the run.
        num_labels: number of labels, blank included (V).
    """
    model, bins, channels = config.model, config.features.num_bins, (1, *config.model.channels)
    if config.features.needs_statistics:
        yield "batch_stats.spectrogram.mean", (bins,)
        yield "batch_stats.spectrogram.deviation", ()
    for i in range(2):
        taps = model.time_kernels[i], model.frequency_kernels[i]
        yield f"params.conv_{i}.kernel", (*taps, channels[i], channels[i + 1])
        yield f"params.conv_{i}.bias", (channels[i + 1],)
        yield from _norm(f"conv_norm_{i}", channels[i + 1])
        bins = -(-bins // model.frequency_strides[i])
    units, outputs = model.hidden_size, NUM_GATES[model.rnn_type] * model.hidden_size
    for i in range(model.num_layers):
        inputs = units if i else bins * channels[2]
        for direction in range(2 if model.bidirectional else 1):
            yield f"params.rnn_{i}.input_kernel.{direction}", (inputs, outputs)
            yield f"params.rnn_{i}.hidden_kernel.{direction}", (outputs, units)
            yield f"params.rnn_{i}.input_bias.{direction}", (outputs,)
            yield f"params.rnn_{i}.hidden_bias.{direction}", (outputs,)
        if i:
            yield from _norm(f"rnn_{i}.norm", inputs)
    if not model.bidirectional:
        yield "params.lookahead.kernel", (model.lookahead_context, units)
    yield from _norm("head_norm", units)
    yield "params.head", (units, num_labels)


def _norm(name: str, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("params.{}.scale", "params.{}.bias", "batch_stats.{}.mean", "batch_stats.{}.var"):
        yield part.format(name), (size,)

"""Runs the measurements of `bench` and prints tables or JSON."""

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ds2_jax.bench import costs, measure
from ds2_jax.bench.decode import Decoding, measure_decoding
from ds2_jax.bench.measure import Machine, Row
from ds2_jax.bench.options import Options, parse_size
from ds2_jax.bench.scaling import BASE, Growth, measure_scaling
from ds2_jax.data.epochs import Epochs
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.splits import Split, read_utterances
from ds2_jax.system.cores import num_cores
from ds2_jax.system.errors import InputError
from ds2_jax.system.markdown import table
from ds2_jax.text.alphabet import Alphabet

HEADER = (
    "work",
    "ours, s",
    "PyTorch, s",
    "ratio",
    "Gflop/s",
    "of best product",
    "PyTorch, Gflop/s",
    "compile, s",
    "compile with cache, s",
    "peak memory, MiB",
    "PyTorch, MiB",
    "runs",
)


def bench(options: Options) -> None:
    """Makes the measurements that `options` names and prints them on stdout. Progress is logged.

    Raises:
        InputError: a manifest is wrong, or a measuring process fails.
    """
    machine = Machine()
    if not options.peer:
        machine.peer = "PyTorch left out (--no-peer)"
    rows = measure.measure_all(options, machine)
    decoding = measure_decoding(options) if "decode" in options.work else None
    growths = measure_scaling(options.runs) if "scaling" in options.work else []
    prediction = predict(options, machine) if "librispeech" in options.work else None
    result = {
        "machine": describe_machine() | dataclasses.asdict(machine),
        "options": dataclasses.asdict(options),
        "rows": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in rows],
        "decoding": None if decoding is None else dataclasses.asdict(decoding),
        "scaling": [dataclasses.asdict(growth) for growth in growths],
        "prediction": prediction,
    }
    if options.json:
        print(json.dumps(result, indent=2, default=str))
        return
    print("\n".join(header_lines(machine, options)))
    for lines in (
        row_lines(rows, machine),
        decoding_lines(decoding),
        scaling_lines(growths),
        prediction_lines(prediction),
    ):
        if lines:
            print("\n" + "\n".join(lines))


def describe_machine() -> dict[str, Any]:
    """Describes processor, cores, system and Python version."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    if names:
        cpu = names[0].partition(":")[2].strip()
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": cpu, "cores": num_cores(), "system": system, "python": platform.python_version()}


def predict(options: Options, machine: Machine) -> dict[str, Any]:
    """Predicts the cost of an epoch from its plan and `costs.py`. Hours are operations over an assumed speed.

    Raises:
        InputError: the manifest is wrong, or none of its utterances is short enough.
    """
    size = parse_size(options.sizes[0], options.batch_size, options.frames)
    config = size.config
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=options.batch_size))
    longest = config.data.max_duration
    if options.manifest:
        all_durations = [utterance.duration for utterance in read_utterances(options.manifest)]
    else:
        all_durations = costs.librispeech_durations().tolist()
    durations = [duration for duration in all_durations if 0 < duration <= longest]
    if not durations:
        raise InputError(f"{options.manifest} must hold an utterance of at most {longest:g} s, got none.")
    utterances = [Utterance(Path(), duration, "", str(index)) for index, duration in enumerate(durations)]
    alphabet = Alphabet.of(config.data)
    split, num_labels = Split(utterances, alphabet), alphabet.size
    num_samples = split.num_samples(config.features.sample_rate)
    plan = Epochs(config, split).plan(0)
    epoch = costs.cost_of_epoch(plan, num_samples, config, num_labels)
    rows, frames = epoch.largest_batch
    largest = dataclasses.replace(size, batch_size=rows, num_frames=frames)
    peak = options.peak_gigaflops or machine.best_product or measure.measure_product(machine)
    return {
        "model": options.sizes[0],
        "num_parameters": costs.num_parameters(config, num_labels),
        "durations": str(options.manifest) if options.manifest else "assumed (costs.librispeech_durations)",
        "left_out": len(all_durations) - len(durations),
        "epoch": dataclasses.asdict(epoch),
        "largest_step_mib": measure.arrays_memory(largest),
        "peak_gigaflops": peak,
        "utilisation": options.utilisation,
        "predicted_hours_per_epoch": epoch.flops / (peak * 1e9 * options.utilisation) / 3600,
    }


def header_lines(machine: Machine, options: Options) -> list[str]:
    """Describes machine and versions, and how to read the numbers."""
    about = describe_machine()
    lines = [
        f"machine: {about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}",
        f"ours: {machine.ours}" if machine.ours else "",
        f"peer: {machine.peer}" if machine.ours else "",
    ]
    if machine.best_product:
        peer = f", PyTorch {machine.peer_product:.0f}" if machine.peer_product else ""
        side = measure.PRODUCT_SIDE
        lines += [
            f"best float32 product of {side} x {side} matrices: JAX {machine.product:.0f}{peer} Gflop/s",
            f"Times are medians of {options.runs} runs of each side in turn, each side in its own process. Ratio: the "
            "peer's time over ours. Larger is better.",
            "Our step starts from waveforms and computes the features. The peer gets the finished spectrograms, which "
            "favours it. Gflop/s count valid frames only, for both.",
            "Peak memory is that of a new process that does nothing else. Ours has its program in the compilation "
            "cache.",
            "The peer's allocator is tuned for speed, ours is not.",
        ]
    return [line for line in lines if line]


def row_lines(rows: Sequence[Row], machine: Machine) -> list[str]:
    """Makes a Markdown table with the remarks below it."""
    if not rows:
        return []
    lines = table(HEADER, [_cells(row, machine) for row in rows])
    for row in rows:
        if row.remarks:
            lines += ["", f"{row.work}:", *(f"* {remark}" for remark in row.remarks)]
    return lines


def _cells(row: Row, machine: Machine) -> list[str]:
    reached = row.gigaflops is not None and machine.best_product
    share = f"{row.gigaflops / machine.best_product:.0%}" if row.gigaflops is not None and reached else "–"
    return [
        row.work,
        f"{row.seconds:.3f}",
        _number(row.peer_seconds, ".3f"),
        _number(row.ratio, ".2f"),
        _number(row.gigaflops, ".0f"),
        share,
        _number(row.peer_gigaflops, ".0f"),
        _number(row.compile_seconds, ".1f"),
        _number(row.cached_compile_seconds, ".1f"),
        _number(row.peak_mib, ",.0f"),
        _number(row.peer_peak_mib, ",.0f"),
        str(row.runs),
    ]


def decoding_lines(decoding: Decoding | None) -> list[str]:
    """Makes a Markdown table of the decoders, below a description of what they decoded."""
    if decoding is None:
        return []
    rows = [
        [
            each.decoder,
            f"{each.times_real_time:,.0f}",
            f"{each.wer:.2%}",
            str(each.errors),
            "–" if each.different is None else str(each.different),
            str(len(each.times)),
        ]
        for each in decoding.decoders
    ]
    header = ("decoder", "times real time a core", "WER", "errors", "texts changed by pruning", "runs")
    return [
        f"Decoding only, {decoding.source}: {decoding.utterances} utterances, {decoding.audio_seconds:.0f} s, "
        f"frames of {decoding.seconds_per_frame * 1000:.0f} ms, mean probability of the best label "
        f"{decoding.certainty:.2f}.",
        f"Language model: {decoding.lm}, with default weights. Peer: {decoding.peer}.",
        "Times real time: seconds of audio over CPU seconds on one core, without compilation; median of the runs.",
        "",
        *table(header, rows),
    ]


def scaling_lines(growths: Sequence[Growth]) -> list[str]:
    """Makes a Markdown table of the measured points and the exponents fitted to them."""
    if not growths:
        return []
    rows = [
        [
            growth.axis,
            ", ".join(map(str, growth.values)),
            ", ".join(f"{seconds:.2f}" for seconds in growth.seconds),
            f"{growth.exponents['seconds']:.2f}",
            f"{growth.exponents['flops']:.2f}",
            ", ".join(f"{value:.0f}" for value in growth.arrays_mib),
            f"{growth.exponents['arrays_mib']:.2f}",
            ", ".join(f"{value:.0f}" for value in growth.peak_mib),
        ]
        for growth in growths
    ]
    header = (
        "along",
        "values",
        "step, s",
        "exponent",
        "of operations",
        "arrays of a device, MiB",
        "exponent",
        "peak memory, MiB",
    )
    return [
        f"Growth of a training step from {BASE}: a quantity is proportional to the axis to the power of its exponent.",
        "Devices are simulated on the same cores and share the batch, so only the overhead of splitting a step grows.",
        "",
        *table(header, rows),
    ]


def prediction_lines(prediction: dict[str, Any] | None) -> list[str]:
    """Describes the prediction, and marks it as one."""
    if prediction is None:
        return []
    epoch = prediction["epoch"]
    rows, frames = epoch["largest_batch"]
    return [
        f"PREDICTION, not a measurement: an epoch of {epoch['hours']:.0f} hours, {prediction['model']} "
        f"({prediction['num_parameters'] / 1e6:.1f} million parameters). Durations: {prediction['durations']}; "
        f"{prediction['left_out']} utterances left out as empty or too long.",
        f"* plan: {epoch['num_utterances']:,} utterances in {epoch['num_steps']:,} steps of "
        f"{epoch['num_shapes']} shapes, {epoch['padding']:.1%} of the frames are padding or in empty rows",
        f"* operations, padding included: {epoch['flops'] / 1e15:.1f} Pflop",
        f"* arrays of the largest batch ({rows} x {frames} frames): {prediction['largest_step_mib'] / 1024:.1f} GiB, "
        "by the compiler's own figure",
        f"* {prediction['predicted_hours_per_epoch']:,.1f} hours, if training reaches {prediction['utilisation']:.0%} "
        f"of {prediction['peak_gigaflops']:,.0f} Gflop/s",
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)

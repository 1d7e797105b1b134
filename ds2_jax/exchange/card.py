"""Writes the model card of an exported model from what its run knows."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from ds2_jax.config import Config
from ds2_jax.config.live import can_stream, describe
from ds2_jax.data.splits import found_manifests, read_utterances
from ds2_jax.evaluation.results import read_evaluation
from ds2_jax.exchange.proof import Comparison
from ds2_jax.exchange.target import Target
from ds2_jax.runs import run_folder
from ds2_jax.runs.named import home
from ds2_jax.system.errors import InputError
from ds2_jax.system.markdown import table
from ds2_jax.system.program import VERSION
from ds2_jax.text.alphabet import Alphabet

Kind = Target | Literal["stablehlo"] | None

EXAMPLES: Mapping[Kind, str] = {
    None: """python -m ds2_jax transcribe {name} recording.wav""",
    "stablehlo": """import jax, soundfile
import numpy as np

model = jax.export.deserialize(bytearray(open("{name}/model.stablehlo", "rb").read()))
samples, rate = soundfile.read("recording.wav", dtype="float32")  # {rate} Hz
padded = np.pad(samples, (0, -len(samples) % {frame}))  # to whole output frames
log_probs, num_frames = model.call(padded[None], np.array([len(samples)], np.int32))""",
    "sherpa-onnx": """import sherpa_onnx, soundfile

model, tokens = "{name}/model.onnx", "{name}/tokens.txt"
recognizer = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(model=model, tokens=tokens)
samples, rate = soundfile.read("recording.wav", dtype="float32")
stream = recognizer.create_stream()
stream.accept_waveform(rate, samples)
recognizer.decode_stream(stream)
print(stream.result.text)""",
    "onnx-asr": """import onnx_asr  # newer than 0.12.0

model = onnx_asr.load_model("wav2vec2-ctc", "{name}")
print(model.recognize("recording.wav"))""",
    "transformers.js": """import fs from "node:fs";
import {{ env, pipeline }} from "@huggingface/transformers";

env.localModelPath = "./";
const recognise = await pipeline("automatic-speech-recognition", "{name}", {{ dtype: "fp32", device: "cpu" }});
const bytes = new Uint8Array(fs.readFileSync("recording.wav")); // {rate} Hz, 16 bits, one channel
const samples = Float32Array.from(new Int16Array(bytes.buffer, 44), (x) => x / 32768);
const result = await recognise(samples);
console.log(result.text);""",
}
INSTALLED = "Where ds2_jax is installed (`pip install .` in a clone of it):\n\n"
LANGUAGES: Mapping[Kind, str] = {None: "sh", "transformers.js": "js"}


def text(
    run: Path, config: Config, variables: Any, found: Comparison, *, kind: Kind, int8: bool, float16: bool, name: str
) -> str:
    """Writes README.md: what the model is, how to use it, what it was trained on, and its error rates.

    Args:
        run: the folder of the run.
        config: its settings.
        variables: params and batch_stats.
        found: the comparison of the written model with the run.
        kind: the program that reads the folder, or stablehlo; None for this package.
        int8: whether the recurrent layers are quantised.
        float16: whether the weights are rounded to 16 bits.
        name: name of the model.
    """
    model, alphabet = config.model, Alphabet.of(config.data)
    parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"]))
    directions = "in both directions" if model.bidirectional else "forward only"
    facts = [
        f"{model.num_layers} {model.rnn_type.upper()} layers of {model.hidden_size} units, {directions}",
        f"{parameters:,} parameters"
        + (", recurrent layers in 8 bits" if int8 else "")
        + (", rounded to 16 bits" if float16 else ""),
        f"input: {config.features.sample_rate} Hz, one channel; output: a frame of "
        f"{1000 * config.seconds_per_frame:g} ms with {alphabet.size} labels, the first of which is CTC's blank",
        f"characters: `{alphabet.characters}`" + (f", in {len(alphabet.units)} pieces" if alphabet.pieces else ""),
    ]
    if can_stream(config):
        facts.append(describe(config))
    wer = found.errors[1].rate if found.errors else None
    head = ["---", "license: other # fill in", "language: # fill in", "library_name: ds2_jax", "tags:"]
    head += ["- automatic-speech-recognition", "metrics:", "- wer"]
    if wer is not None:
        head += [
            *("model-index:", f"- name: {name}", "  results:"),
            *("  - task:", "      type: automatic-speech-recognition"),
            *("    dataset:", f"      name: {Path(found.where).stem}", "      type: other"),
            *("    metrics:", "    - type: wer", f"      value: {100 * wer:.2f}"),
        ]
    head.append("---")
    language = LANGUAGES.get(kind, "python")
    use = example(kind, config, name)
    parts = [
        "\n".join(head),
        f"# {name}\n\nA Deep Speech 2 speech recogniser, trained and exported with ds2_jax {VERSION} on "
        f"{datetime.date.today().isoformat()}.",
        "\n".join(f"* {fact}" for fact in facts),
        f"## Use with {kind or 'ds2_jax'}\n\n{INSTALLED if kind is None else ''}```{language}\n{use}\n```",
        "## Data\n\n" + "\n".join(_data(config)),
        "## Error rates\n\n" + _rates(run, found),
        "## Comparison with the run it comes from\n\n" + "\n".join(f"* {line}" for line in found.lines),
        "## Licence and limits\n\n<!-- Fill in: the licence, who may use the model and for what, which speech it knows "
        "and which it does not. -->",
    ]
    return "\n\n".join(parts) + "\n"


def example(kind: Kind, config: Config, name: str) -> str:
    """Writes how the folder `name` is used."""
    frame = config.model.time_reduction * config.features.hop_length
    return EXAMPLES[kind].format(name=name, rate=config.features.sample_rate, frame=frame)


def _data(config: Config) -> list[str]:
    """Describes the splits that are still there."""
    lines = []
    corpus = config.data.corpus
    if corpus:
        lines.append(f"* corpus: {corpus}")
    for split, path in found_manifests(config.data).items():
        try:
            utterances = read_utterances(path)
        except InputError:
            continue
        hours = sum(utterance.duration for utterance in utterances) / 3600
        speakers = len({utterance.speaker for utterance in utterances if utterance.speaker})
        told = f", {speakers} speakers" if speakers else ""
        lines.append(f"* {split}: {path.stem}, {len(utterances):,} utterances, {hours:.2f} hours{told}")
    return lines or ["The manifests of the run were not found when the model was exported."]


def _rates(run: Path, found: Comparison) -> str:
    """Lists the written model's error rate and the evaluations of the run."""
    rows = []
    if found.errors and found.interval:
        low, high = found.interval
        rows.append(
            [Path(found.where).stem, "greedy, this model", f"{found.errors[1].rate:.2%}", f"{low:.2%} to {high:.2%}"]
        )
    folder = home(run) / run_folder.EVALUATIONS
    for path in sorted(folder.glob("*.json")):
        try:
            evaluation = read_evaluation(folder, path.stem)
        except InputError:
            continue
        if evaluation is not None and evaluation.words.reference_length:
            rows.append([path.stem, "the run", f"{evaluation.words.rate:.2%}", "–"])
    if not rows:
        return "Not measured: the run has no test split that was found."
    return "\n".join(table(["evaluated", "decoding", "WER", "95 % interval"], rows))

"""Measures the speed and the errors of decoders, one after another, on the same outputs of a model."""

import dataclasses
import logging
import math
import statistics
from typing import Any

from ds2_jax.bench.child import Child
from ds2_jax.bench.options import Options
from ds2_jax.evaluation.error_rates import ErrorCount, word_errors
from ds2_jax.system.interrupts import temporary_folder

logger = logging.getLogger(__package__)

MADE_SECONDS = 120.0
"""Largest number of seconds of synthetic outputs. Without pruning, decoding takes more than ten times as long."""
UNPRUNED = {"beam_width": 1024, "beam_threshold": math.inf, "label_threshold": -math.inf, "max_labels": 10**6}
DECODERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("greedy", "greedy", {}),
    ("beam, width 16", "beam", {"beam_width": 16}),
    ("beam, width 128", "beam", {}),
    ("fast-ctc-decode, width 16", "peer", {"beam_width": 16}),
    ("fast-ctc-decode, width 128", "peer", {}),
    ("beam and language model, width 16", "lm", {"beam_width": 16}),
    ("beam and language model, width 128", "lm", {}),
    ("beam and language model, width 1024, nothing else pruned", "lm", UNPRUNED),
)
"""Title, decoder and options of each. The others with a language model are compared with the last one."""


@dataclasses.dataclass
class Decoded:
    """The results of a decoder.

    Attributes:
        decoder: title of the decoder.
        times: CPU seconds of each run over all utterances, on one core.
        times_real_time: seconds of audio over the median of the times.
        errors: number of word errors.
        wer: word error rate.
        different: number of texts that differ from those of the search without pruning; None without a language model.
    """

    decoder: str
    times: list[float]
    times_real_time: float
    errors: int
    wer: float
    different: int | None = None


@dataclasses.dataclass
class Decoding:
    """The results of all decoders, and a description of the outputs that they decoded.

    Attributes:
        source: the run and split of the outputs, or "synthetic outputs".
        lm: the language model.
        certainty: mean probability of a frame's best label.
        peer: version of fast-ctc-decode, or the reason why it is not measured.
    """

    source: str
    lm: str
    utterances: int
    audio_seconds: float
    seconds_per_frame: float
    certainty: float
    peer: str
    decoders: list[Decoded] = dataclasses.field(default_factory=list)


def measure_decoding(options: Options) -> Decoding:
    """Measures each decoder on the test split of `options.run`, or on synthetic outputs.

    Raises:
        InputError: the run, the manifest or the language model is wrong.
    """
    logger.info("measuring decode")
    run, manifest, lm = (None if path is None else str(path) for path in (options.run, options.manifest, options.lm))
    with temporary_folder() as folder, Child("ds2_jax.bench.decoder_child") as process:
        seconds = min(MADE_SECONDS, options.minutes * 60)
        about = process.ask("load", run=run, manifest=manifest, lm=lm, seconds=seconds, folder=str(folder))
        references = about.pop("references")
        peer = process.ask("describe") or "fast-ctc-decode not installed"
        result = Decoding(
            source=f"{run}, {manifest or 'test split'}" if run else "synthetic outputs",
            lm=lm or ("3-gram of its training transcripts" if run else "3-gram of 200,000 synthetic words"),
            utterances=len(references),
            peer=peer if options.peer else "fast-ctc-decode left out (--no-peer)",
            **about,
        )
        texts: dict[str, list[str]] = {}
        for title, decoder, settings in DECODERS:
            if decoder == "peer" and (not options.peer or peer.endswith("not installed")):
                continue
            runs = 1 if settings is UNPRUNED else options.runs
            answer = process.ask("decode", name=decoder, options=settings, runs=runs)
            texts[title] = answer["texts"]
            errors = sum(map(word_errors, references, answer["texts"]), start=ErrorCount())
            speed = result.audio_seconds / statistics.median(answer["times"])
            result.decoders.append(Decoded(title, answer["times"], speed, errors.edits, errors.rate))
    kinds = {title: decoder for title, decoder, _ in DECODERS}
    for each in result.decoders:
        if kinds[each.decoder] == "lm":
            each.different = sum(map(str.__ne__, texts[each.decoder], texts[DECODERS[-1][0]]))
    return result

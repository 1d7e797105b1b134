"""`lm units`: divides the words of a text into pieces that a model can have as labels."""

import collections
import io
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from ds2_jax.lm.build import UNCHANGED, Texts, check_places, describe_text
from ds2_jax.lm.kneser_ney import END, START
from ds2_jax.lm.text import OnUnknown, Text, read_texts
from ds2_jax.runs.overrides import AlphabetSettings, read_settings
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import write_bytes
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import WORD_START, Kind, load_sentencepiece, read_model

NUM_SHOWN = 12


def units(
    texts: Texts,
    out: Path,
    size: int = 500,
    kind: Kind = "unigram",
    config: Path | None = None,
    run: Path | None = None,
    data: AlphabetSettings = UNCHANGED,
    on_unknown: OnUnknown = "error",
) -> int:
    """Makes labels that are pieces of words, with SentencePiece, for the setting data.units.

    Fewer labels a second need fewer output frames, and a piece such as ING is learnt as a whole. But each piece is
    heard less often than a character, so pieces need more speech; a usual rule of thumb is a hundred hours. Sentences
    are normalised like transcripts. Every character of the alphabet is a piece too, so any text can be written.

    Args:
        texts: UTF-8 text with one sentence a line, plain or gzipped, or - for standard input. Manifests (.jsonl, .json)
            and TensorFlow data sets (tfds:NAME#SPLIT) are read for their transcripts.
        out: file of the SentencePiece model to write. An existing file is replaced.
        size: number of pieces.
        kind: unigram: the pieces that make the text most probable. bpe: neighbours that are frequent are joined, again
            and again.
        config: configuration file or name of a recipe whose alphabet to use. The default alphabet is English.
        run: folder of a training run whose alphabet to use instead.
        data: settings that replace those of --config or --run.
        on_unknown: what to do with a sentence that has characters outside the alphabet. error: stop and list them.
            skip: leave the sentence out and count it.

    Returns:
        0.

    Raises:
        InputError: the settings or a text cannot be read, a sentence cannot be spelled, the alphabet has no space, the
            text is too short for so many pieces, or `out` cannot be written.
    """
    check_places(texts, out)
    load_sentencepiece("lm units")
    settings, source = read_settings(config, run, data=data)
    plain = Alphabet.of_characters(settings.data)
    require(plain.spaced, "data.alphabet", "have a space that separates words", plain.characters, "Use characters.")
    least = len(plain.characters)
    require(size > least, "--size", f"be more than {least}, the characters of the alphabet", size, "Give a larger one.")
    print(f"alphabet {plain.characters!r}: {source}", flush=True)
    text = read_texts(texts, plain, on_unknown)
    print("\n".join(describe_text(text, spaced=True)), flush=True)
    counts = count_words(text)
    write_bytes(out, train(counts, plain, size, kind))
    print("\n".join(describe(counts, out)))
    print(f"{out}: to train with it, add {' '.join(map(shlex.quote, ['--data.units', str(out)]))}")
    return 0


def count_words(text: Text) -> dict[str, int]:
    """Counts the words of a text."""
    numbers, counts = np.unique(text.tokens, return_counts=True)
    pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
    return {text.words[number]: count for number, count in pairs if number not in (START, END)}


def train(counts: dict[str, int], alphabet: Alphabet, size: int, kind: Kind) -> bytes:
    """Trains a SentencePiece model with this many pieces; returns its file. Equal counts give equal bytes.

    Raises:
        InputError: the words are too few for so many pieces, or sentencepiece is missing.
    """
    written = io.BytesIO()
    options: dict[str, Any] = {
        "vocab_size": size + 1,  # <unk> counts
        "model_type": kind,
        "input_format": "tsv",
        "normalization_rule_name": "identity",
        "character_coverage": 1.0,
        "required_chars": alphabet.characters.replace(" ", ""),
        "bos_id": -1,
        "eos_id": -1,
        "max_sentence_length": 1 + max(len(f"{word}\t{count}".encode()) for word, count in counts.items()),
        "num_threads": 1,  # the order of sums
        "minloglevel": 2,
    }
    lines = (f"{word}\t{count}" for word, count in counts.items())
    try:
        load_sentencepiece("lm units").SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=written, **options
        )
    except RuntimeError as error:
        most = re.search(r"value <= (\d+)", str(error))
        rule = f"be at most {int(most[1]) - 1} for this text" if most else f"fit this text: {error}"
        raise InputError(f"--size must {rule}, got {size}. Give a smaller one, or more text.") from error
    return written.getvalue()


def describe(counts: dict[str, int], model: Path) -> list[str]:
    """Tells how long the pieces of a model are, and shows those that are used most."""
    pieces = read_model(model)
    used = collections.Counter[int]()
    for word, count in counts.items():
        used.update({index: count * number for index, number in collections.Counter(pieces.encode(word)).items()})
    characters = sum((len(word) + 1) * count for word, count in counts.items())
    most = [pieces.texts[index].replace(" ", WORD_START) for index, _ in used.most_common()]
    longer = [text for text in most if len(text.strip(WORD_START)) > 1]
    mean = f"a piece of the text has {characters / used.total():.2f} characters, spaces included"
    return [
        f"{len(pieces.texts):,} pieces; {mean}",
        f"most used of more than one character: {' '.join(longer[:NUM_SHOWN]) or 'none'}",
    ]

"""Language models and sentences of the golden n-gram tests, written by hand or drawn from seeds.

make_ngram_golden.py (KenLM) and the tests share this module, so it is plain Python. Only KenLM's scores are stored.
"""

import random
from collections.abc import Iterator

HAND = """\
\\data\\
ngram 1=6
ngram 2=5
ngram 3=2

\\1-grams:
-1.25\t<unk>
-99\t<s>\t-0.5
-0.75\t</s>
-0.5\tTHE\t-0.25
-0.625\tCAT\t0.125
-2\tSAT

\\2-grams:
-0.25\t<s> THE\t-0.125
-0.375\tTHE CAT\t-0.0625
-0.5\tCAT SAT
-0.875\tSAT </s>
-1.5\tTHE THE\t-3

\\3-grams:
-0.0625\t<s> THE CAT
-0.03125\tTHE CAT SAT

\\end\\
"""
"""The back-off weight of CAT is positive, as pruned models can have it; SAT has none."""

NGram = tuple[str, ...]


def models() -> dict[str, str]:
    """Returns ARPA texts that KenLM can read."""
    return {
        "hand": HAND,
        "without_unknown": HAND.replace("ngram 1=6", "ngram 1=5").replace("-1.25\t<unk>\n", ""),
        "capital_unknown": HAND.replace("<unk>", "<UNK>"),
        "bigram": _draw("bigram", 2, 12, 40, 1.0),
        "closed": _draw("closed", 3, 20, 150, 1.0),
        "pruned": _draw("pruned", 3, 20, 150, 0.8),
        "five": _draw("five", 5, 8, 120, 0.85),
        "characters": _draw("characters", 4, 0, 120, 0.85, words=[*"なにぬねの山川"]),
    }


def sentences(name: str) -> list[str]:
    """Makes sentences for a model: empty, of known words, with unknown words, with several spaces between words."""
    rng = random.Random(f"sentences of {name}")
    words = sorted(_words(models()[name]) - {"<s>", "</s>", "<unk>", "<UNK>"})
    known = [" ".join(_pick(rng, words) for _ in range(length)) for length in (1, 2, 3, 5, 8, 13, 21, 34) * 3]
    unknown = [" ".join(_pick(rng, [*words, "Zebra", "zürich"]) for _ in range(length)) for length in (1, 2, 4, 9) * 3]
    return ["", "Zebra", f"  {words[0]}\t {words[1]} ", *known, *unknown]


def _words(arpa: str) -> set[str]:
    section = arpa.partition("\\1-grams:\n")[2].partition("\\")[0]
    return {line.split()[1] for line in section.splitlines() if line}


def _pick(rng: random.Random, choices: list[str]) -> str:
    return choices[int(rng.random() * len(choices))]


def _draw(name: str, order: int, num_words: int, num_ngrams: int, kept: float, words: list[str] | None = None) -> str:
    """Draws a model with `num_ngrams` of the highest order.

    The beginning of each n-gram is listed too, as in the models of every tool. Its end is listed only with probability
    `kept`, as in a pruned model. Some back-off weights are missing.
    """
    rng = random.Random(name)
    words = words or [f"w{index}" for index in range(num_words)]
    listed: list[dict[NGram, None]] = [{(word,): None for word in ("<s>", "</s>", "<unk>", *words)}]
    listed += [{} for _ in range(order - 1)]
    while len(listed[-1]) < num_ngrams:
        drawn = [_pick(rng, words) for _ in range(order)]
        if rng.random() < 0.2:
            drawn[0] = "<s>"
        if rng.random() < 0.2:
            drawn[-1] = "</s>"
        for ends in _with_ends(tuple(drawn), rng, kept):
            for length in range(2, len(ends) + 1):
                listed[length - 1][ends[:length]] = None
    sections = [f"\\data\\\n{''.join(f'ngram {n}={len(each)}' + chr(10) for n, each in enumerate(listed, start=1))}"]
    for length, ngrams in enumerate(listed, start=1):
        lines = [f"\\{length}-grams:"]
        for ngram in sorted(ngrams, key=lambda _: rng.random()):
            log10 = -99 if ngram == ("<s>",) else -0.01 - 3 * rng.random()
            weight = f"\t{0.3 - rng.random():.6f}" if length < order and rng.random() < 0.7 else ""
            lines.append(f"{log10:.6f}\t{' '.join(ngram)}{weight}")
        sections.append("\n".join(lines) + "\n")
    return "\n".join([*sections, "\\end\\\n"])


def _with_ends(ngram: NGram, rng: random.Random, kept: float) -> Iterator[NGram]:
    yield ngram
    while len(ngram) > 2 and rng.random() < kept:
        ngram = ngram[1:]
        yield ngram

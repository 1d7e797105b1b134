"""Stores the models of KenLM's lmplz and irstlm's tlm for the text of zipf_text.py, in kneser_ney.json.

Run it from the root of the repository: `python -m tests.golden.make_kneser_ney LMPLZ TLM`, with the paths of the two
programs: lmplz built from KenLM's sources, and tlm of Debian's package irstlm (/usr/lib/irstlm/bin/tlm).
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.golden.zipf_text import sentences

ORDER = 3
TRAINED, HEARD = (20_000, 1), (2_000, 2)
"""Numbers of sentences and seeds."""
NUM_SCORED = 100
"""Sentences whose scores are stored."""
Ngrams = dict[tuple[str, ...], tuple[float, float]]


def read_arpa(path: Path) -> Ngrams:
    """Reads the log10 probability and back-off weight of every n-gram."""
    ngrams: Ngrams = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        fields = line.split("\t")
        if len(fields) > 1:
            ngrams[tuple(fields[1].split())] = float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0
    return ngrams


def log_prob(ngrams: Ngrams, context: tuple[str, ...], word: str) -> float:
    """Computes the log10 probability of a word after a context, from the longest n-gram in the model."""
    if (*context, word) in ngrams:
        return ngrams[*context, word][0]
    return ngrams.get(context, (0.0, 0.0))[1] + log_prob(ngrams, context[1:], word)


def log_probs(ngrams: Ngrams, sentence: str) -> list[float | None]:
    """Computes the log10 probabilities of every word and of the sentence end; None for a word not in the model."""
    words = ["<s>", *sentence.split(), "</s>"]
    words = [word if (word,) in ngrams else "<unk>" for word in words]
    return [
        None if words[i] == "<unk>" else log_prob(ngrams, tuple(words[max(0, i - ORDER + 1) : i]), words[i])
        for i in range(1, len(words))
    ]


def known(scores: list[float | None]) -> float:
    """Sums log10 probabilities, without words that are not in the model."""
    return sum(score for score in scores if score is not None)


def perplexity(ngrams: Ngrams) -> float:
    """Computes the perplexity of the held-out text, with ends of sentences and without unknown words."""
    scores = [score for sentence in sentences(*HEARD) for score in log_probs(ngrams, sentence) if score is not None]
    return float(10 ** (-sum(scores) / len(scores)))


def main(lmplz: str, tlm: str) -> None:
    """Runs both programs and stores their results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, marked = folder / "text", folder / "marked"
        trained = list(sentences(*TRAINED))
        text.write_text("".join(f"{sentence}\n" for sentence in trained))
        marked.write_text("".join(f"<s> {sentence} </s>\n" for sentence in trained))
        kenlm, irstlm = folder / "kenlm.arpa", folder / "irstlm.arpa"
        command = [lmplz, "-o", str(ORDER), "-S", "1G", "-T", name, "--text", str(text), "--arpa", str(kenlm)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        command = [tlm, f"-tr={marked}", f"-n={ORDER}", "-lm=ImprovedKneserNey", "-bo=no", "-ps=no", f"-oarpa={irstlm}"]
        subprocess.run(command, check=True, capture_output=True)
        ngrams = read_arpa(kenlm)
        heard = list(sentences(*HEARD))[:NUM_SCORED]
        found = {
            "kenlm": {
                "counts": [sum(len(ngram) == size for ngram in ngrams) for size in range(1, ORDER + 1)],
                "discounts": re.findall(r"D1=(\S+) D2=(\S+) D3\+=(\S+)", told),
                "unknown": ngrams["<unk>",][0],
                "log_probs": [round(known(log_probs(ngrams, sentence)), 6) for sentence in heard],
                "perplexity": perplexity(ngrams),
            },
            "irstlm": {
                "unknown": (other := read_arpa(irstlm))["<unk>",][0],
                "backoffs": {
                    " ".join(pair): other[pair][1]
                    for pair in itertools.pairwise(" ".join(heard).split())
                    if ngrams.get(pair, (0, 0))[1]  # irstlm also has one for n-grams that end a sentence
                },
                "perplexity": perplexity(other),
            },
        }
    Path(__file__).with_name("kneser_ney.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A text that anybody can make again: words with Zipf's frequencies, each drawn in part by the two before it."""

import random
from collections.abc import Iterator

NUM_WORDS = 26**3


def sentences(count: int, seed: int) -> Iterator[str]:
    """Sentences of 2 to some 40 words of capital letters; the same ones everywhere, from Python's own generator."""
    draw = random.Random(seed).random
    for _ in range(count):
        first = second = 0
        words: list[str] = []
        while len(words) < 2 or draw() > 0.1:
            chance, share = draw(), draw()
            if chance < 0.3:
                place = int(NUM_WORDS**share)  # r with a share of 1 / r
            elif chance < 0.6:
                place = second % 97 * 31 + int(400**share)
            else:
                place = first % 29 * 61 + second % 53 * 7 + int(30**share)
            first, second = second, place % NUM_WORDS
            words.append(spell(second))
        yield " ".join(words)


def spell(place: int) -> str:
    """The word at a place of the vocabulary."""
    return "".join(chr(ord("A") + (place // power) % 26) for power in (1, 26, 676))

"""A reproducible text: words with Zipf frequencies, each drawn partly from the two words before it."""

import random
from collections.abc import Iterator

NUM_WORDS = 26**3


def sentences(count: int, seed: int) -> Iterator[str]:
    """Draws sentences of 2 to about 40 words in capitals. Python's own generator gives the same on every machine."""
    draw = random.Random(seed).random
    for _ in range(count):
        first = second = 0
        words: list[str] = []
        while len(words) < 2 or draw() > 0.1:
            chance, share = draw(), draw()
            if chance < 0.3:
                place = int(NUM_WORDS**share)  # place r has probability proportional to 1 / r
            elif chance < 0.6:
                place = second % 97 * 31 + int(400**share)
            else:
                place = first % 29 * 61 + second % 53 * 7 + int(30**share)
            first, second = second, place % NUM_WORDS
            words.append(spell(second))
        yield " ".join(words)


def spell(place: int) -> str:
    """Returns the word at a place of the vocabulary."""
    return "".join(chr(ord("A") + (place // power) % 26) for power in (1, 26, 676))

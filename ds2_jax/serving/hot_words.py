"""The hot words of a request: what its fields "keywords" and "prompt" ask for."""

from collections.abc import Iterable

from ds2_jax.serving.errors import wrong
from ds2_jax.text.alphabet import Alphabet

MOST, LONGEST = 1000, 200
"""Hot words of a request, and characters in one. Time and memory grow with the square of the characters."""


def hot_words(prompt: str, keywords: Iterable[str], alphabet: Alphabet) -> list[str]:
    """Lists the keywords, and those words of a prompt that the model can write; each once.

    Words of a prompt that are too long, or too many, are left out.

    Raises:
        RequestError: there are too many keywords, or one is too long.
    """
    wanted = [each.strip() for each in keywords if each.strip()]
    if len(wanted) > MOST or any(len(each) > LONGEST for each in wanted):
        longest = max(map(len, wanted))
        got = f"{len(wanted)}, the longest of {longest}"
        raise wrong("keywords", f"be at most {MOST} words of at most {LONGEST} characters", got, "Leave some out.")
    said = [each for each in prompt.split() if len(each) <= LONGEST][: MOST - len(wanted)]
    words = wanted + [each.strip(".,;:!?\"'()") for each in said]
    named = {alphabet.normalise(each): each for each in reversed(words)}
    return [each for key, each in named.items() if key and (each in wanted or not alphabet.unknown(each))]

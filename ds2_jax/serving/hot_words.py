"""The hot words of a request: what its fields "keywords" and "prompt" ask for."""

from collections.abc import Iterable

from ds2_jax.text.alphabet import Alphabet


def hot_words(prompt: str, keywords: Iterable[str], alphabet: Alphabet) -> list[str]:
    """Lists the keywords, and those words of a prompt that the model can write; each once."""
    wanted = [each.strip() for each in keywords if each.strip()]
    words = wanted + [each.strip(".,;:!?\"'()") for each in prompt.split()]
    named = {alphabet.normalise(each): each for each in reversed(words)}
    return [each for key, each in named.items() if key and (each in wanted or not alphabet.unknown(each))]

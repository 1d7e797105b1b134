"""`data alphabet`: the characters of transcripts, and the settings that fit them."""

import dataclasses
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from ds2_jax.curation.stats import Manifests, read_manifests
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import SHAPES, Alphabet

Kind = Literal["alphabet", "inside words", "removed", "spoken", "rare"]

RARE = 1e-5
"""Share of all characters below which a letter is more likely a slip or of a foreign name."""
FOREIGN = 0.03
"""Share of all letters below which those of another script are more likely look-alikes or foreign words."""
INSIDE = 1e-4
"""Share of all characters from which a mark between two letters belongs to the language's spelling."""
APOSTROPHES = SHAPES[0]
IN_WORDS = f"{APOSTROPHES}·\u200c\u200d"
"""Marks that can be part of words: apostrophes, the Catalan dot, the joiners of Persian and Indic scripts."""
SPOKEN = "%&@#§*"
"""Punctuation to Unicode, but words to whoever reads it aloud; so are digits and other symbols."""
CONTEXT = 15
"""Characters of an example on each side."""
EXPLAINED: dict[Kind, str] = {
    "alphabet": "letters, in the alphabet",
    "inside words": "part of words, in the alphabet",
    "removed": "not spoken, to be read as spaces or kept inside words (data.remove)",
    "spoken": "spoken: write the words in the transcripts",
    "rare": "rare or of another script: mend the transcripts, or add them to data.alphabet",
}


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What the transcripts hold, and the settings for it.

    Attributes:
        alphabet: with its rules.
        counts: of every character, in the alphabet's case.
        kinds: of every character.
        examples: a piece of a transcript for every character.
        turkish: whether a change of case confuses the dotless and the dotted i.
    """

    alphabet: Alphabet
    counts: Counter[str]
    kinds: dict[str, Kind]
    examples: dict[str, str]
    turkish: bool


def alphabet(manifests: Manifests) -> int:
    """Counts the characters of transcripts and proposes settings for them, ready to paste behind train or data check.

    Letters become the alphabet: capital ones where the transcripts have no others, else small ones. Punctuation is to
    be removed, apostrophes inside words are kept. Digits, symbols and rare letters are listed for you to decide on:
    with them, data check and training name the transcripts that hold them.

    Args:
        manifests: those of all splits, also tfds:NAME#SPLIT, in any of the formats that training reads.

    Returns:
        0.

    Raises:
        InputError: a manifest cannot be read, or no transcript holds a letter.
    """
    transcripts = [u.transcript for utterances in read_manifests(manifests).values() for u in utterances]
    proposal = propose(transcripts)
    print("\n".join(describe(proposal)))
    mended = sum(bool(proposal.alphabet.unknown(transcript)) for transcript in transcripts)
    print(
        f"\nWith these settings {mended:,} of {len(transcripts):,} transcripts hold a character that must be mended:\n"
    )
    removed = f" --data.remove={quote(proposal.alphabet.remove)}" if proposal.alphabet.remove else ""
    print(f"--data.alphabet={quote(proposal.alphabet.characters)}{removed}")
    return 0


def propose(transcripts: Sequence[str]) -> Proposal:
    """The settings that fit `transcripts`.

    Raises:
        InputError: they hold no letter.
    """
    composed = [unicodedata.normalize("NFC", transcript) for transcript in transcripts]
    has_small = any(text != text.upper() for text in composed)
    cased = [unicodedata.normalize("NFC", text.lower()) if has_small else text for text in composed]
    counts, inside = Counter[str](), Counter[str]()
    examples: dict[str, str] = {}
    between = re.compile(rf"(?<=\w)[{IN_WORDS}](?=\w)")
    for text in (" ".join(text.split()) for text in cased):
        counts.update(text)
        inside.update(between.findall(text))
        for character in set(text) - examples.keys():
            at = text.index(character)
            examples[character] = text[max(0, at - CONTEXT) : at + CONTEXT]
    kinds = classify(counts, inside)
    written_as = [c for c, kind in kinds.items() if kind in ("alphabet", "inside words") and c != " "]
    # Accents that have no letter of their own come first: behind another letter they could compose with it.
    letters = sorted(written_as, key=lambda c: (not unicodedata.combining(c), unicodedata.combining(c), c))
    if not any(c.isalpha() for c in letters):
        raise InputError("The transcripts must hold letters, got none. Check that these are the right manifests.")
    # What is kept inside words and also occurs elsewhere, as quotation marks do, is removed there.
    outside = [c for c, kind in kinds.items() if kind == "inside words" and counts[c] > inside[c]]
    removed = sorted([c for c, kind in kinds.items() if kind == "removed"] + outside)
    settings = Alphabet("".join(letters) + (" " if " " in counts else ""), remove="".join(removed))
    written = set().union(*composed)
    turkish = has_small and bool(written & set("ıİ")) and bool(written & set("Iİ"))
    return Proposal(settings, counts, kinds, examples, turkish)


def classify(counts: Counter[str], inside: Counter[str]) -> dict[str, Kind]:
    """The kind of every character, most frequent first.

    Args:
        counts: of characters, composed and in one case.
        inside: how many of them stand between two letters, for `IN_WORDS`.
    """
    total = counts.total()
    scripts = Counter[str]()
    for character, count in counts.items():
        if character.isalpha():
            scripts[_script(character)] += count
    spelled = sum(inside[c] for c in APOSTROPHES) >= max(1, INSIDE * total)
    kinds: dict[str, Kind] = {}
    for character, count in counts.most_common():
        category = unicodedata.category(character)
        if character in APOSTROPHES:
            # Whatever their shape: all are read as the typewriter's, which is in the alphabet for them.
            kinds[character] = "inside words" if spelled and character == "'" else "removed"
        elif character in IN_WORDS and inside[character] >= max(1, INSIDE * total):
            kinds[character] = "inside words"
        elif character == " " or category[0] in "LM":
            foreign = character.isalpha() and scripts[_script(character)] < FOREIGN * scripts.total()
            kinds[character] = "rare" if foreign or count < RARE * total else "alphabet"
        elif category[0] == "N" or (category[0] == "S" and category != "Sk") or character in SPOKEN:
            kinds[character] = "spoken"
        else:
            kinds[character] = "removed" if category[0] == "P" or category in ("Sk", "Cf") else "rare"
    if spelled:
        kinds.setdefault("'", "inside words")
    return kinds


def _script(letter: str) -> str:
    """For example LATIN or CYRILLIC: the first word of the letter's name in Unicode."""
    return unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]


def describe(proposal: Proposal) -> Iterator[str]:
    """The characters by kind, with their counts, and for those to decide on with examples."""
    counts = proposal.counts
    yield f"{counts.total():,} characters, {len(counts):,} different ones, as they are read"
    for kind, explained in EXPLAINED.items():
        characters = [c for c, its_kind in proposal.kinds.items() if its_kind == kind]
        if not characters:
            continue
        yield f"\n{explained}:"
        if kind == "alphabet":
            yield "  " + "  ".join(f"{_shown(c)} {counts[c]:,}" for c in characters)
        else:
            yield from (f"  {_shown(c)} {counts[c]:>7,}  {proposal.examples.get(c, '')!r}" for c in characters)
    if proposal.turkish:
        yield "\nTurkish: capital letters are read by Unicode's rules, I as i. Write the transcripts in small letters."


def _shown(character: str) -> str:
    """The character, or its number where it would not be seen."""
    odd = unicodedata.category(character)[0] in "CM" or character == " "
    return {" ": "space"}.get(character, f"U+{ord(character):04X}") if odd else character


def quote(text: str) -> str:
    """`text` for a shell, in double quotes where it holds an apostrophe and nothing that they leave active."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)

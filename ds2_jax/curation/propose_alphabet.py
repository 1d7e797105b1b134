"""Runs the command `data alphabet`: counts the characters of transcripts and proposes settings that fit them."""

import dataclasses
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from ds2_jax.curation.stats import Manifests, read_manifests
from ds2_jax.data.manifest import NUM_EXAMPLES
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.alphabet import SHAPES, SPOKEN, Alphabet, is_punctuation
from ds2_jax.text.encoding import broken_part

Kind = Literal["alphabet", "inside words", "removed", "spoken", "rare", "broken"]

RARE = 1e-5
"""A letter that is a smaller fraction of all characters is probably a typing error or part of a foreign name."""
FOREIGN = 0.03
"""A script with a smaller fraction of all letters probably comes from look-alikes or foreign words."""
INSIDE = 1e-4
"""A mark between two letters belongs to the spelling if it is at least this fraction of all characters."""
LOST = "?\ufffd"
"""Characters that stand for letters which a wrong encoding lost."""
QUESTIONS = 10
"""A question mark is not removed if this many times the transcripts in which it looks wrong are as many as all with
one."""
APOSTROPHES = SHAPES[0]
IN_WORDS = f"{APOSTROPHES}·\u200c\u200d"
"""Marks that can be part of words: apostrophes, the Catalan dot, the joiners of Persian and Indic scripts."""
CONTEXT = 15
"""The number of characters on each side in an example."""
EXPLAINED: dict[Kind, str] = {
    "alphabet": "letters, in the alphabet",
    "inside words": "part of words, in the alphabet",
    "removed": "not spoken, to be replaced by spaces or kept inside words (data.remove)",
    "spoken": "spoken: write them as words in the transcripts",
    "rare": "rare or of another script: correct the transcripts, or add these to data.alphabet",
    "broken": "perhaps instead of letters that a wrong encoding lost: repair the transcripts",
}


@dataclasses.dataclass(frozen=True)
class Proposal:
    """The characters of the transcripts, and settings that fit them.

    Attributes:
        alphabet: the proposed alphabet and its rules.
        counts: count of every character, in the alphabet's case.
        kinds: kind of every character.
        examples: a part of a transcript in which the character occurs, for every character.
        turkish: whether a change of case would confuse the dotless and the dotted i.
        broken: transcripts that a wrong encoding may have broken.
    """

    alphabet: Alphabet
    counts: Counter[str]
    kinds: dict[str, Kind]
    examples: dict[str, str]
    turkish: bool
    broken: Sequence[str] = ()


def alphabet(manifests: Manifests) -> int:
    """Counts the characters of transcripts and proposes settings, ready to paste after train or data check.

    Letters form the alphabet: capital letters if the transcripts have only those, else small letters. Punctuation is
    removed, except apostrophes and similar marks inside words. Digits, symbols and rare letters are listed for you to
    decide on: data check and training name the transcripts that hold them.

    Args:
        manifests: the manifests of all splits in any format that training reads, or tfds:NAME#SPLIT.

    Returns:
        The exit code 0.

    Raises:
        InputError: a manifest cannot be read, or no transcript holds a letter.
    """
    transcripts = [u.transcript for utterances in read_manifests(manifests).values() for u in utterances]
    proposal = propose(transcripts)
    print("\n".join(describe(proposal)))
    mended = sum(bool(proposal.alphabet.unknown(transcript)) for transcript in transcripts)
    print(f"\nWith these settings {mended:,} of {len(transcripts):,} transcripts hold a character to replace:\n")
    removed = f" --data.remove={quote(proposal.alphabet.remove)}" if proposal.alphabet.remove else ""
    print(f"--data.alphabet={quote(proposal.alphabet.characters)}{removed}")
    return 0


def propose(transcripts: Sequence[str]) -> Proposal:
    """Proposes settings that fit transcripts.

    Raises:
        InputError: the transcripts hold no letter.
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
    broken = [text for text in composed if broken_part(text)]
    for character in LOST:
        odd = sum(character in broken_part(text) for text in broken)
        if odd and odd * QUESTIONS >= sum(character in text for text in composed):
            kinds[character] = "broken"
    written_as = [c for c, kind in kinds.items() if kind in ("alphabet", "inside words") and c != " "]
    # Combining accents come first: after a letter, they could compose with it.
    letters = sorted(written_as, key=lambda c: (not unicodedata.combining(c), unicodedata.combining(c), c))
    if not any(c.isalpha() for c in letters):
        raise InputError("The transcripts must hold letters, got none. Check that these are the right manifests.")
    # Marks that are kept inside words but also occur elsewhere, such as quotation marks, are removed elsewhere.
    outside = [c for c, kind in kinds.items() if kind == "inside words" and counts[c] > inside[c]]
    removed = sorted([c for c, kind in kinds.items() if kind == "removed"] + outside)
    settings = Alphabet("".join(letters) + (" " if " " in counts else ""), remove="".join(removed))
    written = set().union(*composed)
    turkish = has_small and bool(written & set("ıİ")) and bool(written & set("Iİ"))
    return Proposal(settings, counts, kinds, examples, turkish, broken)


def classify(counts: Counter[str], inside: Counter[str]) -> dict[str, Kind]:
    """Classifies every character, the most frequent first.

    Args:
        counts: counts of the characters, composed and in one case.
        inside: how often each character of `IN_WORDS` stands between two letters.
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
            # All apostrophes are read as the straight one, which stands for them in the alphabet.
            kinds[character] = "inside words" if spelled and character == "'" else "removed"
        elif character in IN_WORDS and inside[character] >= max(1, INSIDE * total):
            kinds[character] = "inside words"
        elif character == " " or category[0] in "LM":
            foreign = character.isalpha() and scripts[_script(character)] < FOREIGN * scripts.total()
            kinds[character] = "rare" if foreign or count < RARE * total else "alphabet"
        elif category[0] == "N" or (category[0] == "S" and category != "Sk") or character in SPOKEN:
            kinds[character] = "spoken"
        else:
            kinds[character] = "removed" if is_punctuation(character) else "rare"
    if spelled:
        kinds.setdefault("'", "inside words")
    return kinds


def _script(letter: str) -> str:
    """Returns the script of a letter, such as LATIN or CYRILLIC: the first word of its Unicode name."""
    return unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]


def describe(proposal: Proposal) -> Iterator[str]:
    """Yields the characters by kind with their counts, and with examples for those to decide on."""
    counts = proposal.counts
    yield f"{counts.total():,} characters, {len(counts):,} different ones, after normalisation"
    for kind, explained in EXPLAINED.items():
        characters = [c for c, its_kind in proposal.kinds.items() if its_kind == kind]
        if not characters:
            continue
        yield f"\n{explained}:"
        if kind == "alphabet":
            yield "  " + "  ".join(f"{_shown(c)} {counts[c]:,}" for c in characters)
        else:
            yield from (f"  {_shown(c)} {counts[c]:>7,}  {proposal.examples.get(c, '')!r}" for c in characters)
    if proposal.broken:
        shown = ", ".join(f"{broken_part(text)!r} in {shorten(repr(text))}" for text in proposal.broken[:NUM_EXAMPLES])
        yield f"\n{len(proposal.broken):,} transcripts look as if a wrong encoding had broken them: {shown}"
    if proposal.turkish:
        yield "\nTurkish: Unicode's rules change I to i, not to ı. Write the transcripts in small letters."


def _shown(character: str) -> str:
    """Returns the character, or its code point if it is invisible."""
    odd = unicodedata.category(character)[0] in "CM" or character == " "
    return {" ": "space"}.get(character, f"U+{ord(character):04X}") if odd else character


def quote(text: str) -> str:
    """Quotes text for a shell, in double quotes if it has an apostrophe and nothing that is special inside them."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)

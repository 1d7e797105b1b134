"""Finds traces of a wrong encoding in transcripts."""

import re

CONTINUATION = "[\x80-\xaa\xac-\xba\xbc-\xbf€ƒ†‡ˆ‰Š‹ŒŽ™š›œžŸ]"
"""Bytes 0x80 to 0xBF of UTF-8 read as Windows-1252 or Latin-1, without quotation marks and dashes, which can follow a
real letter."""
TRACES = re.compile(
    r"\w*\ufffd\w*"  # what a decoder writes for bytes that it cannot read
    r"|\w+\?\w+|\w+\?(?= [a-zß-ÿ])"  # what an encoder writes for letters that it cannot write
    rf"|\w*(?:[ÂÃÐÑâãðñ]{CONTINUATION}|[Ââ]€|Ã[–—‘’“”„…](?=\w))\w*"  # UTF-8 read as another encoding
)


def broken_part(text: str) -> str:
    """Returns the first part of a text that a wrong encoding may have broken, such as "sar?", "Ã©"; "" if none.

    A question mark counts inside a word, and before a small letter. After a question in small letters it may be right.
    """
    found = TRACES.search(text)
    return found[0] if found else ""

"""The exception for wrong input, such as a setting, a manifest, an audio file or a checkpoint."""

import hashlib

LONGEST_VALUE = 60
"""Characters of a value that messages show."""
NO_JSON = (ValueError, RecursionError)
"""What `json` and UTF-8 decoding raise on bad input, including huge numbers and deep nesting."""


class InputError(Exception):
    """An error that the user can correct. The message names the field or file, the rule and what to do.

    The commands print it without a traceback. Any other exception is a bug of this project and shows its traceback. An
    InputError is not a ValueError, because tyro would present that as an error of its own.
    """


def shorten(text: str, length: int = 80) -> str:
    """Cuts a text that is longer than `length`, so that messages stay short."""
    return text if len(text) <= length else f"{text[:length]} ..."


def brief(value: object) -> str:
    """Writes a value for a message. A long one is cut; a digest tells it from others that begin alike."""
    text = repr(value)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ... (digest {digest})"


def advice_for(error: Exception, advice: str) -> str:
    """Returns `advice`, which tells how to replace a damaged file, unless the system refuses to read the file."""
    refused = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    return "Correct this and try again." if refused else advice

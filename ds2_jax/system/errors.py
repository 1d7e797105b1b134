"""The one exception that stands for wrong input: a setting, a manifest, an audio file, a checkpoint; its wording."""

NO_JSON = (ValueError, RecursionError)
"""What `json` and decoding UTF-8 raise: a fault, a number of thousands of digits, brackets without end."""


class InputError(Exception):
    """Something the user can mend; the message names the field or file, the rule and what to do.

    The commands print it without a traceback. Any other exception is a defect of this project and shows its traceback.
    No ValueError: tyro would frame it as one of its own.
    """


def shorten(text: str, length: int = 80) -> str:
    """The start of `text`, where it is longer than `length`: a message is no place for a megabyte."""
    return text if len(text) <= length else f"{text[:length]} ..."

"""The one exception that stands for wrong input: a setting, a manifest, an audio file, a checkpoint."""


class InputError(Exception):
    """Something the user can mend; the message names the field or file, the rule and what to do.

    The commands print it without a traceback. Any other exception is a defect of this project and shows its traceback.
    No ValueError: tyro would frame it as one of its own.
    """

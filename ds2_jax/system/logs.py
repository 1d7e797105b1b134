"""Shows the package's log records on standard error, one line for each."""

import logging
import sys

PACKAGE = "ds2_jax"


class _Lines(logging.Handler):
    """Writes each record as a line, above a progress bar if there is one.

    All processes show warnings and errors. Only the first shows other records.
    """

    def emit(self, record: logging.LogRecord) -> None:
        processes = sys.modules.get(f"{PACKAGE}.parallel.processes")  # already loaded if there are several
        if record.levelno < logging.WARNING and processes is not None and not processes.is_primary():
            return
        line = self.format(record)
        if record.levelno >= logging.ERROR:
            line = f"error: {line}"
        tqdm = sys.modules.get("tqdm")
        if tqdm is None:
            print(line, file=sys.stderr, flush=True)
        else:
            tqdm.tqdm.write(line, file=sys.stderr)


def show() -> None:
    """Shows the package's log records of level INFO and above, only on standard error.

    A second call changes nothing.
    """
    logger = logging.getLogger(PACKAGE)
    if any(isinstance(handler, _Lines) for handler in logger.handlers):
        return
    logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False  # TensorFlow adds a handler to the root logger, which would print each line again

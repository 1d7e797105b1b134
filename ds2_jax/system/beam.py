"""Does work with an Apache Beam pipeline. This is the only file that imports Apache Beam."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ds2_jax.system.errors import InputError


def run(work: Callable[[Any], object], tasks: Sequence[Any], runner: str, options: Sequence[str]) -> None:
    """Does tasks as work items of a pipeline; returns when all are done.

    Args:
        work: does a task. Workers import its module.
        tasks: the tasks, which must be picklable.
        runner: Beam's runner: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner, ...
        options: options of the runner, as on its command line.

    Raises:
        InputError: Beam is not installed, the runner or an option is unknown, or the pipeline failed.
    """
    logging.disable(logging.WARNING)  # Beam warns, on the root logger, of each package that it could use
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            f"--beam-runner must find Apache Beam, got: {error}. Install it: pip install 'apache-beam>=2.73,<3'."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    parsed = PipelineOptions(list(options))
    if runner == "DirectRunner":  # other runners may ask their server which options there are
        _check_known(parsed)
    try:
        with beam.Pipeline(runner, parsed) as pipeline:
            pipeline | beam.Create(tasks) | beam.Reshuffle() | beam.Map(work)
    except (ValueError, RuntimeError, OSError) as error:  # an unknown runner; no Java for Flink; a worker's error
        advice = "Correct this, then run the same command again: finished files are kept."
        raise InputError(
            f"--beam-runner {runner} must write the files, got: {str(error).strip().rstrip('.')}. {advice}"
        ) from error


def _check_known(options: Any) -> None:
    """Raises InputError for options that Beam would discard with a warning."""
    logging.disable(logging.WARNING)
    try:
        unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
    finally:
        logging.disable(logging.NOTSET)
    if unknown:
        names = ", ".join(f"--{name}" for name in sorted(unknown))
        raise InputError(f"The options of DirectRunner must be known to Beam, got {names}. Correct them.")

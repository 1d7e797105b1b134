"""Writes the shards of a pack with an Apache Beam pipeline. This is the only file that imports Apache Beam."""

from collections.abc import Sequence

from ds2_jax.curation.pack_shard import Task, write_shard
from ds2_jax.system.errors import InputError


def run(tasks: Sequence[Task], runner: str, options: Sequence[str]) -> None:
    """Writes shards as work items of a pipeline; returns when all are written.

    Args:
        tasks: the shards to write.
        runner: Beam's runner: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner, ...
        options: options of the runner, as on its command line.

    Raises:
        InputError: Beam is not installed, the runner or an option is unknown, or the pipeline failed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            f"--beam-runner must find Apache Beam, got: {error}. Install it: pip install 'apache-beam>=2.73,<3'."
        ) from error
    try:
        with beam.Pipeline(runner, PipelineOptions(list(options))) as pipeline:
            pipeline | beam.Create(tasks) | beam.Reshuffle() | beam.Map(write_shard)
    except (ValueError, RuntimeError, OSError) as error:  # an unknown runner; no Java for Flink; a worker's error
        advice = "Correct this, then run the same command again: finished files are kept."
        raise InputError(f"--beam-runner {runner} must write the files, got: {str(error).strip()}. {advice}") from error

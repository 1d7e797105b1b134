"""The shards of a pack, written by an Apache Beam pipeline. The only file that imports Apache Beam."""

from collections.abc import Sequence

from ds2_jax.curation.pack_shard import Task, write_shard
from ds2_jax.system.errors import InputError


def run(tasks: Sequence[Task], runner: str, options: Sequence[str]) -> None:
    """Writes the shards, each a work item; returns when all are written.

    Args:
        tasks: shards.
        runner: of Beam: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner, ...
        options: of the runner, as its command line takes them.

    Raises:
        InputError: Beam is not installed, knows no such runner, or takes no such option, or the pipeline failed.
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
        advice = "Mend that, then run the same command again: the files that are written already are kept."
        raise InputError(f"--beam-runner {runner} must write the files, got: {str(error).strip()}. {advice}") from error

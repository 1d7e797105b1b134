"""What the server counts, for Prometheus. Labels are fixed: never a text, a name of a file or a client."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of a server.

    Args:
        num_requests: counts the recordings that are uploaded, wait or are recognised.

    Attributes:
        latency: by kind. file: from the end of an upload to its transcript. step: from samples of a live stream to its
            text. final: from the end of a live stream to its last words.
    """

    def __init__(self, num_requests: Callable[[], int] = int) -> None:
        self._registry = place = CollectorRegistry()
        self.requests = Counter("ds2_requests", "Requests that were answered", ["route", "status"], registry=place)
        self.seconds = Histogram(
            "ds2_request_seconds", "Seconds until a request was answered", ["route"], buckets=BUCKETS, registry=place
        )
        self.latency = Histogram(
            "ds2_latency_seconds",
            "Seconds of recognising: a file, a step of a live stream, the final text of a live stream",
            ["kind"],
            buckets=BUCKETS,
            registry=place,
        )
        self.queueing = Histogram(
            "ds2_queue_seconds", "Seconds that a recording waits for the model", buckets=BUCKETS, registry=place
        )
        self.audio = Counter("ds2_audio_seconds", "Seconds of audio that the models have run on", registry=place)
        self.batches = Histogram("ds2_batch_pieces", "Pieces in a batch", buckets=range(1, 9), registry=place)
        self.steps = Histogram(
            "ds2_batch_streams",
            "Live streams in a step",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=place,
        )
        self.streams = Gauge("ds2_streams", "Live streams that are open", registry=place)
        queue = Gauge("ds2_queue_length", "Recordings that are uploaded, wait or are recognised", registry=place)
        queue.set_function(num_requests)

    def text(self) -> bytes:
        """Writes them in the text format of Prometheus."""
        return generate_latest(self._registry)

"""What the server counts, for Prometheus. Labels are fixed: never a text, a name of a file or a client."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of a server.

    Args:
        num_waiting: counts the recordings that are not finished.
    """

    def __init__(self, num_waiting: Callable[[], int]) -> None:
        self._registry = place = CollectorRegistry()
        self.requests = Counter("ds2_requests", "Requests that were answered", ["route", "status"], registry=place)
        self.seconds = Histogram(
            "ds2_request_seconds", "Seconds until a request was answered", ["route"], buckets=BUCKETS, registry=place
        )
        self.audio = Counter("ds2_audio_seconds", "Seconds of audio that the models have run on", registry=place)
        self.batches = Histogram("ds2_batch_pieces", "Pieces in a batch", buckets=range(1, 9), registry=place)
        self.streams = Gauge("ds2_streams", "Live streams that are open", registry=place)
        waiting = Gauge("ds2_recordings_waiting", "Recordings that are not finished", registry=place)
        waiting.set_function(num_waiting)

    def text(self) -> bytes:
        """Writes them in the text format of Prometheus."""
        return generate_latest(self._registry)

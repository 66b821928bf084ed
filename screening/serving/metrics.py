"""Numbers about the server in the text format of Prometheus.

Enters: what happened. Leaves: the text of `/metrics`. This module does not know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """The counters of one server."""

    def __init__(self, inside: Callable[[], int]) -> None:
        """`inside` says how many requests with a body are being answered."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("assay_requests", "Answered requests.", ["route", "status"], registry=registry)
        self._seconds = Histogram("assay_request_seconds", "Seconds until the answer.", ["route"], registry=registry)
        self._refused = Counter("assay_refused_crystals", "Refused crystals.", ["reason"], registry=registry)
        self._batches = Histogram(
            "assay_batch_crystals", "Crystals predicted at once.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        Gauge("assay_requests_inside", "Uploads that are being answered.", registry=registry).set_function(inside)

    def request(self, route: str, status: int, seconds: float) -> None:
        """An answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, crystals: int) -> None:
        """A batch of crystals that the model predicted."""
        self._batches.observe(crystals)

    def refused(self, reason: str) -> None:
        """A crystal that was refused."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """All numbers."""
        return generate_latest(self._registry)

"""Limits how often one host is asked, for all of its clients together.

Enters: the outcome of each attempt. Leaves: the time to sleep before the next attempt may start.
The methods take and return plain numbers, so a `HostPace` may live in another process behind an
object with the same methods. This module does not know HTTP, and does not sleep itself.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

MAX_INTERVAL_S = 60.0
"""s; a server that asks for a longer interval between requests gets this one."""
FAILURES = 12
"""Failed attempts in a row that open the breaker; more than one request makes with all retries."""
OPEN_S = 30.0
"""s; the breaker's first pause, doubled each time the probe fails."""
MAX_OPEN_S = 600.0
"""s; its longest pause."""
PROBE_S = 300.0
"""s; a probe without a reported outcome (its process died) is given up after this time."""
POLL_S = 1.0
"""s; pause of the other clients between two questions whether the probe is done."""


class Clock(Protocol):
    """Time that can be read and slept through; the module `time` is one."""

    def monotonic(self) -> float:
        """s, from any origin."""

    def sleep(self, seconds: float, /) -> None:
        """Return after this many s."""


class Pace(Protocol):
    """Decides when the next request to a host may start, and hears of its outcome."""

    def wait(self) -> float:
        """Take the next slot and return 0, or return the s to sleep before asking again."""

    def good(self) -> None:
        """Report an attempt that was answered, with a document or a final refusal."""

    def bad(self, pause_s: float) -> None:
        """Report an attempt that failed; the server asked for this pause in s (0: for none)."""

    def slow_down(self, interval_s: float) -> None:
        """Keep at least this interval in s (at most 60) between requests from now on."""


class HostPace:
    """The pace of one host: a minimum interval, pauses, and a circuit breaker for all its clients.

    The breaker opens after `failures` failed attempts in a row: no client gets a slot for `open_s`.
    Then it lets one attempt through, the probe. If the probe fails, the pause doubles, up to
    `max_open_s`; if the probe is answered, the breaker closes. Threads may share one `HostPace`.
    """

    def __init__(
        self,
        min_interval_s: float = 0.0,
        *,
        failures: int = FAILURES,
        open_s: float = OPEN_S,
        max_open_s: float = MAX_OPEN_S,
        clock: Clock = time,
    ) -> None:
        if not (min_interval_s >= 0 and failures >= 1 and 0 < open_s <= max_open_s):
            raise ValueError(
                f"pace of {min_interval_s} s, {failures} failures, open {open_s} to {max_open_s} s: "
                "needs an interval of at least 0, a failure or more, and 0 < open_s <= max_open_s"
            )
        self.interval_s = min_interval_s
        """s between two starts."""
        self._failures, self._open_s, self._max_open_s = failures, open_s, max_open_s
        self._clock = clock
        self._lock = threading.Lock()
        self._last = -float("inf")  # when the last slot began
        self._not_before = -float("inf")  # end of the longest pause the server asked for
        self._in_a_row = 0
        self._pause = 0.0  # s the breaker stays open this time; 0 while it is closed
        self._until = -float("inf")  # when an open breaker lets a probe through
        self._probe_ends = -float("inf")  # until when a probe is waited for

    def __repr__(self) -> str:
        state = f"open for {self._pause:g} s" if self._pause else "closed"
        return f"HostPace(interval_s={self.interval_s:g}, {self._in_a_row} failures in a row, breaker {state})"

    def wait(self) -> float:
        """Take the next slot and return 0, or return the s to sleep before asking again."""
        with self._lock:
            now = self._clock.monotonic()
            free = max(self._last + self.interval_s, self._not_before, self._until if self._pause else now)
            if now < free:
                return free - now
            if self._pause and now < self._probe_ends:
                return POLL_S
            if self._pause:
                self._probe_ends = now + PROBE_S
            self._last = now
            return 0.0

    def good(self) -> None:
        """Report an attempt that was answered; an open breaker closes."""
        with self._lock:
            self._in_a_row = 0
            self._pause = 0.0
            self._probe_ends = -float("inf")

    def bad(self, pause_s: float) -> None:
        """Report an attempt that failed; all clients keep the pause (s) the server asked for."""
        with self._lock:
            now = self._clock.monotonic()
            self._not_before = max(self._not_before, now + max(0.0, pause_s))
            self._in_a_row += 1
            probed = self._pause > 0 and now >= self._until
            if probed or (self._pause == 0 and self._in_a_row >= self._failures):
                self._pause = min(self._max_open_s, 2 * self._pause) if probed else self._open_s
                self._until = now + self._pause
                self._probe_ends = -float("inf")

    def slow_down(self, interval_s: float) -> None:
        """Keep at least this interval in s (at most 60) between requests from now on."""
        with self._lock:
            self.interval_s = max(self.interval_s, min(interval_s, MAX_INTERVAL_S))

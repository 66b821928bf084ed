"""One host, many clients: interval, shared pauses and the circuit breaker, under a clock that the test turns."""

import itertools
import threading
from typing import Any

import pytest

from assay.sources.databases.client import Client, SourceDown
from assay.sources.databases.pace import FAILURES, MAX_OPEN_S, OPEN_S, POLL_S, PROBE_S, HostPace
from tests.servers import FaultServer


class TurnedClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


def opened(clock: TurnedClock, **options: Any) -> HostPace:
    pace = HostPace(clock=clock, **options)
    for _ in range(FAILURES):
        assert pace.wait() == 0
        pace.bad(0)
    return pace


def test_a_slot_is_free_once_the_interval_is_over(clock: TurnedClock) -> None:
    pace = HostPace(0.5, clock=clock)
    assert pace.wait() == 0
    assert pace.wait() == pytest.approx(0.5)
    clock.sleep(0.2)
    assert pace.wait() == pytest.approx(0.3)
    clock.sleep(0.3)
    assert pace.wait() == 0
    assert pace.wait() == pytest.approx(0.5)


def test_a_server_may_ask_for_a_longer_interval_but_not_for_any(clock: TurnedClock) -> None:
    pace = HostPace(0.5, clock=clock)
    assert pace.wait() == 0
    pace.slow_down(2.0)
    assert pace.wait() == pytest.approx(2.0)
    pace.slow_down(0.1)
    assert pace.interval_s == 2
    pace.slow_down(1e9)
    assert pace.interval_s == 60


def test_a_pause_is_kept_by_everybody_and_a_good_reply_does_not_end_it(clock: TurnedClock) -> None:
    pace = HostPace(clock=clock)
    assert pace.wait() == 0
    pace.bad(30)
    pace.bad(10)  # a shorter one does not shorten it
    pace.good()
    assert pace.wait() == pytest.approx(30)
    clock.sleep(30)
    assert pace.wait() == 0


def test_the_breaker_opens_lets_one_probe_through_and_closes(clock: TurnedClock) -> None:
    pace = opened(clock)
    assert pace.wait() == pytest.approx(OPEN_S)
    clock.sleep(OPEN_S)
    assert pace.wait() == 0  # the probe
    assert pace.wait() == POLL_S  # nobody beside it
    pace.good()
    assert [pace.wait() for _ in range(3)] == [0, 0, 0]
    assert "closed" in repr(pace)


def test_the_breaker_doubles_its_pause_with_every_failed_probe(clock: TurnedClock) -> None:
    pace, pauses = opened(clock), []
    for _ in range(7):
        pauses.append(pace.wait())
        clock.sleep(pauses[-1])
        assert pace.wait() == 0
        pace.bad(0)
    assert pauses == pytest.approx([30, 60, 120, 240, 480, 600, 600])
    assert pauses[-1] == MAX_OPEN_S
    clock.sleep(MAX_OPEN_S)
    assert pace.wait() == 0
    pace.good()
    again = [pace.wait() or pace.bad(0) for _ in range(FAILURES)]
    assert again == [None] * FAILURES
    assert pace.wait() == pytest.approx(OPEN_S)  # a new row of failures starts with the short pause


def test_one_good_reply_begins_the_count_of_failures_anew(clock: TurnedClock) -> None:
    pace = HostPace(clock=clock)
    for _ in range(5):
        for _ in range(FAILURES - 1):
            pace.bad(0)
        pace.good()
    assert pace.wait() == 0


def test_a_probe_that_never_comes_back_is_replaced(clock: TurnedClock) -> None:
    pace = opened(clock)
    clock.sleep(OPEN_S)
    assert pace.wait() == 0
    clock.sleep(PROBE_S - 1)
    assert pace.wait() == POLL_S
    clock.sleep(1)
    assert pace.wait() == 0


@pytest.mark.parametrize("options", [{"min_interval_s": -1}, {"failures": 0}, {"open_s": 0}, {"max_open_s": 1}])
def test_a_pace_checks_its_values(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs"):
        HostPace(**options)


def test_a_client_sleeps_through_an_open_breaker_and_goes_on(clock: TurnedClock) -> None:
    pace = opened(clock)
    with FaultServer(script=["503", "ok"]) as server, Client(server.url, local=True, pace=pace, clock=clock) as client:
        assert client.get_json("/v1/structures").json["data"] == []
        assert client.get_json("/v1/structures").json["data"] == []
    # the probe failed once, its jitter is part of the next pause
    assert sum(clock.slept) == pytest.approx(OPEN_S + 2 * OPEN_S)


def test_a_client_that_sleeps_for_long_looks_up_in_between(clock: TurnedClock) -> None:
    pace = opened(clock, open_s=600.0)
    with FaultServer() as server, Client(server.url, local=True, pace=pace, clock=clock) as client:
        doze = clock.sleep

        def sleep(seconds: float, /) -> None:
            doze(seconds)
            if clock.now > 1100:
                pace.good()  # somebody else found the host well again

        clock.sleep = sleep  # type: ignore[method-assign]
        client.get_json("/v1/structures")
    assert clock.slept == pytest.approx([60, 60])


def test_a_breaker_open_beyond_the_deadline_is_a_server_that_is_down(clock: TurnedClock) -> None:
    pace = opened(clock, open_s=300.0)
    with FaultServer() as server:
        client = Client(server.url, local=True, pace=pace, clock=clock, deadline_s=60)
        with client, pytest.raises(SourceDown, match="within 60 s"):
            client.get_json("/v1/structures")
        assert server.requests == []
    assert clock.slept == []


def test_a_pause_asked_of_one_client_is_kept_by_the_other(clock: TurnedClock) -> None:
    pace = HostPace(clock=clock)
    with FaultServer(script=["429-after:100", "ok"]) as server:
        limits: dict[str, Any] = {"local": True, "pace": pace, "clock": clock, "deadline_s": 300}
        with Client(server.url, retries=0, **limits) as first, Client(server.url, **limits) as second:
            with pytest.raises(SourceDown, match="429") as caught:
                first.get_json("/v1/structures")
            assert caught.value.status == 429
            second.get_json("/v1/structures")
    assert clock.slept == pytest.approx([60, 40])


def test_a_refusal_is_an_answer(clock: TurnedClock) -> None:
    pace = HostPace(clock=clock)
    with FaultServer(script=["404"]) as server, Client(server.url, local=True, pace=pace, clock=clock) as client:
        for _ in range(FAILURES + 1):
            with pytest.raises(ConnectionError, match="404"):
                client.get_json("/v1/structures")
    assert pace.wait() == 0


class WatchedPace(HostPace):
    """Writes down when every slot was taken."""

    def __init__(self, interval_s: float) -> None:
        super().__init__(interval_s)
        self.starts: list[float] = []

    def wait(self) -> float:
        pause = super().wait()
        if pause == 0:
            self.starts.append(self._last)
        return pause


def test_two_clients_in_two_threads_share_one_interval() -> None:
    pace = WatchedPace(0.05)

    def ask(url: str) -> None:
        with Client(url, local=True, pace=pace) as client:
            for _ in range(6):
                client.get_json("/v1/structures")

    with FaultServer() as server:
        threads = [threading.Thread(target=ask, args=(server.url,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 12
    starts = sorted(pace.starts)
    assert len(starts) == 12
    assert min(after - before for before, after in itertools.pairwise(starts)) >= 0.05 - 1e-9

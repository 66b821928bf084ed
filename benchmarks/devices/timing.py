"""Wall time of contestants on a device.

Enters: contestants, each with its number of crystals. Leaves: rates, as of `measuring.stopwatch`,
and printed tables. It does not know what is measured.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from measuring.stopwatch import Contestant, Rates, say, show

if TYPE_CHECKING:
    import torch

Contestants = dict[str, tuple[Contestant, int]]
"""Name -> what is run, and the crystals of one run."""


class Clock:
    """A device and the time that it may take."""

    def __init__(self, place: torch.device, repeat: int, seconds: float) -> None:
        """Begin to count.

        Args:
            place: the device.
            repeat: rounds.
            seconds: for one contestant; once they are spent it has no further round.
        """
        self.place, self.repeat, self.seconds, self._began = place, repeat, seconds, time.perf_counter()

    def since_start(self) -> float:
        """Seconds since this clock was made."""
        return time.perf_counter() - self._began

    def race(self, title: str, contestants: Contestants) -> Rates:
        """Best wall time of each contestant over interleaved rounds, after a warm-up; printed."""
        spent, best = dict.fromkeys(contestants, 0.0), dict.fromkeys(contestants, float("inf"))
        for turn in range(self.repeat + 1):
            for name, (run, _) in contestants.items():
                if name not in best or (turn > 1 and spent[name] > self.seconds):
                    continue
                lasted = self._timed(name, run)
                if lasted is None:
                    del best[name]
                elif turn:  # the first one compiles
                    best[name], spent[name] = min(best[name], lasted), spent[name] + lasted
        rates = {}
        for name, lasted in best.items():
            crystals = contestants[name][1]
            rates[name] = {"us_per_crystal": 1e6 * lasted / crystals, "crystals_per_s": crystals / lasted}
            rates[name]["crystals"] = crystals
        lines = [
            [name, *(f"{rate[key]:,.1f}" for key in ("us_per_crystal", "crystals_per_s")), f"{rate['crystals']:,}"]
            for name, rate in rates.items()
        ]
        show(title, ["", "µs of wall time per crystal", "crystals/s", "crystals"], lines)
        return rates

    def _timed(self, name: str, run: Contestant) -> float | None:
        """Seconds of one run; None, with a note, where it fails."""
        self._finish()
        start = time.perf_counter()
        try:
            run()
            self._finish()
        except Exception as error:  # noqa: BLE001 -- a peer may raise anything; the others go on
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            say(f"{name} is left out: {said}")
            return None
        return time.perf_counter() - start

    def _finish(self) -> None:
        """Wait for the device."""
        import torch

        if self.place.type == "cuda":
            torch.cuda.synchronize(self.place)

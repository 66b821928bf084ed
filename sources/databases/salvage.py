"""Finds the entries of a page that a server cannot deliver, and saves the rest of the page.

Enters: a window of the server's list that failed as one request, and a function that asks for
fragments of it. Leaves: the entries that the server delivered, and the offsets of those that it
did not. This module does not know addresses, crystals or the content of an entry.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from assay.sources.databases.trust import ReplyTooLarge, SourceDown, SourceError, SourceRefused, UnsafeReply

log = logging.getLogger(__name__)

MAX_LOST = 32
"""Most entries that one walk may lose; beyond it the server counts as broken."""
FEW_RETRIES = 1
"""Retries of a request for several entries; one for a single entry keeps the client's patience."""


@dataclass(frozen=True)
class Fragment:
    """The answer to a request for a part of a window."""

    entries: Sequence[Any]
    names: Sequence[str]
    """Id of every entry."""
    sha256: str
    """Hex digest of the reply."""
    more: bool
    """Whether the server says that entries follow."""


class Ask(Protocol):
    """Fetches `limit` entries from position `offset` of the server's list.

    With None, `retries` is the usual number of the client.
    """

    def __call__(self, offset: int, limit: int, retries: int | None) -> Fragment:
        """Raise `SourceDown` or `ReplyTooLarge` when that fails."""


@dataclass
class Salvage:
    """The entries saved from a window, and the lost ones."""

    fragments: list[Fragment] = field(default_factory=list)
    """In the server's order."""
    lost: dict[int, str] = field(default_factory=dict)
    """Error message of each entry that was not delivered, by its offset."""
    ended: bool = False
    """Whether the server has nothing behind the window."""


def salvage(ask: Ask, window: range, error: SourceError, seen: Collection[str], most: int = MAX_LOST) -> Salvage:
    """Fetch all entries of a window that the server can deliver, by halving the window.

    `error` is the failure of the whole window, `seen` holds the ids of earlier pages, and at most
    `most` entries may be lost. A window of n entries with k faulty ones costs about
    k * (4 log2(n) + 10) requests at most.

    Raises:
        SourceDown: when the server fails elsewhere too, cannot page by offset, or loses more than
            `most` entries.
    """
    return _Search(ask, window, error, seen, most).run()


class _Search:
    def __init__(self, ask: Ask, window: range, error: SourceError, seen: Collection[str], most: int) -> None:
        self.ask, self.window, self.error, self.seen, self.most = ask, window, error, seen, most
        self.probes = [0, window.stop, 2 * window.stop + 1]  # offsets where a working server answers
        self.found = Salvage()

    def run(self) -> Salvage:
        start, stop = self.window[0], self.window[-1]
        log.warning("entries %d to %d failed; looking for the faulty ones: %s", start, stop, self.error)
        todo = [self.window]
        if len(self.window) > 1:
            self._failed(todo.pop(), self.error, todo)
        while todo and not self.found.ended:
            part = todo.pop()
            try:
                reply = self.ask(part.start, len(part), FEW_RETRIES if len(part) > 1 else None)
            except (SourceDown, ReplyTooLarge) as error:
                self._failed(part, error, todo)
            except (SourceRefused, UnsafeReply) as error:
                raise self._down(f"and a part of it was refused: {error}") from None
            else:
                self._came(part, reply, todo)
        names = [name for fragment in self.found.fragments for name in fragment.names]
        if names and 2 * len(set(names) - set(self.seen)) <= len(names):
            raise self._down("and the server does not page by offset")
        return self.found

    def _failed(self, part: range, error: SourceError, todo: list[range]) -> None:
        """Halve a part that failed, or count its one entry as lost, if the server still answers."""
        if len(part) == 1 or not isinstance(error, ReplyTooLarge):
            self._probe()
        if len(part) > 1:
            middle = part.start + len(part) // 2
            todo += [range(middle, part.stop), range(part.start, middle)]
            return
        self.found.lost[part.start] = str(error)
        if len(self.found.lost) > self.most:
            raise self._down(f"and more than {self.most} entries cannot be had")

    def _came(self, part: range, reply: Fragment, todo: list[range]) -> None:
        if len(reply.entries) > len(part):
            raise self._down("and the server does not keep page_limit")
        self.found.fragments.append(reply)
        behind = part.start + len(reply.entries)
        if behind == self.window.stop or not reply.more or not reply.entries:
            self.found.ended = not reply.more or not reply.entries
        elif behind < part.stop:  # the server sends less than it is asked for
            todo.append(range(behind, part.stop))

    def _probe(self) -> None:
        """Ask for an entry outside the fault; raise `SourceDown` where no such entry arrives."""
        for place in self.probes:
            came = 0
            try:
                came = len(self.ask(place, 1, FEW_RETRIES).entries)
            except SourceError as error:
                log.info("entry %d did not come either: %s", place, error)
                continue
            if came > 1:
                raise self._down("and the server does not keep page_limit")
            self.probes = [place]
            return
        raise self._down("and so did others")

    def _down(self, message: str) -> SourceDown:
        status = self.error.status if isinstance(self.error, SourceDown) else 0
        return SourceDown(f"{self.error}; {message}", status)

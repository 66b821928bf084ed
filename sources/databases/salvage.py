"""Finds the entries of a page that a server cannot deliver, so that the rest of the page is not lost with them.

Enters: a window of the server's order that failed, and a way to ask for parts of it. Leaves: what
could be had, and the offsets of the entries that could not. This module does not know addresses or
crystals, nor what an entry is.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from assay.sources.databases.trust import ReplyTooLarge, SourceDown, SourceError, SourceRefused, UnsafeReply

log = logging.getLogger(__name__)

MAX_POISONED = 32
"""Entries that one walk may lose before its server is taken to be broken."""
FEW_RETRIES = 1
"""Retries of a request for several entries; one for a single entry keeps the client's patience."""


@dataclass(frozen=True)
class Part:
    """What one request for a part of a window brought."""

    entries: Sequence[Any]
    names: Sequence[str]
    """Id of every entry."""
    sha256: str
    """Hex digest of the reply."""
    more: bool
    """Whether the server says that entries follow."""


class Ask(Protocol):
    """Fetches `limit` entries from position `offset` of the server's order; None retries means the usual patience."""

    def __call__(self, offset: int, limit: int, retries: int | None) -> Part:
        """Raise `SourceDown` or `ReplyTooLarge` when that fails."""


@dataclass
class Salvage:
    """What was saved of a window."""

    parts: list[Part] = field(default_factory=list)
    """In the server's order."""
    poisoned: dict[int, str] = field(default_factory=dict)
    """Why an entry could not be had, by its offset."""
    ended: bool = False
    """Whether the server has nothing behind the window."""


def salvage(ask: Ask, window: range, error: SourceError, seen: Collection[str], most: int = MAX_POISONED) -> Salvage:
    """Take everything out of a window that the server can deliver, halving it until the guilty entries are alone.

    `error` is how the whole window failed, `seen` holds the ids of earlier pages, `most` entries
    may be lost. A window of n entries with k guilty ones costs at most about k * (4 log2(n) + 10)
    requests.

    Raises:
        SourceDown: when the server fails elsewhere too, cannot page by offset, or loses more than
            `most` entries.
    """
    return _Search(ask, window, error, seen, most).run()


class _Search:
    def __init__(self, ask: Ask, window: range, error: SourceError, seen: Collection[str], most: int) -> None:
        self.ask, self.window, self.error, self.seen, self.most = ask, window, error, seen, most
        self.canaries = [0, window.stop, 2 * window.stop + 1]  # entries that tell a broken one from a dead server
        self.found = Salvage()

    def run(self) -> Salvage:
        log.warning("entries %d to %d failed; looking for the guilty: %s", self.window[0], self.window[-1], self.error)
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
        names = [name for part in self.found.parts for name in part.names]
        if names and 2 * len(set(names) - set(self.seen)) <= len(names):
            raise self._down("and the server does not page by offset")
        return self.found

    def _failed(self, part: range, error: SourceError, todo: list[range]) -> None:
        """Halve what failed, or convict it, once it is sure that the server lives."""
        if len(part) == 1 or not isinstance(error, ReplyTooLarge):
            self._sing()
        if len(part) > 1:
            middle = part.start + len(part) // 2
            todo += [range(middle, part.stop), range(part.start, middle)]
            return
        self.found.poisoned[part.start] = str(error)
        if len(self.found.poisoned) > self.most:
            raise self._down(f"and more than {self.most} entries cannot be had")

    def _came(self, part: range, reply: Part, todo: list[range]) -> None:
        if len(reply.entries) > len(part):
            raise self._down("and the server does not keep page_limit")
        self.found.parts.append(reply)
        behind = part.start + len(reply.entries)
        if behind == self.window.stop or not reply.more or not reply.entries:
            self.found.ended = not reply.more or not reply.entries
        elif behind < part.stop:  # the server sends less than it is asked for
            todo.append(range(behind, part.stop))

    def _sing(self) -> None:
        """Ask for an entry that is not to blame."""
        for place in self.canaries:
            came = 0
            try:
                came = len(self.ask(place, 1, FEW_RETRIES).entries)
            except ReplyTooLarge:
                pass  # it answers
            except SourceError as error:
                log.info("entry %d did not come either: %s", place, error)
                continue
            if came > 1:
                raise self._down("and the server does not keep page_limit")
            self.canaries = [place]
            return
        raise self._down("and so did others")

    def _down(self, told: str) -> SourceDown:
        status = self.error.status if isinstance(self.error, SourceDown) else 0
        return SourceDown(f"{self.error}; {told}", status)

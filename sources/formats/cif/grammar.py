"""The grammar of CIF: text -> data blocks with their items.

Enters: the text of a CIF 1.1 or 2.0 file, possibly damaged. Leaves: `Block`s, which answer for an
item by its name in any case, in the old spelling (`_cell_length_a`) or with the dot of DDLm
(`_cell.length_a`). The grammar is that of Hall, Allen & Brown, Acta Cryst. A47, 655, 1991, and of
Bernstein et al., J. Appl. Cryst. 49, 277, 2016. This module does not know the meaning of an item.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from assay.sources.checks import limits

_TOKEN = re.compile(
    r"""
    \#[^\n]*
  | ^;(?P<text>.*?)\n;                                              # a text field
  | (?P<torn>^;)                                                    # one that never ends
  | (?P<quote>'''|\"\"\")(?P<triple>.*?)(?P=quote)                  # CIF 2.0
  | (?P<mark>['"])                                                   # closed by `_Quotes`, or none
  | (?P<bare>\S+)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_ENDS = {mark: re.compile(rf"{mark}(?=\s|\Z)|\n") for mark in "'\""}
_BARE = re.compile(r"\S+")
_OPERATIONS = re.compile(r"symop.*(xyz|algebraic|centering)|equiv_pos_as_xyz")
_UNSAID = (".", "?", "")
MAX_NAME = 200
"""Characters of a value without quotes that blanks may divide."""


class Damaged(ValueError):
    """A part of the text that breaks the grammar; the message names the line."""


class Page:
    """The text of a file, which knows the lines."""

    def __init__(self, text: str) -> None:
        self.text = text if text.find("\r") < 0 else text.replace("\r\n", "\n").replace("\r", "\n")

    @cached_property
    def _ends(self) -> list[int]:
        return [match.start() for match in re.finditer("\n", self.text)]

    def line(self, offset: int) -> int:
        """Line of a place in the text, counted from 1."""
        return bisect_right(self._ends, offset - 1) + 1


@dataclass
class Item:
    """One item of a block with its values; a loop gives one value per row."""

    tag: str
    """As it is spelled in the file."""
    values: list[str]
    offsets: list[int]
    """Place of each value in the text."""
    page: Page

    def line_of(self, row: int) -> int:
        """Line of a value, counted from 1."""
        return self.page.line(self.offsets[row])

    @property
    def line(self) -> int:
        """Line of the first value; 0 for an empty loop."""
        return self.line_of(0) if self.offsets else 0


@dataclass
class Block:
    """One data block, and what is wrong with it."""

    name: str
    line: int
    items: dict[str, Item] = field(default_factory=dict)
    """By the name in small letters, each dot replaced by an underscore."""
    damage: dict[str, str] = field(default_factory=dict)
    """Items that cannot be trusted -> why."""
    stray: str = ""
    """The first value that belongs to no item, or an open quotation mark, if any."""
    headless: bool = False
    """Whether the stray value stands before the first item."""
    fatal: str = ""
    """Why the rest of the block cannot be read at all."""

    def item(self, *names: str) -> Item | None:
        """Return the first of these items that has a value, `.`, `?` and '' counted as none.

        Raises:
            Damaged: when an item of this name breaks the grammar or contradicts another one.
        """
        for name in names:
            if name in self.damage:
                raise Damaged(self.damage[name])
            found = self.items.get(name)
            if found is not None and any(value not in _UNSAID for value in found.values):
                return found
        return None

    def column(self, name: str) -> Item | None:
        """Return an item, even where no row has a value.

        Raises:
            Damaged: as for `item`.
        """
        if name in self.damage:
            raise Damaged(self.damage[name])
        return self.items.get(name)

    def holds(self, beginning: str) -> Item | None:
        """Return the first item whose name begins so, if any."""
        return next((item for name, item in self.items.items() if name.startswith(beginning)), None)


def blocks(text: str) -> Iterator[Block]:
    """Yield all data blocks of a file, in order; what stands before the first one is left out.

    Raises:
        Exceeded: when there are too many blocks or data names, or a data name is too long.
    """
    before: Block | None = None
    over: limits.Exceeded | None = None
    try:
        for number, block in enumerate(_blocks(Page(text.lstrip("\ufeff"))), start=1):
            limits.check("blocks", number, f"line {block.line} and all after it are not read")
            if before is not None:
                if block.headless and not before.stray:
                    before.stray = f"{block.stray}, right after data_{block.name[:40]}: a list may have been cut in two"
                yield before
            before = block
    except limits.Exceeded as error:
        over = error
    if before is not None:
        yield before
    if over is not None:
        raise over


def is_unsaid(value: str) -> bool:
    """Whether a value is `.` (not applicable, or the default), `?` (not known) or empty."""
    return value in _UNSAID


def key(tag: str) -> str:
    """The name that all spellings of an item share.

    >>> key("_atom_site.fract_X")
    '_atom_site_fract_x'
    """
    return tag.lower().replace(".", "_")


def _tokens(page: Page) -> Iterator[tuple[bool, str, int]]:
    """Yield for each token whether quotes surround it, its text and its place.

    Raises:
        _Torn: where a text field never ends.
    """
    text, at = page.text, 0
    lists = text.startswith("#\\#CIF_2.0")
    quotes = _Quotes(text)
    while match := _TOKEN.search(text, at):
        kind, place, at = match.lastgroup, match.start(), match.end()
        if kind == "torn":
            raise _Torn(place)
        if kind == "mark" and (end := quotes.end(place)) is not None:
            at = end + 1
            yield True, text[place + 1 : end], place
        elif kind in ("mark", "bare"):
            word = _BARE.match(text, place)
            assert word is not None
            if lists and word[0][0] in "[{":
                at = _closing(text, place)
                yield True, text[place:at], place
            else:
                at = word.end()
                yield False, word[0], place
        elif kind is not None:
            yield True, match[kind], place


class _Quotes:
    """Finds where quoted texts end, and looks at no place twice.

    A quotation mark ends a text before a blank only; a text ends on its line.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._found = dict.fromkeys(_ENDS, (-1, False))

    def end(self, place: int) -> int | None:
        """Place of the mark that ends the text which opens at `place`; None where none does."""
        mark = self._text[place]
        end, closed = self._found[mark]
        if end <= place:
            match = _ENDS[mark].search(self._text, place + 1)
            end, closed = (match.start(), match[0] == mark) if match else (len(self._text), False)
            self._found[mark] = end, closed
        return end if closed else None


class _Torn(Exception):
    """A text field that never ends; the argument is its place."""


def _blocks(page: Page) -> Iterator[Block]:
    """Yield each data block when it is complete."""
    state = _State(page)
    try:
        for quoted, text, place in _tokens(page):
            if quoted or text[0] not in _KEYWORDS:
                state.take_value(text, place)
                if not quoted and text[0] in "'\"":
                    state.tell(f"line {page.line(place)}: a quotation mark is never closed")
                continue
            low = text.lower()
            if low.startswith("data_") or low == "global_":
                yield from state.end()
                state = _State(page, Block(text[5:], page.line(place)))
            else:
                state.take_word(text, low, place)
    except _Torn as torn:
        if state.block is not None:
            line = page.line(torn.args[0])
            state.block.fatal = f"line {line}: a text field opens with a semicolon and never ends"
    yield from state.end()


_KEYWORDS = frozenset("_DdLlSsGg")
"""First letters of data names and of the words that CIF reserves."""


class _State:
    """The block that is being read, and what waits for its next token."""

    def __init__(self, page: Page, block: Block | None = None) -> None:
        self.block = block
        self._page = page
        self._tag: tuple[str, int] | None = None
        self._single: Item | None = None
        self._loop: _Loop | None = None
        self._deaf = block is None  # in a save frame, or before the first block
        self._frame = 0  # where the save frame begins

    def take_word(self, text: str, low: str, place: int) -> None:
        """Take a token that may be a data name or a reserved word."""
        if low.startswith("save_") and self.block is not None:
            self._finish()
            self._deaf = len(low) > len("save_")
            self._frame = place
        elif self._deaf:
            return
        elif low == "loop_":
            self._finish()
            self._loop = _Loop(self._page, place)
        elif low == "stop_":
            self._finish()
        elif low == "_" and self.block is not None:
            self.block.fatal = f"line {self._page.line(place)}: a data name has no letters"
        elif low.startswith("_"):
            self._take_tag(text, place)
        else:
            self.take_value(text, place)

    def _take_tag(self, text: str, place: int) -> None:
        assert self.block is not None
        where = f"line {self._page.line(place)}"
        limits.check("name", len(text), where)
        if self._loop is not None and not self._loop.values:
            self._loop.tags.append(text)
            limits.check("items", len(self.block.items) + len(self._loop.tags), where)
            return
        limits.check("items", len(self.block.items) + len(self.block.damage), where)
        self._finish()
        self._tag = (text, place)

    def take_value(self, text: str, place: int) -> None:
        """Take a value."""
        if self._deaf or self.block is None:
            return
        if self._loop is not None:
            self._loop.values.append(text)
            self._loop.offsets.append(place)
        elif self._tag is not None:
            self._single = Item(self._tag[0], [text], [place], self._page)
            _store(self.block, self._single)
            self._tag = None
        elif self._belongs_to_single(place):
            assert self._single is not None
            self._single.values[0] += " " + text  # a name with blanks that nobody put in quotes
        elif not self.block.stray:
            self.block.headless = not (self.block.items or self.block.damage)
            self.block.stray = f"line {self._page.line(place)}: {text[:40]!r} stands beside no data name"

    def tell(self, text: str) -> None:
        """Note something odd that does not stop the reading, the first one only."""
        if self.block is not None and not self._deaf:
            self.block.stray = self.block.stray or text

    def _belongs_to_single(self, place: int) -> bool:
        """Whether a stray value stands on the line of the last item, which is not long yet."""
        single = self._single
        return single is not None and len(single.values[0]) < MAX_NAME and single.line == self._page.line(place)

    def _finish(self) -> None:
        assert self.block is not None
        if self._tag is not None:
            tag, place = self._tag
            _spoil(self.block, key(tag), f"line {self._page.line(place)}: {tag} has no value")
        if self._loop is not None:
            self._loop.close(self.block)
        self._tag = self._single = self._loop = None

    def end(self) -> Iterator[Block]:
        """The complete block, if there is one."""
        if self.block is None:
            return
        self._finish()
        if self._deaf:
            self.block.fatal = f"line {self._page.line(self._frame)}: a save frame opens and never ends"
        yield self.block


class _Loop:
    """A loop that is being read."""

    def __init__(self, page: Page, place: int) -> None:
        self.page, self.place = page, place
        self.tags: list[str] = []
        self.values: list[str] = []
        self.offsets: list[int] = []

    def close(self, block: Block) -> None:
        """Hand the columns to the block."""
        width = len(self.tags)
        if not width:
            if self.values:
                block.fatal = f"line {self.page.line(self.place)}: loop_ is followed by values without data names"
            return
        names = [key(tag) for tag in self.tags]
        if any(_OPERATIONS.search(name) for name in names):
            self._mend_operations()
        if len(self.values) % width:
            count = f"{len(self.values)} values for {width} columns"
            for name in names:
                _spoil(block, name, f"line {self.page.line(self.place)}: the loop with {self.tags[0]} holds {count}")
            return
        for column, tag in enumerate(self.tags):
            _store(block, Item(tag, self.values[column::width], self.offsets[column::width], self.page))

    def _mend_operations(self) -> None:
        """Join `x, y, z` where the blanks have no quotes around them."""
        values: list[str] = []
        offsets: list[int] = []
        for value, place in zip(self.values, self.offsets):
            torn = values and (values[-1].endswith(",") or value.startswith(","))
            torn = torn and len(values[-1]) <= limits.most("operation")
            if torn and self.page.line(place) == self.page.line(offsets[-1]):
                values[-1] += value
            else:
                values.append(value)
                offsets.append(place)
        self.values, self.offsets = values, offsets


def _store(block: Block, item: Item) -> None:
    name = key(item.tag)
    before = block.items.get(name)
    if before is None or all(map(is_unsaid, before.values)):
        block.items[name] = item
    elif all(map(is_unsaid, item.values)):
        return
    elif before.values != item.values:
        _spoil(block, name, f"lines {before.line} and {item.line}: {item.tag} has two different values")


def _spoil(block: Block, name: str, why: str) -> None:
    block.damage.setdefault(name, why)


def _closing(text: str, start: int) -> int:
    """Offset behind the list or table of CIF 2.0 that opens at `start`."""
    depth = 0
    for match in re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|[\[\]{}]").finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end()
    return len(text)

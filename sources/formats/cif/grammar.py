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

_TOKEN = re.compile(
    r"""
    [^\S\n]*(?:\#[^\n]*)?\n                                         # the rest of an empty line
  | [^\S\n]+
  | \#[^\n]*
  | ^;(?P<text>.*?)\n;                                              # a text field
  | (?P<torn>^;)                                                    # one that never ends
  | (?P<quote>'''|\"\"\")(?P<triple>.*?)(?P=quote)                  # CIF 2.0
  | '(?P<single>(?:[^'\n]|'(?=\S))*)'(?=\s|\Z)
  | "(?P<double>(?:[^"\n]|"(?=\S))*)"(?=\s|\Z)
  | (?P<bare>\S+)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_OPERATIONS = re.compile(r"symop.*(xyz|algebraic|centering)|equiv_pos_as_xyz")
_UNSAID = (".", "?")


class Damaged(ValueError):
    """A part of the text that breaks the grammar; the message names the line."""


@dataclass
class Item:
    """One item of a block with its values; a loop gives one value per row."""

    tag: str
    """As it is spelled in the file."""
    values: list[str]
    lines: list[int]
    """Line of each value, counted from 1."""
    looped: bool = False

    @property
    def line(self) -> int:
        """Line of the first value; 0 for an empty loop."""
        return self.lines[0] if self.lines else 0


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
    """The first value that belongs to no item, if any."""
    fatal: str = ""
    """Why the rest of the block cannot be read at all."""

    def item(self, *names: str) -> Item | None:
        """Return the first of these items that has a value, `.` and `?` counted as none.

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


def blocks(text: str) -> list[Block]:
    """Read all data blocks of a file, in order; what stands before the first one is left out."""
    return list(_Reader(text.lstrip("\ufeff")).blocks())


def is_unsaid(value: str) -> bool:
    """Whether a value is `.` (not applicable, or the default) or `?` (not known)."""
    return value in _UNSAID


def key(tag: str) -> str:
    """The name that all spellings of an item share.

    >>> key("_atom_site.fract_X")
    '_atom_site_fract_x'
    """
    return tag.lower().replace(".", "_")


class _Reader:
    """Walks over the tokens of one file once."""

    def __init__(self, text: str) -> None:
        self._text = text if text.find("\r") < 0 else text.replace("\r\n", "\n").replace("\r", "\n")
        self._ends = [match.start() for match in re.finditer("\n", self._text)]
        self._lists = self._text.startswith("#\\#CIF_2.0")

    def _line(self, offset: int) -> int:
        return bisect_right(self._ends, offset - 1) + 1

    def _tokens(self) -> Iterator[tuple[str, str, int]]:
        """Yield kind (`word`, `value` or `torn`), text and offset."""
        skip = 0
        for match in _TOKEN.finditer(self._text):
            kind = match.lastgroup
            if kind is None or match.start() < skip:
                continue
            if kind == "bare":
                word = match.group()
                if self._lists and word[0] in "[{":
                    skip = _closing(self._text, match.start())
                    yield "value", self._text[match.start() : skip], match.start()
                else:
                    yield "word", word, match.start()
            elif kind == "torn":
                yield "torn", "", match.start()
                return
            else:
                yield "value", match.group(kind), match.start()

    def blocks(self) -> Iterator[Block]:
        """Yield each data block when it is complete."""
        state = _State()
        for kind, text, offset in self._tokens():
            line = self._line(offset)
            low = text.lower() if kind == "word" else ""
            if kind == "torn":
                if state.block is not None:
                    state.block.fatal = f"line {line}: a text field opens with a semicolon and never ends"
                break
            if low.startswith("data_") or low == "global_":
                if state.block is not None:
                    yield state.end()
                state = _State(Block(text[5:], line))
            elif state.block is not None and not state.frame_word(low):
                state.take(kind, text, low, line)
        if state.block is not None:
            yield state.end()


class _State:
    """The block that is being read, and what waits for its next token."""

    def __init__(self, block: Block | None = None) -> None:
        self.block = block
        self._tag: tuple[str, int] | None = None
        self._single: Item | None = None
        self._loop: _Loop | None = None
        self._frame = False

    def frame_word(self, low: str) -> bool:
        """Whether a token opens, closes or belongs to a save frame, which holds no crystal."""
        if low.startswith("save_"):
            self._finish()
            self._frame = len(low) > len("save_")
            return True
        return self._frame

    def take(self, kind: str, text: str, low: str, line: int) -> None:
        """Take a token of the block."""
        if low == "loop_":
            self._finish()
            self._loop = _Loop(line)
        elif low == "stop_":
            self._finish()
        elif low.startswith("_") and kind == "word":
            self._take_tag(text, line)
        else:
            self._take_value(text, line)

    def _take_tag(self, text: str, line: int) -> None:
        if self._loop is not None and not self._loop.values:
            self._loop.tags.append(text)
            return
        self._finish()
        self._tag = (text, line)

    def _take_value(self, text: str, line: int) -> None:
        assert self.block is not None
        if self._loop is not None:
            self._loop.values.append(text)
            self._loop.lines.append(line)
        elif self._tag is not None:
            self._single = Item(self._tag[0], [text], [line])
            _store(self.block, self._single)
            self._tag = None
        elif self._single is not None and self._single.line == line:
            self._single.values[0] += " " + text  # a name with blanks that nobody put in quotes
        else:
            self.block.stray = self.block.stray or f"line {line}: {text[:40]!r} stands beside no data name"

    def _finish(self) -> None:
        assert self.block is not None
        if self._tag is not None:
            _spoil(self.block, key(self._tag[0]), f"line {self._tag[1]}: {self._tag[0]} has no value")
        if self._loop is not None:
            self._loop.close(self.block)
        self._tag = self._single = self._loop = None

    def end(self) -> Block:
        """The complete block."""
        assert self.block is not None
        self._finish()
        return self.block


@dataclass
class _Loop:
    line: int
    tags: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def close(self, block: Block) -> None:
        """Hand the columns to the block."""
        width = len(self.tags)
        if not width:
            return
        names = [key(tag) for tag in self.tags]
        if any(_OPERATIONS.search(name) for name in names):
            self._mend_operations()
        if len(self.values) % width:
            count = f"{len(self.values)} values for {width} columns"
            for name in names:
                _spoil(block, name, f"line {self.line}: the loop with {self.tags[0]} holds {count}")
            return
        for place, tag in enumerate(self.tags):
            _store(block, Item(tag, self.values[place::width], self.lines[place::width], looped=True))

    def _mend_operations(self) -> None:
        """Join `x, y, z` where the blanks have no quotes around them."""
        values: list[str] = []
        lines: list[int] = []
        for value, line in zip(self.values, self.lines):
            if values and line == lines[-1] and (values[-1].endswith(",") or value.startswith(",")):
                values[-1] += value
            else:
                values.append(value)
                lines.append(line)
        self.values, self.lines = values, lines


def _store(block: Block, item: Item) -> None:
    name = key(item.tag)
    before = block.items.get(name)
    if before is None:
        block.items[name] = item
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

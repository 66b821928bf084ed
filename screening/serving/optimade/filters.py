"""Filters of OPTIMADE 1.2 as conditions of polars.

Enters: the text of a filter, and the fields that may stand in it. Leaves: one expression of polars,
true for the rows that match. A value that is not known makes a comparison neither true nor false,
as the specification says. This module does not know where the rows lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any

import polars as pl
from lark import Lark, Token, Transformer, Tree, v_args
from lark.exceptions import LarkError, VisitError
from optimade.exceptions import BadRequest, NotImplementedResponse  # type: ignore[import-untyped]
from optimade.filterparser.lark_parser import AVAILABLE_PARSERS  # type: ignore[import-untyped]

from assay.screening.settings import nearest

LONGEST, DEEPEST = 4_000, 50
"""Most characters of a filter, and most brackets in it."""
OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {"<": lt, "<=": le, ">": gt, ">=": ge, "=": eq, "!=": ne}
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
NUMBER, STRING, FLAG, TIME = "number", "string", "boolean", "timestamp"
NOTHING = pl.lit(None, pl.Boolean)


@dataclass(frozen=True)
class Field:
    """Something that a filter can name."""

    name: str
    expr: pl.Expr | None
    """Its value in a row; None where it is known for no row."""
    kind: str
    """`number`, `string`, `boolean` or `timestamp`; of a list, that of its items."""
    is_list: bool = False
    length: pl.Expr | None = None
    """Items of a list that no filter looks into; then `expr` is None."""
    joined: pl.Expr | None = None
    """The items of a list as one text, with dashes between them, which is searched more quickly."""

    @property
    def opaque(self) -> bool:
        """Whether there are values, which no filter looks into."""
        return self.length is not None


Condition = tuple[str, Any]
"""An operator, and the value on its right."""


def condition(text: str, fields: Mapping[str, Field], prefix: str) -> pl.Expr:
    """The condition that a filter states; `prefix` begins the names of own fields.

    Raises:
        BadRequest: for a text that is no filter, an unknown field, or values of another type.
        NotImplementedResponse: for a look into positions, species or related entries.
    """
    if len(text) > LONGEST or text.count("(") > DEEPEST:
        raise BadRequest(detail=f"a filter has at most {LONGEST:,} characters and {DEEPEST} brackets")
    try:
        tree = _parser().parse(text)
        return _Conditions(text, fields, prefix).transform(tree)  # type: ignore[no-any-return]
    except VisitError as error:
        raise error.orig_exc from None
    except (LarkError, RecursionError) as error:
        column = getattr(error, "column", 0)
        place = f"at character {column}" if isinstance(column, int) and column > 0 else "at its end"
        raise BadRequest(detail=f"the filter {text[:200]!r} breaks off {place}") from None


@cache
def _parser() -> Lark:
    """The grammar of the reference, with the places of words: TRUE and FALSE leave no token."""
    grammar: Path = AVAILABLE_PARSERS[max(AVAILABLE_PARSERS)]["default"]
    return Lark(grammar.read_text(), maybe_placeholders=False, propagate_positions=True)


class _Conditions(Transformer[Token, Any]):
    """Each rule of the grammar as a condition."""

    def __init__(self, text: str, fields: Mapping[str, Field], prefix: str) -> None:
        super().__init__()
        self._text, self._fields, self._prefix = text, fields, prefix

    def filter(self, found: list[pl.Expr]) -> pl.Expr:
        if len(found) != 1:
            raise BadRequest(detail="a filter is one expression; join several with AND or OR")
        return found[0]

    def expression(self, found: list[pl.Expr]) -> pl.Expr:
        return found[0] if len(found) == 1 else pl.any_horizontal(found)

    def expression_clause(self, found: list[pl.Expr]) -> pl.Expr:
        return found[0] if len(found) == 1 else pl.all_horizontal(found)

    def expression_phrase(self, found: list[Any]) -> pl.Expr:
        one: pl.Expr = found[-1]
        return ~one if len(found) > 1 else one

    @v_args(inline=True)
    def comparison(self, found: pl.Expr) -> pl.Expr:
        return found

    @v_args(inline=True)
    def property_first_comparison(self, field: Field, made: Callable[[Field], pl.Expr]) -> pl.Expr:
        return made(field)

    def constant_first_comparison(self, found: list[Any]) -> pl.Expr:
        value, operator, other = found
        if not isinstance(other, Field):
            raise BadRequest(detail=f"{value!r} {operator} {other!r}: a comparison names a property")
        return _compared(other, MIRRORED[operator], value)

    @v_args(inline=True)
    def value_op_rhs(self, operator: Token, value: Any) -> Callable[[Field], pl.Expr]:
        return lambda field: _compared(field, operator, value)

    def known_op_rhs(self, found: list[Token]) -> Callable[[Field], pl.Expr]:
        known = found[1] == "KNOWN"

        def made(field: Field) -> pl.Expr:
            if field.expr is None:
                return pl.lit(field.opaque == known)
            return field.expr.is_not_null() if known else field.expr.is_null()

        return made

    def fuzzy_string_op_rhs(self, found: list[Any]) -> Callable[[Field], pl.Expr]:
        operator, value = str(found[0]), found[-1]

        def made(field: Field) -> pl.Expr:
            one, other = _scalar(field, STRING), _scalar(value, STRING)
            if one is None or other is None:
                return NOTHING
            if operator == "CONTAINS":
                return one.str.contains(other, literal=True)
            return one.str.starts_with(other) if operator == "STARTS" else one.str.ends_with(other)

        return made

    def set_op_rhs(self, found: list[Any]) -> Callable[[Field], pl.Expr]:
        word = str(found[1]) if isinstance(found[1], Token) else ""
        if word in ("ALL", "ANY", "ONLY"):
            values: list[Condition] = found[2]
        else:
            word, values = "ALL", [(str(found[1]), found[2]) if len(found) == 3 else ("=", found[1])]
        return lambda field: _has([field], word, [[value] for value in values])

    def set_zip_op_rhs(self, found: list[Any]) -> Callable[[Field], pl.Expr]:
        others, word = found[0], str(found[2]) if isinstance(found[2], Token) else "ALL"
        rows = found[-1] if isinstance(found[2], Token) else [found[-1]]
        return lambda field: _has([field, *others], word, rows)

    def property_zip_addon(self, found: list[Field]) -> list[Field]:
        return found

    def length_op_rhs(self, found: list[Any]) -> Callable[[Field], pl.Expr]:
        operator, count = (str(found[1]), found[2]) if len(found) == 3 else ("=", found[1])

        def made(field: Field) -> pl.Expr:
            if field.opaque:
                return OPERATORS[operator](field.length, count)  # type: ignore[no-any-return]
            if field.expr is None:
                return NOTHING
            if not field.is_list:
                raise BadRequest(detail=f"{field.name} is no list: it has no LENGTH")
            return OPERATORS[operator](field.expr.list.len(), count)  # type: ignore[no-any-return]

        return made

    def value_list(self, found: list[Any]) -> list[Condition]:
        return _pairs(found)

    def value_zip(self, found: list[Any]) -> list[Condition]:
        return _pairs(found)

    def value_zip_list(self, found: list[list[Condition]]) -> list[list[Condition]]:
        return found

    def property(self, found: list[Token]) -> Field:
        name = str(found[0])
        if len(found) > 1:
            raise NotImplementedResponse(detail=f"filters do not look into {'.'.join(found)}")
        if name in self._fields:
            return self._fields[name]
        if name.startswith("_") and not name.startswith(self._prefix):
            return Field(name, None, STRING)  # another provider's: known for no entry
        raise BadRequest(detail=f"there is no property {name!r}; {nearest.hint(name, self._fields, 'there are')}")

    def string(self, found: list[Token]) -> str:
        inner = str(found[0])[1:-1]
        return inner.replace("\\\\", "\0").replace('\\"', '"').replace("\0", "\\")

    def number(self, found: list[Token]) -> float:
        return int(found[0]) if found[0].type == "SIGNED_INT" else float(found[0])

    def signed_int(self, found: list[Token]) -> int:
        return int(found[0])

    @v_args(tree=True)
    def bool(self, tree: Tree[Any]) -> bool:
        return self._text.startswith("TRUE", tree.meta.start_pos)

    @v_args(inline=True)
    def value(self, found: Any) -> Any:
        return found

    constant = non_string_value = not_implemented_string = value


def _pairs(found: Sequence[Any]) -> list[Condition]:
    """Values of a list, each with its operator."""
    pairs: list[Condition] = []
    operator = "="
    for item in found:
        if isinstance(item, Token):
            operator = str(item)
        else:
            pairs.append((operator, item))
            operator = "="
    return pairs


def _kind(value: Any) -> str:
    if isinstance(value, Field):
        return value.kind
    if isinstance(value, bool):
        return FLAG
    return STRING if isinstance(value, str) else NUMBER


def _compared(field: Field, operator: str, value: Any) -> pl.Expr:
    one = _scalar(field)
    other = None if one is None else _scalar(value, field.kind)
    if one is None or other is None:
        return NOTHING
    if field.kind == FLAG and operator not in ("=", "!="):
        raise BadRequest(detail=f"{field.name} is TRUE or FALSE: {operator} does not compare such")
    return OPERATORS[operator](one, other)  # type: ignore[no-any-return]


def _scalar(value: Any, kind: str | None = None) -> pl.Expr | None:
    """The value of a field or of a constant, which has the `kind`; None where it is not known."""
    if isinstance(value, Field):
        if value.opaque:
            raise NotImplementedResponse(detail=f"filters do not look into {value.name}; they compare its LENGTH")
        if value.expr is None:
            return None
        if value.is_list:
            raise BadRequest(detail=f"{value.name} is a list: ask with HAS or LENGTH")
    if kind is not None and _kind(value) != kind:
        if kind == TIME and isinstance(value, str):
            return pl.lit(_moment(value))
        shown = value.name if isinstance(value, Field) else repr(value)
        raise BadRequest(detail=f"{shown} is a {_kind(value)}, and is compared with a {kind}")
    return value.expr if isinstance(value, Field) else pl.lit(value)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise BadRequest(detail=f"{text!r:.40} is no time of RFC 3339, as 2026-01-31T12:00:00Z is")
    return found.astimezone(UTC)


def _has(lists: Sequence[Field], word: str, rows: Sequence[Sequence[Condition]]) -> pl.Expr:
    """Whether the items of lists, side by side, meet rows of conditions: ALL, ANY, or ONLY them."""
    for field in lists:
        if field.opaque:
            raise NotImplementedResponse(detail=f"filters do not look into {field.name}; they compare its LENGTH")
        if field.expr is not None and not field.is_list:
            raise BadRequest(detail=f"{field.name} is no list: HAS does not apply")
    if any(field.expr is None for field in lists):
        return NOTHING
    if any(len(row) != len(lists) for row in rows):
        raise BadRequest(detail=f"{len(lists)} lists are compared with another number of values")
    if word != "ONLY":
        some = [_some(lists, row) for row in rows]
        return pl.all_horizontal(some) if word == "ALL" else pl.any_horizontal(some)
    met = [_met(lists, row) for row in rows]
    hits = met[0]
    for one in met[1:]:
        hits += one
    return hits.list.min() >= 1  # of an empty list nothing: neither true nor false


def _some(lists: Sequence[Field], row: Sequence[Condition]) -> pl.Expr:
    """Whether any item meets the conditions of a row."""
    (operator, value), joined = row[0], lists[0].joined
    if len(row) == 1 and joined is not None and operator == "=" and isinstance(value, str) and "-" not in value:
        return pl.format("-{}-", joined).str.contains(f"-{value}-", literal=True)
    return _met(lists, row).list.max() == 1


def _met(lists: Sequence[Field], row: Sequence[Condition]) -> pl.Expr:
    """1 for each item that meets the conditions of a row, else 0."""
    found: pl.Expr | None = None
    for field, (operator, value) in zip(lists, row, strict=True):
        if isinstance(value, Field):
            raise NotImplementedResponse(detail="the items of a list are compared with constants")
        if _kind(value) != field.kind:
            raise BadRequest(detail=f"{value!r} is a {_kind(value)}, the items of {field.name} are {field.kind}s")
        assert field.expr is not None
        one = field.expr.list.eval(OPERATORS[operator](pl.element(), pl.lit(value)).cast(pl.Int8))
        found = one if found is None else found * one
    assert found is not None
    return found

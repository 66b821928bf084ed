"""Judges rows against an OPTIMADE filter again, because a server may ignore its filter.

Enters: the parse tree of a filter (any object with `data` and `children`, as lark makes them), and
the properties of rows. Leaves: True, False, or None where this module cannot tell. A row is
refused on False only. This module does not know the parser or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS

Judgement: TypeAlias = bool | None
"""None: the row cannot be judged."""
Judge: TypeAlias = Callable[[Mapping[str, Any]], Judgement]
"""Properties of a row to a judgement."""

CLOSE = 1e-3
"""Non-integer numbers this close to the bound of a comparison are not judged, because replies are
rounded; relative for bounds above 1."""
MAX_MISSES = 0.01
"""Share of rows on the first page of a pull that may contradict the request; beyond it the source
is given up."""
_HUGE = 1e15
_SWAPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


class _Unjudged(Exception):
    """The filter holds a construct that this module cannot judge."""


class Checker:
    """A filter ready to judge rows.

    Properties in `skip` are never judged, because the server rounds them in its replies.
    """

    def __init__(self, tree: Any, skip: frozenset[str] = frozenset()) -> None:
        self.unjudged: set[str] = set()
        """Constructs without a rule, and properties that some row did not carry."""
        self.properties = properties(tree)
        """Top-level OPTIMADE properties the filter speaks about, in order."""
        self._skip = skip
        self._judge = self._filter(tree)

    def __call__(self, row: Mapping[str, Any]) -> Judgement:
        """Judge one row: its OPTIMADE properties by name."""
        return self._judge(row)

    # One method per rule of the grammar that holds others. AND, OR, NOT follow Kleene's
    # three-valued logic.

    def _filter(self, tree: Any) -> Judge:
        expressions = [child for child in tree.children if _rule(child) == "expression"]
        return self._expression(expressions[0]) if expressions else lambda _: True

    def _expression(self, node: Any) -> Judge:
        clauses = [self._clause(child) for child in node.children]
        return clauses[0] if len(clauses) == 1 else lambda row: _any(clause(row) for clause in clauses)

    def _clause(self, node: Any) -> Judge:
        phrases = [self._phrase(child) for child in node.children]
        return phrases[0] if len(phrases) == 1 else lambda row: _all(phrase(row) for phrase in phrases)

    def _phrase(self, node: Any) -> Judge:
        inner = node.children[-1]
        judge = self._expression(inner) if _rule(inner) == "expression" else self._comparison(inner.children[0])
        return (lambda row: _not(judge(row))) if len(node.children) == 2 else judge

    def _comparison(self, node: Any) -> Judge:
        try:
            if _rule(node) == "constant_first_comparison":
                constant, operator, other = node.children
                path, test = _path(other.children[0]), _compare(_SWAPPED[str(operator)], _constant(constant))
            else:
                path, test = _path(node.children[0]), _test(node.children[1])
        except _Unjudged as construct:
            self.unjudged.add(str(construct))
            return lambda _: None
        if path[0] in self._skip:
            self.unjudged.add(path[0])
            return lambda _: None
        return self._lookup(path, test)

    def _lookup(self, path: tuple[str, ...], test: Callable[[Any], Judgement]) -> Judge:
        def judge(row: Mapping[str, Any]) -> Judgement:
            value: Any = row
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is None:
                self.unjudged.add(".".join(path))
                return None
            return test(value)

        return judge


def contradictions(
    checker: Checker, crystals: Crystals, attributes: Mapping[str, Mapping[str, Any]]
) -> NDArray[np.bool_]:
    """(n,) True where a crystal contradicts the filter.

    `attributes` holds the OPTIMADE attributes of each crystal by its id. The elements are taken
    from the sites, not from the attributes.
    """
    if not checker.properties:
        return np.zeros(len(crystals), dtype=np.bool_)
    present = crystals.composition() > 0
    verdicts = []
    for name, sites, row in zip(crystals.ids.tolist(), crystals.nsites.tolist(), present, strict=True):
        elements = [SYMBOLS[z] for z in np.flatnonzero(row)]
        facts = {"nsites": sites, **attributes[name], "id": name.partition("/")[2]}
        facts.update(elements=elements, nelements=len(elements))
        verdicts.append(checker(facts) is False)
    return np.array(verdicts, dtype=np.bool_)


def properties(tree: Any) -> list[str]:
    """Top-level names of all properties a filter speaks about, in order of appearance."""
    return list(dict.fromkeys(str(node.children[0]) for node in _walk(tree) if _rule(node) == "property"))


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _walk(child)


def _rule(node: Any) -> str:
    return str(getattr(node, "data", ""))


def _all(judgements: Iterator[Judgement]) -> Judgement:
    sure: Judgement = True
    for judgement in judgements:
        if judgement is False:
            return False
        sure = sure if judgement else None
    return sure


def _any(judgements: Iterator[Judgement]) -> Judgement:
    return _not(_all(_not(judgement) for judgement in judgements))


def _not(judgement: Judgement) -> Judgement:
    return None if judgement is None else not judgement


def _path(node: Any) -> tuple[str, ...]:
    if _rule(node) != "property":
        raise _Unjudged("a comparison of two constants")
    return tuple(str(token) for token in node.children)


def _constant(node: Any) -> Any:
    """Python value of a constant; a property on the right-hand side cannot be judged."""
    rule = _rule(node)
    if rule in ("value", "constant", "non_string_value", "not_implemented_string"):
        return _constant(node.children[0])
    text = str(node.children[0]) if getattr(node, "children", ()) else ""
    if rule == "string":
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if rule in ("number", "signed_int"):
        return float(text)
    if rule == "bool":
        raise _Unjudged("a truth value")
    raise _Unjudged(f"a comparison with {rule or 'nothing'}")


def _test(node: Any) -> Callable[[Any], Judgement]:
    """Test of a property's value for the right-hand side of a comparison."""
    rule, children = _rule(node), node.children
    if rule == "value_op_rhs":
        return _compare(str(children[0]), _constant(children[1]))
    if rule == "fuzzy_string_op_rhs":
        return _fuzzy(str(children[0]), _constant(children[-1]))
    if rule == "set_op_rhs":
        return _has(children)
    if rule == "length_op_rhs":
        compare = _compare(str(children[1]) if len(children) == 3 else "=", _constant(children[-1]))
        return lambda value: compare(len(value)) if isinstance(value, list) else None
    raise _Unjudged({"known_op_rhs": "IS KNOWN", "set_zip_op_rhs": "correlated lists"}.get(rule, rule))


def _compare(operator: str, bound: Any) -> Callable[[Any], Judgement]:
    if isinstance(bound, str):
        if operator not in ("=", "!="):
            raise _Unjudged(f"{operator} on text")
        return lambda value: (value == bound) is (operator == "=") if isinstance(value, str) else None
    return lambda value: _compare_numbers(operator, value, bound)


def _compare_numbers(operator: str, value: Any, bound: float) -> Judgement:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _HUGE:
        return None
    near = abs(value - bound) <= CLOSE * max(1.0, abs(bound))
    if near and not (isinstance(value, int) and bound.is_integer()):
        return None
    outcomes = {
        "=": value == bound,
        "!=": value != bound,
        "<": value < bound,
        "<=": value <= bound,
        ">": value > bound,
        ">=": value >= bound,
    }
    return outcomes[operator]


def _fuzzy(operator: str, part: Any) -> Callable[[Any], Judgement]:
    if not isinstance(part, str):
        raise _Unjudged(f"{operator} of something else than text")
    match = {"CONTAINS": str.__contains__, "STARTS": str.startswith, "ENDS": str.endswith}[operator]
    return lambda value: bool(match(value, part)) if isinstance(value, str) else None


def _has(children: list[Any]) -> Callable[[Any], Judgement]:
    """HAS, HAS ALL, HAS ANY, HAS ONLY over a list of values without operators."""
    listed = children[-1].children if _rule(children[-1]) == "value_list" else children[1:]
    if not all(_rule(node) == "value" for node in listed):
        raise _Unjudged("operators inside HAS")
    wanted = {_constant(node) for node in listed}
    kind = str(children[1]) if _rule(children[1]) == "" else "ALL"
    if any(not isinstance(value, str) for value in wanted):
        raise _Unjudged("HAS over numbers")

    def test(value: Any) -> Judgement:
        if not isinstance(value, list):
            return None
        held = {item for item in value if isinstance(item, str)}
        if kind == "ANY":
            return not wanted.isdisjoint(held)
        return held <= wanted if kind == "ONLY" else wanted <= held

    return test

"""Parses OPTIMADE filters, and refuses those that a database answers wrongly.

Enters: the text of a filter. Leaves: its parse tree, or a `ValueError` that points at the mistake.
This module is the one door to the `optimade` package. It does not know HTTP or crystals.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from assay.sources.checks.importing import one_at_a_time
from assay.sources.databases.filters.reference import wrong_answer
from assay.sources.databases.providers import Provider

MAX_FILTER = 10_000
"""Longest accepted filter, in characters."""


def validate_filter(text: str) -> Any:
    """Parse an OPTIMADE filter and return its tree.

    Raises:
        ValueError: with the position of the first character that does not fit.
    """
    if not isinstance(text, str) or len(text) > MAX_FILTER or not text.isprintable():
        raise ValueError(f"filter {text!r:.80} must be printable text of at most {MAX_FILTER} characters")
    parser, syntax_error = _parser()
    try:
        tree = parser.parse(text)
    except RecursionError:
        raise ValueError(f"filter {text!r:.80} is nested too deeply") from None
    except syntax_error as error:
        column = getattr(error, "column", -1)
        place = f"at character {column}: {text[column - 1 :]!r:.40}" if column > 0 else "at its end: it is incomplete"
        raise ValueError(f'filter {text!r:.200} breaks off {place}. Example: elements HAS ALL "Nb","Sn"') from None
    if len(tree.children) > 1:
        raise ValueError(f"filter {text!r:.200} holds {len(tree.children)} expressions; join them with AND or OR")
    return tree


@cache
def _parser() -> tuple[Any, type[Exception]]:
    """The parser, and the error it raises."""
    with one_at_a_time():
        from lark.exceptions import LarkError
        from optimade.filterparser import LarkParser  # type: ignore[import-untyped]

    return LarkParser().lark, LarkError


def check_dialect(provider: Provider, text: str) -> None:
    """Refuse a filter that this provider is known to answer wrongly.

    Raises:
        ValueError: the message says how the answer would be wrong and what to write instead.
    """
    if provider.reference and (fault := wrong_answer(validate_filter(text))):
        raise ValueError(f"filter {text!r:.200} is not sent to {provider.id}: {fault}")
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    for quirk in provider.refused:
        if re.search(quirk.pattern, bare):
            raise ValueError(f"filter {text!r:.200} is not sent to {provider.id}: {quirk.explanation}")
    if provider.filter_required and not text.strip():
        raise ValueError(f"{provider.id} returns nothing without a filter; give one, for example nelements>=1")

"""Links from a candidate to its entry in a database.

Enters: the id of a crystal. Leaves: an address, made of the table of known databases and of an
entry that is plain text; nothing for any other id. This module asks nobody.
"""

from __future__ import annotations

import re

from assay.sources.databases.provider_table import PROVIDERS

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,99}")


def address(id: str) -> str:
    """The page of an entry, else its OPTIMADE record; "" where the database is not known.

    >>> address("mp/mp-763"), address("files/<b>")
    ('https://next-gen.materialsproject.org/materials/mp-763', '')
    """
    name, _, entry = id.partition("/")
    provider = PROVIDERS.get(name)
    if provider is None or not _PLAIN.fullmatch(entry):
        return ""
    return provider.page.format(entry) if provider.page else f"{provider.base_url}/v1/structures/{entry}"

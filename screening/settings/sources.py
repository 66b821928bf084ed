"""The kinds of source that a config may name, and the section of one source.

Enters: the mapping under `sources` in a config. Leaves: an instance of the kind's own class, or one
error about the first wrong key. Importing this module imports no kind: the class of a kind is
imported when a config names it. A kind describes itself in `assay.screening.pulling.kinds`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from pydantic_core import PydanticKnownError, core_schema

from assay.screening.settings import nearest
from assay.screening.settings.section import Section, Slug

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

SOURCES: dict[str, str] = {
    "aflux": "assay.screening.pulling.kinds.aflux:AfluxSource",
    "files": "assay.screening.pulling.kinds.files:FileSource",
    "materials-project": "assay.screening.pulling.kinds.materials_project:MaterialsProjectSource",
    "optimade": "assay.screening.pulling.kinds.optimade:OptimadeSource",
    "prototypes": "assay.screening.pulling.kinds.prototypes:PrototypeSource",
}
"""Kind of source -> `module:class`; the class is an `assay.screening.pulling.source.Source`."""


class SourceSection(Section):
    """The keys that every kind of source has."""

    kind: str
    """Which kind of source: a key of `SOURCES`."""
    name: Slug | None = None
    """Folder under snapshot/; unset: the name that the kind chooses."""

    def stem(self) -> str:
        """Name of a source to which the config gives none."""
        return self.kind


def kind(name: str) -> type[SourceSection]:
    """The class of a kind of source."""
    module, _, cls = SOURCES[name].partition(":")
    found: type[SourceSection] = getattr(import_module(module), cls)
    return found


class _ByKind:
    """Tells pydantic to read a source with the class of its kind, looked up at that moment."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(_read)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"oneOf": [handler(kind(name).__pydantic_core_schema__) for name in SOURCES]}


def _read(content: Any) -> SourceSection:
    if isinstance(content, SourceSection):
        return content
    if not isinstance(content, dict):
        raise PydanticKnownError("dict_type")
    if "kind" not in content:
        raise ValueError(f"needs a kind: one of {', '.join(SOURCES)}")
    name = content["kind"]
    if not isinstance(name, str) or name not in SOURCES:
        raise ValueError(f"kind {name!r:.80} is not known; {nearest.hint(str(name), SOURCES, 'known kinds')}")
    return kind(name).model_validate(content)


AnySource = Annotated[SourceSection, _ByKind]
"""A source of any kind."""

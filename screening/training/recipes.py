"""Training recipes as files: read, checked down to the sizes of the networks, varied, written.

Enters: YAML, and values for dotted paths. Leaves: a `Recipe`, or one line about what is wrong with
it. Nothing is trained here.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from assay.models.networks import kinds, registry
from assay.models.training.recipe import MemberSpec, Recipe
from assay.screening.settings import yamlfile
from assay.screening.settings.exits import Exit, Failure


def read(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The keys of a recipe file, with `a.b=c` overrides applied."""
    return yamlfile.override(yamlfile.read(path), overrides)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe file as a checked recipe."""
    return check(read(path, overrides), str(path))


def check(content: dict[str, Any], where: str) -> Recipe:
    """The recipe of these keys; every network is made once, so that a wrong size fails here.

    Raises:
        Failure: naming the wrong key and the nearest known one.
    """
    recipe = yamlfile.validate(Recipe, content, where)
    for k, member in enumerate(recipe.members):
        _check_sizes(recipe, member, f"{where}: members.{k}")
    return recipe


def vary(content: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the keys with a value at each dotted path; `members.X` is `X` of every member.

    Raises:
        Failure: for a path that leads through something that holds no keys.
    """
    changed = copy.deepcopy(content)
    for path, value in values.items():
        first, *rest = path.split(".")
        every = first == "members" and rest and not rest[0].isdigit()
        stems = [f"members.{k}" for k in range(len(changed.get("members", [])))] if every else [first]
        try:
            yamlfile.override(changed, [f"{'.'.join([stem, *rest])}={json.dumps(value)}" for stem in stems])
        except Failure:
            raise Failure(Exit.CONFIG, f"{path}: there is no such key in this recipe to put {value!r} at") from None
    return changed


def dump(content: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    """The keys as YAML that `load` reads, under some lines of comment."""
    apart = json.loads(json.dumps(dict(content)))  # what two keys share would become an alias, which `load` refuses
    text = yaml.safe_dump(apart, sort_keys=False, default_flow_style=None, width=120)
    return "".join(f"# {line}\n" for line in comments) + text


def _check_sizes(recipe: Recipe, member: MemberSpec, where: str) -> None:
    if member.network not in registry.MODELS:
        near = difflib.get_close_matches(member.network, registry.MODELS, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(registry.MODELS))}"
        raise Failure(Exit.CONFIG, f"{where}.network: no network {member.network!r}; {advice}")
    parameters = inspect.signature(registry.MODELS[member.network].load()).parameters.values()
    known = sorted(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    for name in member.sizes:
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise Failure(Exit.CONFIG, f"unknown key '{where.partition(': ')[2]}.sizes.{name}'; {advice}")
    try:
        registry.create(member.network, kinds.shape(recipe.reads(member)), ["y"], **member.sizes)
    except (ImportError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise Failure(Exit.CONFIG, f"{where}.sizes: {error}") from None

"""Declared packages: which files the code inside may read so that it can import them."""

from __future__ import annotations

import importlib.metadata as metadata
import importlib.util
import os
import re

import attrs

DEFAULT = ("numpy", "pandas", "matplotlib")
_REQUIREMENT = re.compile(r"^[A-Za-z0-9._-]+")


@attrs.frozen
class Packages:
    """`preload`: import names; `folders`: import path entries; `readable`: files and folders; `absent`: not here."""

    preload: tuple[str, ...]
    folders: tuple[str, ...]
    readable: tuple[str, ...]
    absent: tuple[str, ...]


def resolve(names: tuple[str, ...], required: bool) -> Packages:
    """Find the declared packages and all that they need in this environment, without importing them.

    Raises ModuleNotFoundError for one that is not installed when `required`; otherwise it is listed
    in `absent`.
    """
    owners = metadata.packages_distributions() if names else {}
    absent = tuple(name for name in names if importlib.util.find_spec(name) is None)
    if absent and required:
        raise ModuleNotFoundError(
            f"packages {', '.join(absent)} were declared for the code inside but are not installed here. "
            f"Run 'pip install {' '.join(absent)}', or leave them out of `packages`."
        )
    folders: dict[str, None] = {}
    readable: dict[str, None] = {}
    todo = [owner for name in names if name not in absent for owner in owners.get(name, [])]
    seen: set[str] = set()
    while todo:
        owner = _normal(todo.pop())
        if owner in seen:
            continue
        seen.add(owner)
        try:
            distribution = metadata.distribution(owner)
        except metadata.PackageNotFoundError:
            continue  # an optional requirement, or one for another platform
        folder = os.path.realpath(str(distribution.locate_file("")))
        folders[folder] = None
        for file in distribution.files or ():
            if file.parts[0] not in ("..", "__pycache__"):
                readable[os.path.join(folder, file.parts[0])] = None
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement and (match := _REQUIREMENT.match(requirement)):
                todo.append(match.group())
    present = tuple(name for name in names if name not in absent)
    for name in present:  # a package without a distribution: a folder on the path
        spec = importlib.util.find_spec(name)
        if not owners.get(name) and spec is not None and spec.origin:
            target = os.path.dirname(spec.origin) if spec.submodule_search_locations else spec.origin
            readable[os.path.realpath(target)] = None
            folders[os.path.realpath(os.path.dirname(target))] = None
    return Packages(present, tuple(folders), tuple(readable), absent)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

"""Save and load variables one by one, so that one that cannot be pickled costs only itself."""

from __future__ import annotations

import pickle
import struct
import sys
import types
from typing import Any

_SIZE = struct.Struct("<QQ")


def save(runner: Any, path: str) -> dict[str, Any]:
    """Write each global to the file; modules by their name. Returns the names kept, and missed with the reason."""
    pickler = sys.modules.get("cloudpickle", pickle)
    kept, missed = [], {}
    with open(path, "wb") as file:
        for name, value in list(runner.namespace.items()):
            if type(name) is not str or name.startswith("__") or name in runner.given:
                continue
            try:
                if isinstance(value, types.ModuleType):
                    body = b"m" + value.__name__.encode()
                else:
                    body = b"p" + pickler.dumps(value)
                start = file.tell()
                try:
                    label = name.encode()
                    file.write(_SIZE.pack(len(label), len(body)) + label + body)
                    file.flush()
                except OSError:
                    file.seek(start)
                    file.truncate()
                    raise
                kept.append(name)
            except BaseException as error:
                missed[name[:200]] = f"{type(error).__name__}: {error}"[:300]
    return {"kept": kept, "missed": missed}


def load(runner: Any, path: str) -> dict[str, Any]:
    """Bind each variable of the file. Returns the names that could not be bound, with the reason."""
    missed = {}
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at < len(data):
        name_size, body_size = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        name = data[at : at + name_size].decode()
        body = data[at + name_size : at + name_size + body_size]
        at += name_size + body_size
        try:
            if body[:1] == b"m":
                __import__(body[1:].decode())
                runner.namespace[name] = sys.modules[body[1:].decode()]
            else:
                runner.namespace[name] = pickle.loads(body[1:])
        except BaseException as error:
            missed[name[:200]] = f"{type(error).__name__}: {error}"[:300]
    return {"missed": missed}


ACTIONS = {"save": save, "load": load}

"""Private directories of sessions: made, measured, collected from, and removed without trusting them."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator

from sfumato_sandbox.records import Artifact

MAX_DEPTH = 32
NOFOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directory:
    """One session's private directory under `parent`, with what has been collected from it."""

    def __init__(self, root: str, parent: int) -> None:
        self.parent = parent
        self.name = f"s{secrets.token_hex(6)}"
        self.path = os.path.join(root, self.name)
        self.known: dict[str, tuple[int, int]] = {}
        os.mkdir(self.name, 0o700, dir_fd=parent)
        self.fd = os.open(self.name, NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)

    def close(self, gone: bool = False) -> None:
        """Remove the directory and all it holds, unless the folder above it is gone already."""
        os.close(self.fd)
        if not gone:
            remove(self.parent, self.name)


def walk(
    directory: int, prefix: str = "", depth: int = MAX_DEPTH
) -> Iterator[tuple[str, int, os.stat_result]]:
    """Yield (path, descriptor of the folder that holds it, lstat) for all below an open directory.

    Follows no link, and opens each folder relative to its parent's descriptor, so that code which
    swaps a folder for a link in the meantime gains nothing.
    """
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in sorted(names):
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue
        yield prefix + name, directory, status
        if stat.S_ISDIR(status.st_mode) and depth:
            try:
                inner = os.open(name, NOFOLLOW | os.O_DIRECTORY, dir_fd=directory)
            except OSError:
                continue
            try:
                yield from walk(inner, f"{prefix}{name}/", depth - 1)
            finally:
                os.close(inner)


def usage(directory: int, stop_after: int) -> tuple[int, int]:
    """Return (bytes on disk, number of entries), counting no further than `stop_after` entries.

    A folder nested as deep as the walk goes counts as too many entries, so that nothing hides below it.
    """
    total = count = 0
    for path, _, status in walk(directory, depth=MAX_DEPTH):
        total += status.st_blocks * 512
        count += 1 if path.count("/") < MAX_DEPTH else stop_after + 1
        if count > stop_after:
            break
    return total, count


def free(directory: int) -> int:
    """Return the free bytes of the file system that holds an open directory."""
    status = os.fstatvfs(directory)
    return status.f_bfree * status.f_frsize


def unnamed(process: int, path: str, mapped_as: int) -> int:
    """Return the bytes of files that a process keeps though they have no name any more, 0 where nobody may tell.

    A file that is mapped and held by no descriptor counts as `mapped_as` where the kernel does not say its size.
    """
    sizes: dict[int, int] = {}
    mapped = f"{path}/".encode()
    try:
        for number in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{process}/fd/{number}")
                if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                    sizes[status.st_ino] = status.st_blocks * 512
        with open(f"/proc/{process}/maps", "rb") as lines:
            for line in lines:
                if mapped in line and line.endswith(b" (deleted)\n"):
                    span, _, _, _, inode, _ = line.split(None, 5)
                    if int(inode) not in sizes:
                        sizes[int(inode)] = _mapped_size(process, span.decode(), mapped_as)
    except OSError:
        pass
    return sum(sizes.values())


def _mapped_size(process: int, span: str, otherwise: int) -> int:
    try:
        return os.stat(f"/proc/{process}/map_files/{span}").st_blocks * 512
    except OSError:
        return otherwise


def collect(
    directory: int, max_bytes: int, known: dict[str, tuple[int, int]], only: str | None = None
) -> tuple[Artifact, ...]:
    """Read the regular files that are new or changed since `known` (path → size, mtime), and update it.

    Reads at most `max_bytes` in all; with `only` just the file of that path.
    """
    found = []
    room = max_bytes
    for path, folder, status in walk(directory):
        mark = (status.st_size, status.st_mtime_ns)
        if only is not None and path != only:
            continue
        if not stat.S_ISREG(status.st_mode) or known.get(path) == mark or status.st_size > room:
            continue
        try:
            fd = os.open(path.rsplit("/", 1)[-1], NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError:
            continue
        with open(fd, "rb") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                content = file.read(room + 1)[:room]
                room -= len(content)
                known[path] = mark
                found.append(Artifact(path, content))
    return tuple(found)


def save(directory: int, max_bytes: int) -> dict[str, bytes | None]:
    """Return the content of each regular file, and None for each folder, by relative path."""
    files: dict[str, bytes | None] = {
        path: None for path, _, status in walk(directory) if stat.S_ISDIR(status.st_mode)
    }
    files.update((file.path, file.content) for file in collect(directory, max_bytes, {}))
    return files


def load(directory: int, files: dict[str, bytes | None]) -> None:
    """Make the directory hold exactly `files`. Nobody may be running in it."""
    for name in os.listdir(directory):
        try:
            os.unlink(name, dir_fd=directory)
        except OSError:
            remove(directory, name)
    for path, content in sorted(files.items()):
        if content is None:
            os.mkdir(path, 0o700, dir_fd=directory)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
            with open(fd, "wb") as file:
                file.write(content)


def write(directory: int, path: str, content: bytes) -> None:
    """Write one file below an open directory, making folders, following no link.

    Raises ValueError for a path that leads outside, OSError where a part of it is no folder.
    """
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"a relative path without '.' or '..' was expected, got {path!r}")
    folder = os.dup(directory)
    try:
        for part in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=folder)
            inner = os.open(part, NOFOLLOW | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(parts[-1], flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(content)
    finally:
        os.close(folder)


def remove(parent: int, name: str) -> None:
    """Remove a session's directory with all it holds, however deep, following no link.

    Nobody may be running in it. One descriptor is open at a time: the way up is "..", checked against
    the folder that the way down came from.
    """
    try:
        folder = _enter(parent, name)
    except FileNotFoundError:
        return
    path = [(name, _identity(parent), _clear(folder))]
    while path:
        entry, above, inner = path[-1]
        if inner:
            here = _identity(folder)
            deeper = _enter(folder, inner[-1])
            os.close(folder)
            folder = deeper
            path.append((inner[-1], here, _clear(folder)))
            continue
        path.pop()
        if path:
            upper = os.open("..", NOFOLLOW | os.O_DIRECTORY, dir_fd=folder)
        else:
            upper = os.dup(parent)
        os.close(folder)
        folder = upper
        if _identity(folder) != above:
            os.close(folder)
            raise OSError(f"the folder of {entry!r} was moved while it was being removed")
        os.rmdir(entry, dir_fd=folder)
        if path:
            path[-1][2].pop()
    os.close(folder)


def _enter(parent: int, name: str) -> int:
    try:
        return os.open(name, NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)
    except PermissionError:  # made with mode 0
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)


def _identity(folder: int) -> tuple[int, int]:
    status = os.fstat(folder)
    return status.st_dev, status.st_ino


def _clear(folder: int) -> list[str]:
    """Remove all but folders from an open directory; return the folders' names."""
    os.fchmod(folder, 0o700)
    folders = []
    with os.scandir(folder) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in listed:
        if is_folder:
            folders.append(name)
        else:
            os.unlink(name, dir_fd=folder)
    return folders

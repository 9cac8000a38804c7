"""A box that understands Python command lines: each run a fresh confined process, files last.

What frameworks with containers in mind ask of a sandbox, as far as it is Python: `python3 -c CODE`,
`python3 FILE ARG…`, `python3 -` with input, also behind `bash --login -c` or `sh -c`. Anything else answers
127 as a shell would: there is no shell in here.
"""

from __future__ import annotations

import posixpath
import shlex

import attrs

from sfumato_sandbox.session import Session

PYTHONS = ("python", "python3")
SHELLS = ("bash", "sh")


@attrs.frozen
class Ran:
    """Exit status, standard output, standard error."""

    status: int
    stdout: str
    stderr: str


class Box:
    """One session of an `Interpreter(persistent=False, keep_files=True)`."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(
        self,
        command: list[str],
        stdin: str = "",
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Ran:
        """Run one command. Raises TimeoutError when it takes longer than it may."""
        command = list(command)
        if len(command) > 2 and posixpath.basename(command[0]) in SHELLS and command[-2] in ("-c", "-lc"):
            command = shlex.split(command[-1])
        if command == ["true"]:
            return Ran(0, "", "")
        if not command or posixpath.basename(command[0]) not in PYTHONS:
            return Ran(127, "", f"{(command or [''])[0]}: not found: this sandbox runs python3 only\n")
        arguments = command[1:]
        program, name, rest = stdin, "-", ""
        if arguments[:1] == ["-c"] and len(arguments) > 1:
            program, name, rest, arguments = arguments[1], "-c", stdin, arguments[1:]
        elif arguments and arguments[0] != "-":
            try:
                program, name, rest = self.read(arguments[0]).decode(), arguments[0], stdin
            except (OSError, UnicodeDecodeError) as problem:
                return Ran(2, "", f"python3: can't open file {arguments[0]!r}: {problem}\n")
        before = (
            f"import sys, os, io; sys.argv = {[name, *arguments[1:]]!r}; sys.stdin = io.StringIO({rest!r}); "
        )
        before += f"os.environ.update({dict(env or {})!r}); "
        if cwd:
            before += f"os.makedirs({cwd!r}, exist_ok=True); os.chdir({cwd!r}); "
        # Compiled under a name of its own, so that tracebacks count its lines alone.
        code = f"{before}exec(compile({program!r}, '<action {name}>', 'exec'), {{'__name__': '__main__'}})"
        result = self.session.step(code, timeout_seconds)
        error = result.error
        if error is None:
            return Ran(0, result.stdout, result.stderr)
        if error.type == "ActionTimeout":
            limit = timeout_seconds or self.session.limits.timeout_seconds
            raise TimeoutError(f"the command ran longer than {limit:g} s")
        if error.type == "SystemExit":
            text = error.message
            if text in ("", "None"):
                return Ran(0, result.stdout, result.stderr)
            if text.lstrip("-").isdigit():
                return Ran(int(text) & 0xFF, result.stdout, result.stderr)
            return Ran(1, result.stdout, f"{result.stderr}{text}\n")
        shown = error.traceback or f"{error.type}: {error.message}"
        return Ran(1, result.stdout, f"{result.stderr}{shown}\n")

    def read(self, path: str) -> bytes:
        """Return a file's content. Raises FileNotFoundError, IsADirectoryError."""
        files = self.session.files()
        name = posixpath.normpath(path)
        if name not in files:
            raise FileNotFoundError(f"{path}: no such file in the sandbox")
        content = files[name]
        if content is None:
            raise IsADirectoryError(f"{path} is a directory")
        return content

    def write(self, path: str, content: bytes) -> None:
        """Write a file and the folders that it needs. Raises IsADirectoryError, ValueError for a path outside."""
        name = posixpath.normpath(path)
        if self.session.files().get(name, b"") is None:
            raise IsADirectoryError(f"{path} is a directory")
        self.session.put_file(name, content)

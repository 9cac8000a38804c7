"""Find fenced code blocks in a message, by lines and fence lengths as CommonMark has them.

A search for the next triple backtick would end a block at the first one inside a string or a
docstring; here a block ends only at a line that holds a fence at least as long as the opening one.
"""

from __future__ import annotations

import re

import attrs

_OPEN = re.compile(r"( {0,3})(`{3,}|~{3,})")
# As CommonMark and Python have them; `splitlines` would also cut strings at U+2028 and form feeds.
_LINE_END = re.compile(r"\r\n|\n|\r")


@attrs.frozen
class Block:
    """One fenced block: its code, the language after the fence, and whether a closing fence was found."""

    code: str
    language: str
    closed: bool


@attrs.frozen
class FenceProblem:
    """Why a message holds no code that may run."""

    message: str


def code_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a message, in order. An unclosed block reaches to the end."""
    blocks: list[Block] = []
    fence = indent = language = ""
    lines: list[str] = []
    inside = False
    rows = _LINE_END.split(text)
    for line in rows if rows[-1] else rows[:-1]:
        if not inside:
            if (opening := _OPEN.match(line)) and not (opening[2][0] == "`" and "`" in line[opening.end() :]):
                indent, fence = opening.groups()
                language = next(iter(line[opening.end() :].split(None, 1)), "")
                inside, lines = True, []
            continue
        stripped = line.strip()
        if (
            len(stripped) >= len(fence)
            and set(stripped) == {fence[0]}
            and len(line) - len(line.lstrip(" ")) <= 3
        ):
            blocks.append(Block("".join(f"{row}\n" for row in lines), language, True))
            inside = False
            continue
        spaces = len(line) - len(line.lstrip(" "))
        lines.append(line[min(spaces, len(indent)) :])
    if inside:
        blocks.append(Block("".join(f"{row}\n" for row in lines), language, False))
    return blocks


def single_block(text: str) -> Block | FenceProblem | None:
    """Return the one block of a message, None when there is none, or what is wrong."""
    blocks = code_blocks(text)
    if len(blocks) > 1:
        return FenceProblem(
            f"expected exactly one fenced code block, got {len(blocks)}; nothing was run. Send one block."
        )
    if blocks and not blocks[0].closed:
        return FenceProblem(
            "expected a code block that ends with a line of its own holding the closing fence, got none before the "
            "end of the message; nothing was run. Close the block."
        )
    return blocks[0] if blocks else None

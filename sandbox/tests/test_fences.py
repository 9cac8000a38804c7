"""Blocks end where a reader sees them end."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato_sandbox.fences import Block, FenceProblem, code_blocks, single_block


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("no code", []),
        ("```python\nx = 1\n```", ["x = 1\n"]),
        ("Say:\n```\nx\n```\nand\n~~~py\ny\n~~~\n", ["x\n", "y\n"]),
        ('````\ns = """\n```\n"""\n````', ['s = """\n```\n"""\n']),
        ("```\ns = '```'\n```", ["s = '```'\n"]),
        ("  ```\n  if a:\n      b\n  ```", ["if a:\n    b\n"]),
        ("```\n~~~\n```", ["~~~\n"]),
        ("inline ```x``` is none", []),
        ("```python\n```", [""]),
        ("```\r\nx = 1\r\n```\r\n", ["x = 1\n"]),
        ("    ```\n    indented text\n", []),
        ("```\na\x0cb\u2028c\x85d\x1ce\n```", ["a\x0cb\u2028c\x85d\x1ce\n"]),
        ("```\rx\r```\r", ["x\n"]),
        ("~~~ py `x`\ny\n~~~", ["y\n"]),
        ("``` py `x`\ny", []),
        ("```py\nx\n``` trailing words\ny\n```", ["x\n``` trailing words\ny\n"]),
    ],
)
def test_blocks_are_found_by_lines_and_fence_lengths(text, codes):
    assert [block.code for block in code_blocks(text)] == codes
    assert all(block.closed for block in code_blocks(text))


def test_the_language_is_kept():
    assert single_block("```tool_code extra\nx\n```") == Block("x\n", "tool_code", True)


def test_none_is_no_problem_but_two_or_an_open_one_are():
    assert single_block("thinking") is None
    assert "got 2" in single_block("```\na\n```\n```\nb\n```").message
    assert isinstance(single_block("```python\nx = 1"), FenceProblem)


@pytest.mark.parametrize(
    "line", ["~" * 200_000 + "`", "~~~" + "a" * 200_000 + "`", "`" * 200_000 + "x`", " " * 200_000]
)
def test_time_grows_with_the_length_of_a_message_and_no_faster(line):
    """A model that repeats itself must not hold the host up: no clock runs while a message is read."""
    started = time.process_time()
    code_blocks(line)
    assert time.process_time() - started < 1


@given(st.text(alphabet="`~ \nab'\"", max_size=60))
def test_any_text_parses(text):
    for block in code_blocks(text):
        assert isinstance(block.code, str)


@given(st.lists(st.text(alphabet="ab `'#", max_size=12), max_size=6))
def test_code_comes_back_from_a_long_enough_fence(lines):
    fence = "`" * 20
    assert single_block(f"x\n{fence}py\n" + "".join(f"{line}\n" for line in lines) + fence).code == "".join(
        f"{line}\n" for line in lines
    )

"""Statistics of agents' runs: words, runs of failures, intervals and paired tests. Arrays in, numbers out."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+|[^\w\s]")


def count_words(text: str) -> int:
    """Count words and punctuation marks: a token count that needs no tokenizer."""
    return len(_WORD.findall(text))


def longest_run(flags: Sequence[bool]) -> int:
    """Return the length of the longest run of true values."""
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best

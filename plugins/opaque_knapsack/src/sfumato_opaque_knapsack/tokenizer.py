"""A tokenizer for small models: every id as pairs of hex digits, every number whole, words from the traces, bytes else.

What is copied must be the same tokens wherever it stands, so neither ids nor numbers ever take a leading space.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

SPECIAL = ("<pad>", "<system>", "<user>", "<assistant>", "<end>")
_PIECE = re.compile(
    r"(?P<hex>(?<![0-9A-Za-z])(?:[0-9a-f]{12}|[0-9a-f]{6}|[0-9a-f]{4})(?![0-9A-Za-z]))"
    r"|(?P<number>(?<![0-9A-Za-z_])\d{1,3}(?![0-9A-Za-z_]))"
    r"|(?P<word> ?[A-Za-z_]+)"
    r"|(?P<space>\n *| +)"
    r"|(?P<mark>[^\sA-Za-z0-9_]+)"
    r"|(?P<other>[\s\S])"
)


class TraceTokenizer:
    """Token ids for the texts of this task; any text can be encoded, and decodes to itself.

    Arguments:
        words: pieces that have a token of their own, beyond special tokens, bytes, hex pairs and numbers to 199.
    """

    def __init__(self, words: Iterable[str]) -> None:
        pairs = [f"{i:02x}" for i in range(256)]
        numbers = [str(i) for i in range(200)]
        self.words = list(dict.fromkeys(words))
        known = dict.fromkeys([*pairs, *numbers, *self.words])
        self._bytes = len(SPECIAL)
        first = self._bytes + 256
        self._token = {piece: first + i for i, piece in enumerate(known)}
        self._text = (
            [b""] * len(SPECIAL) + [bytes([i]) for i in range(256)] + [piece.encode() for piece in known]
        )
        self.pad, self.system, self.user, self.assistant, self.end = range(len(SPECIAL))

    def __len__(self) -> int:
        return len(self._text)

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 800) -> TraceTokenizer:
        """Return a tokenizer whose words are the most frequent pieces of the texts; ties by spelling."""
        counts: Counter[str] = Counter()
        for text in texts:
            for match in _PIECE.finditer(text):
                if match.lastgroup in ("word", "mark", "space"):
                    counts[match.group()] += 1
        room = size - len(cls(()))
        frequent = sorted((piece for piece in counts if counts[piece] > 1), key=lambda p: (-counts[p], p))
        return cls(frequent[: max(room, 0)])

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        out: list[int] = []
        for match in _PIECE.finditer(text):
            piece = match.group()
            if match.lastgroup == "hex":
                out += [self._token[piece[i : i + 2]] for i in range(0, len(piece), 2)]
                continue
            token = self._token.get(piece)
            if token is None:
                out += [self._bytes + byte for byte in piece.encode()]
            else:
                out.append(token)
        return out

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of token ids; special tokens are left out, broken UTF-8 becomes U+FFFD."""
        return b"".join(self._text[token] for token in tokens).decode("utf-8", errors="replace")

    def render(self, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
        """Return the tokens of a conversation, and for each whether the assistant must produce it."""
        roles = {"system": self.system, "user": self.user, "assistant": self.assistant}
        tokens: list[int] = []
        learn: list[bool] = []
        for message in messages:
            content = self.encode(message["content"])
            mine = message["role"] == "assistant"
            tokens += [roles[message["role"]], *content, self.end]
            learn += [False, *([mine] * (len(content) + 1))]
        return tokens, learn

    def save(self, path: Path) -> None:
        """Write the words as JSON."""
        path.write_text(json.dumps({"words": self.words}, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> TraceTokenizer:
        """Read a tokenizer that `save` wrote."""
        return cls(json.loads(path.read_text(encoding="utf-8"))["words"])

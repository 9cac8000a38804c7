"""Output with a cap: the head and the tail are kept, the middle is counted."""

from __future__ import annotations

from sfumato_sandbox.records import Truncated


class Capped:
    """Collects bytes, holding at most `limit` of them: the first half and the last half."""

    def __init__(self, stream: str, limit: int) -> None:
        self.stream = stream
        self.limit = limit
        self.head = bytearray()
        self.tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        """Append bytes in the order in which they came."""
        self.total += len(data)
        room = self.limit // 2 - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        if data:
            self.tail += data
            keep = self.limit - self.limit // 2
            if len(self.tail) > 4 * keep:
                del self.tail[:-keep]

    def finish(self) -> tuple[str, Truncated | None]:
        """Return the text (undecodable bytes replaced), and what was left out if anything was."""
        keep = self.limit - self.limit // 2
        del self.tail[: max(len(self.tail) - keep, 0)]
        dropped = self.total - len(self.head) - len(self.tail)
        if not dropped:
            return (self.head + self.tail).decode("utf-8", "replace"), None
        head = self.head.decode("utf-8", "replace")
        tail = self.tail.decode("utf-8", "replace")
        marker = f"\n… [{dropped} of {self.total} bytes left out] …\n"
        return head + marker + tail, Truncated(self.stream, self.total - dropped, self.total)

"""The cap keeps head and tail and counts the rest."""

from hypothesis import given
from hypothesis import strategies as st

from sfumato_sandbox.output import Capped


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(2, 200))
def test_head_and_tail_are_kept_whatever_the_pieces(pieces, limit):
    capped = Capped("stdout", limit)
    for piece in pieces:
        capped.add(piece)
    whole = b"".join(pieces)
    text, cut = capped.finish()
    if len(whole) <= limit:
        assert cut is None and text == whole.decode("utf-8", "replace")
    else:
        head, tail = whole[: limit // 2], whole[-(limit - limit // 2) :]
        assert (cut.kept, cut.total) == (limit, len(whole))
        assert text.startswith(head.decode("utf-8", "replace")) and text.endswith(
            tail.decode("utf-8", "replace")
        )
        assert f"[{len(whole) - limit} of {len(whole)} bytes left out]" in text

"""Arrays without a reference count, for the inside of hot loops.

When an array is handed to another compiled function, even one that is inlined, numba counts references with atomic
instructions, several for each call. Measured on RockSample's step: 45 ns with counting, 11 ns without.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

__all__ = ["borrow"]


@intrinsic
def borrow(typing_context: Any, array: Any) -> Any:
    """Return a view of an array that owns nothing. The array has to stay alive as an argument of the calling kernel."""
    signature = array(array)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        view.meminfo = context.get_constant_null(types.MemInfoPointer(types.voidptr))
        view.parent = context.get_constant_null(types.pyobject)
        return view._getvalue()

    return signature, codegen

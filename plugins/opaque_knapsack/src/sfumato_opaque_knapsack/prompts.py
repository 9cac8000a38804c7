"""The words an agent reads. All text is a pure function of public facts: no sets, no hash order, no clock."""

from __future__ import annotations

import hashlib
from typing import Any

from sfumato_opaque_knapsack.instances import Instance, level_named
from sfumato_opaque_knapsack.world import TOOLS

MAX_TURNS = 40

ROLE = (
    "You solve a task by writing Python. Think in a sentence or two, then write exactly one fenced code block; it is "
    "run and you see what it printed, or its error. Print whatever you need to know; a bare expression shows nothing. "
    "The tools below are plain functions. When the work is complete, call finish()."
)

PERSISTENT_NOTE = (
    "Runtime: state is permanent. Variables, functions and imports from earlier blocks are still there. Do not "
    "import again or paste code again; write helpers once and call them."
)
STATELESS_NOTE = "Runtime: variables do not survive from one block to the next."
NEUTRAL_NOTE = "Runtime: Python 3."

WORKED_EXAMPLES = (
    "Example. First block:\n```python\nimport json\nids = json.loads(list_items())\nprint(len(ids))\n```\n"
    "Later block, using what the first one left behind:\n```python\nfor i in ids[:5]:\n    print(i, inspect(i))\n```"
)


def goal(instance: Instance, *, reveal_allowed: bool = False) -> str:
    """Return the user's goal text for an instance.

    `reveal_allowed` adds the allowed classes, which the paper's prompt leaves out (an example in its data set has
    them). The advice is advice: only budget, class and capacity are enforced.
    """
    lines = [
        "Opaque knapsack.",
        f"Capacity: {instance.capacity}",
        f"Inspection budget: {instance.budget} distinct items",
        f"Classes among the items: {', '.join(instance.classes)}",
    ]
    if reveal_allowed:
        lines.append(f"Allowed classes: {', '.join(instance.allowed)}")
    else:
        lines.append(
            "Only some classes may be taken; which ones is not told. A refused take shows a forbidden class."
        )
    lines += [
        "Maximise the total value of the items taken, within the capacity.",
        "Weight, value and class of an item are hidden until it is inspected. Assume nothing about items that were not "
        "inspected, and take only inspected ones. A take cannot be undone.",
        "Keep the running weight explicitly. Spread inspections over the whole list, and finish inspecting before the "
        "first take. Inspect at least 75% of the items, or use the budget up. Do not leave more than 20% of the "
        "capacity empty while budget remains. Do not finish before taking.",
    ]
    return "\n".join(lines)


def short_goal(instance: Instance, *, reveal_allowed: bool = False) -> str:
    """Return the same facts without the advice, for models whose context is a few hundred tokens."""
    text = f"Capacity: {instance.capacity}\nBudget: {instance.budget}\nClasses: {', '.join(instance.classes)}"
    if reveal_allowed:
        text += f"\nAllowed: {', '.join(instance.allowed)}"
    return text


def tools_text(tool_calls_per_action: int) -> str:
    """Return the tools' signatures and the limit on calls, as one system message."""
    lines = [f"- {tool.signature}: {tool.doc}" for tool in TOOLS]
    return "Tools, at most {} calls in one block:\n{}".format(tool_calls_per_action, "\n".join(lines))


def prompt(instance: Instance, *, reveal_allowed: bool = False) -> str:
    """Return tools and goal as one text: all that an agent reads of an instance before it acts."""
    calls = level_named(instance.level).tool_calls_per_action
    return tools_text(calls) + "\n\n" + goal(instance, reveal_allowed=reveal_allowed)


def instance_key(instance: Instance) -> str:
    """Return a name for an instance that tells nothing but its list of ids, which every agent may list for free."""
    return hashlib.sha256(",".join(item.id for item in instance.items).encode()).hexdigest()[:16]


def public_part(
    instance: Instance,
    *,
    reveal_allowed: bool = False,
    reveal_items: bool = False,
    tool_calls_per_action: int | None = None,
    max_turns: int = MAX_TURNS,
) -> dict[str, Any]:
    """Return all that an agent may know of an instance, as plain data in a fixed order.

    `tools` maps names to signature and doc; `id_pattern` is a regular expression of ids; `plain_order` asks scripted
    experts to inspect in list order. `reveal_*` add what the paper's agent is not told.
    """
    level = level_named(instance.level)
    public: dict[str, Any] = {
        "tools": {
            tool.name: {"signature": tool.signature.removeprefix(tool.name), "doc": tool.doc}
            for tool in TOOLS
        },
        "modules": ("json",),
        "tool_calls_per_action": tool_calls_per_action or level.tool_calls_per_action,
        "max_turns": max_turns,
        "level": level.name,
        "capacity": instance.capacity,
        "budget": instance.budget,
        "classes": list(instance.classes),
        "id_pattern": f"{level.id_prefix}[0-9a-f]{{{level.id_hex_digits}}}",
        "plain_order": level.name == "micro",
        "instance_key": instance_key(instance),
    }
    if reveal_allowed:
        public["allowed"] = list(instance.allowed)
    if reveal_items:
        public["items"] = [[item.id, item.weight, item.value, item.label] for item in instance.items]
    return public

"""Coding styles: the same turn of the same plan, written as four people would write it.

A style turns a `Turn` into Python for either regime. Persistent code sets up state and helpers in its first block and
calls them afterwards; stateless code restates imports and the state it needs as literals, copied from what earlier
blocks printed. All styles print the same four facts in their own layout, so that one reader serves them all:

    a row         id, weight, value, class            (stateless only: persistent code keeps rows in variables)
    left N        inspections that remain (`seen all` stands for none)
    room N        capacity that remains
    pending N     rows worth trying that remain

Both regimes make the same tool calls in the same order; only `list_items` is called again where nothing survives.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import attrs

from sfumato_opaque_knapsack.ladder import Row


@attrs.frozen
class Turn:
    """What one block is to do, and all that stateless code needs to restate for it.

    `kind` is first, inspect, take or finish. Positions index the inspection order
    `ids[(start + stride * i) % n]`; `offset` is the first position of this batch, `batch` its size.
    `taken` says that an earlier block has taken items, so that `rows` are what it left over.
    """

    kind: str
    budget: int
    batch: int
    cap: int
    start: int = 0
    stride: int = 1
    offset: int = 0
    capacity: int = 0
    room: int = 0
    rows: tuple[Row, ...] = ()
    refused: tuple[str, ...] = ()
    taken: bool = False

    @property
    def stop(self) -> int:
        """Position after this batch, before the budget is considered."""
        return self.offset + self.batch


@attrs.frozen
class Style:
    """One way of writing: a renderer for each regime."""

    name: str
    persistent: Callable[[Turn], str]
    stateless: Callable[[Turn], str]


def _order(turn: Turn, ids: str) -> str:
    """Expression of the inspection order over a list called `ids`; the list itself when the order is plain."""
    if turn.start == 0 and turn.stride == 1:
        return ids
    return f"[{ids}[({turn.start} + {turn.stride} * k) % len({ids})] for k in range(len({ids}))]"


def _refused_set(turn: Turn) -> str:
    return "{" + ", ".join(f'"{label}"' for label in turn.refused) + "}" if turn.refused else "set()"


# ------------------------------------------------------------------ plain: tuples and loops, one helper a phase


def _plain_persistent(turn: Turn) -> str:
    if turn.kind == "first":
        return f"""import json
ids = json.loads(list_items())
order = {_order(turn, "ids")}
rows, refused, tried = [], set(), set()
pos, room = 0, {turn.capacity}

def look(k):
    global pos
    for i in order[pos:min(pos + k, {turn.budget})]:
        d = json.loads(inspect(i))
        rows.append((i, d["weight"], d["value"], d["class"]))
    pos += k
    print("left", max(0, min({turn.budget}, len(ids)) - pos))

def open_rows():
    return [r for r in rows if r[0] not in tried and r[3] not in refused and r[1] <= room]

def grab(k):
    global room
    rows.sort(key=lambda r: (-r[2] / r[1], r[0]))
    for r in open_rows():
        if k == 0:
            break
        if r[3] in refused or r[1] > room:
            continue
        k -= 1
        tried.add(r[0])
        try:
            take_item(r[0])
            room -= r[1]
        except Exception:
            refused.add(r[3])
    print("room", room)
    print("pending", len(open_rows()))

look({turn.batch})"""
    return {"inspect": f"look({turn.batch})", "take": f"grab({turn.cap})", "finish": "finish()"}[turn.kind]


def _plain_stateless(turn: Turn) -> str:
    if turn.kind in ("first", "inspect"):
        return f"""import json
ids = json.loads(list_items())
for i in {_order(turn, "ids")}[{turn.offset}:min({turn.stop}, {turn.budget})]:
    d = json.loads(inspect(i))
    print(i, d["weight"], d["value"], d["class"])
print("left", max(0, min({turn.budget}, len(ids)) - {turn.stop}))"""
    if turn.kind == "take":
        literal = "".join(f'    ("{r.id}", {r.weight}, {r.value}, "{r.label}"),\n' for r in turn.rows)
        return f"""rows = [
{literal}]
room = {turn.room}
refused, tried = {_refused_set(turn)}, set()
rows.sort(key=lambda r: (-r[2] / r[1], r[0]))
for r in rows:
    if len(tried) == {turn.cap}:
        break
    if r[3] in refused or r[1] > room:
        continue
    tried.add(r[0])
    try:
        take_item(r[0])
        room -= r[1]
    except Exception:
        refused.add(r[3])
rest = [r for r in rows if r[0] not in tried and r[3] not in refused and r[1] <= room]
for r in rest:
    print(*r)
print("refused", *sorted(refused))
print("room", room)
print("pending", len(rest))"""
    return "finish()"


# ------------------------------------------------------------------ dicts: records, while loops, JSON lines


def _dicts_persistent(turn: Turn) -> str:
    if turn.kind == "first":
        return f"""import json
all_ids = json.loads(list_items())
queue = {_order(turn, "all_ids")}
queue = queue[:{turn.budget}]
seen = {{}}
state = {{"room": {turn.capacity}, "bad": []}}

def inspect_next(count):
    while queue and count:
        key = queue.pop(0)
        seen[key] = json.loads(inspect(key))
        count -= 1
    print(json.dumps({{"left": len(queue)}}))

def worth(key):
    item = seen[key]
    return item["class"] not in state["bad"] and item["weight"] <= state["room"]

def take_next(count):
    ranked = sorted(seen, key=lambda key: (-seen[key]["value"] / seen[key]["weight"], key))
    while ranked and count:
        key = ranked.pop(0)
        if not worth(key):
            continue
        count -= 1
        item = seen.pop(key)
        try:
            take_item(key)
            state["room"] -= item["weight"]
        except Exception:
            state["bad"].append(item["class"])
    print(json.dumps({{"room": state["room"], "pending": sum(1 for key in seen if worth(key))}}))

inspect_next({turn.batch})"""
    calls = {"inspect": f"inspect_next({turn.batch})", "take": f"take_next({turn.cap})", "finish": "finish()"}
    return calls[turn.kind]


def _dicts_stateless(turn: Turn) -> str:
    if turn.kind in ("first", "inspect"):
        return f"""import json
all_ids = json.loads(list_items())
queue = {_order(turn, "all_ids")}
for key in queue[{turn.offset}:{turn.stop}][:{turn.budget - turn.offset}]:
    item = json.loads(inspect(key))
    print(json.dumps([key, item["weight"], item["value"], item["class"]]))
print(json.dumps({{"left": max(0, min(len(queue), {turn.budget}) - {turn.stop})}}))"""
    if turn.kind == "take":
        literal = "".join(
            f'    "{r.id}": {{"weight": {r.weight}, "value": {r.value}, "class": "{r.label}"}},\n'
            for r in turn.rows
        )
        bad = ", ".join(f'"{label}"' for label in turn.refused)
        return f"""import json
seen = {{
{literal}}}
room, bad, count = {turn.room}, [{bad}], {turn.cap}

def worth(item):
    return item["class"] not in bad and item["weight"] <= room

for key in sorted(seen, key=lambda key: (-seen[key]["value"] / seen[key]["weight"], key)):
    if not worth(seen[key]) or not count:
        continue
    count -= 1
    item = seen.pop(key)
    try:
        take_item(key)
        room -= item["weight"]
    except Exception:
        bad.append(item["class"])
pending = {{key: item for key, item in seen.items() if worth(item)}}
for key, item in pending.items():
    print(json.dumps([key, item["weight"], item["value"], item["class"]]))
print(json.dumps({{"refused": bad}}))
print(json.dumps({{"room": room, "pending": len(pending)}}))"""
    return "finish()"


# ------------------------------------------------------------------ functional: comprehensions, comma-separated rows


def _functional_persistent(turn: Turn) -> str:
    if turn.kind == "first":
        return f"""from json import loads
names = loads(list_items())
plan = ({_order(turn, "names")})[:{turn.budget}]
table, closed = {{}}, set()
load = 0

def ratio(name):
    weight, value, label = table[name]
    return -value / weight, name

def fits(name):
    return table[name][2] not in closed and table[name][0] <= {turn.capacity} - load

def scan(k):
    for name in [name for name in plan if name not in table][:k]:
        facts = loads(inspect(name))
        table[name] = facts["weight"], facts["value"], facts["class"]
    print(f"left={{len(plan) - len(table)}}")

done = set()

def fill(k):
    global load
    for name in sorted(set(table) - done, key=ratio):
        if k and fits(name):
            k -= 1
            done.add(name)
            try:
                take_item(name)
                load += table[name][0]
            except Exception:
                closed.add(table[name][2])
    print(f"room={{{turn.capacity} - load}}, pending={{len([name for name in table if name not in done and fits(name)])}}")

scan({turn.batch})"""
    return {"inspect": f"scan({turn.batch})", "take": f"fill({turn.cap})", "finish": "finish()"}[turn.kind]


def _functional_stateless(turn: Turn) -> str:
    if turn.kind in ("first", "inspect"):
        return f"""from json import loads
names = loads(list_items())
plan = ({_order(turn, "names")})[:{turn.budget}]
for name in plan[{turn.offset}:{turn.stop}]:
    facts = loads(inspect(name))
    print(name, *(facts[field] for field in ("weight", "value", "class")), sep=",")
print(f"left={{max(0, len(plan) - {turn.stop})}}")"""
    if turn.kind == "take":
        literal = "\n".join(f"{r.id},{r.weight},{r.value},{r.label}" for r in turn.rows)
        closed = _refused_set(turn)
        return f'''text = """
{literal}
"""
table = {{a: (int(b), int(c), d) for a, b, c, d in (line.split(",") for line in text.split())}}
room, closed, done = {turn.room}, {closed}, set()

def fits(name):
    return name not in done and table[name][2] not in closed and table[name][0] <= room

for name in sorted(table, key=lambda name: (-table[name][1] / table[name][0], name)):
    if len(done) < {turn.cap} and fits(name):
        done.add(name)
        try:
            take_item(name)
            room -= table[name][0]
        except Exception:
            closed.add(table[name][2])
rest = [name for name in table if fits(name)]
for name in rest:
    print(name, *table[name], sep=",")
print("refused=" + "".join(sorted(closed)))
print(f"room={{room}}, pending={{len(rest)}}")'''
    return "finish()"


# ------------------------------------------------------------------ object: a class, labelled rows


def _object_persistent(turn: Turn) -> str:
    if turn.kind == "first":
        return f"""import json

class Bag:
    def __init__(self, order, budget, capacity):
        self.todo = order[:budget]
        self.room = capacity
        self.items = []
        self.banned = set()

    def study(self, count):
        batch, self.todo = self.todo[:count], self.todo[count:]
        for item_id in batch:
            info = json.loads(inspect(item_id))
            self.items.append({{"id": item_id, **info}})
        print("left:", len(self.todo))

    def candidates(self):
        good = [it for it in self.items if it["class"] not in self.banned and it["weight"] <= self.room]
        return sorted(good, key=lambda it: (-it["value"] / it["weight"], it["id"]))

    def pack(self, count):
        while count and self.candidates():
            count -= 1
            it = self.candidates()[0]
            self.items.remove(it)
            try:
                take_item(it["id"])
                self.room -= it["weight"]
            except Exception:
                self.banned.add(it["class"])
        print("room:", self.room, "pending:", len(self.candidates()))

everything = json.loads(list_items())
bag = Bag({_order(turn, "everything")}, {turn.budget}, {turn.capacity})
bag.study({turn.batch})"""
    return {"inspect": f"bag.study({turn.batch})", "take": f"bag.pack({turn.cap})", "finish": "finish()"}[
        turn.kind
    ]


def _object_stateless(turn: Turn) -> str:
    if turn.kind in ("first", "inspect"):
        return f"""import json
everything = json.loads(list_items())
todo = {_order(turn, "everything")}
todo = todo[:{turn.budget}]
batch, rest = todo[{turn.offset}:{turn.stop}], todo[{turn.stop}:]
for item_id in batch:
    info = json.loads(inspect(item_id))
    print(f"{{item_id}} w={{info['weight']}} v={{info['value']}} c={{info['class']}}")
print("left:", len(rest))"""
    if turn.kind == "take":
        literal = "".join(
            f'    dict(id="{r.id}", w={r.weight}, v={r.value}, c="{r.label}"),\n' for r in turn.rows
        )
        return f"""items = [
{literal}]
room = {turn.room}
banned = {_refused_set(turn)}

def candidates():
    good = [it for it in items if it["c"] not in banned and it["w"] <= room]
    return sorted(good, key=lambda it: (-it["v"] / it["w"], it["id"]))

count = {turn.cap}
while count and candidates():
    count -= 1
    it = candidates()[0]
    items.remove(it)
    try:
        take_item(it["id"])
        room -= it["w"]
    except Exception:
        banned.add(it["c"])
for it in candidates():
    print(f"{{it['id']}} w={{it['w']}} v={{it['v']}} c={{it['c']}}")
print("refused:", *sorted(banned))
print("room:", room, "pending:", len(candidates()))"""
    return "finish()"


# ------------------------------------------------------------------ compact: few tokens, rows copied as they were printed


def _compact_persistent(turn: Turn) -> str:
    if turn.kind == "first":
        return f"""import json
ids = json.loads(list_items())
ids = {_order(turn, "ids")}
rows, bad, pos, room = [], set(), 0, {turn.capacity}
def look(k):
    global pos
    for i in ids[pos:min(pos + k, {turn.budget})]:
        d = json.loads(inspect(i))
        rows.append((i, d["weight"], d["value"], d["class"]))
    pos += k
    left = max(0, min({turn.budget}, len(ids)) - pos)
    print("left", left) if left else print("seen all")
def grab(k):
    global room
    for r in sorted(rows, key=lambda r: (-r[2] / r[1], r[0])):
        if k and r[3] not in bad and r[1] <= room:
            k -= 1
            rows.remove(r)
            try:
                take_item(r[0])
                room -= r[1]
            except Exception:
                bad.add(r[3])
    print("room", room, "pending", sum(r[3] not in bad and r[1] <= room for r in rows))
look({turn.batch})""".replace("ids = ids\n", "")
    return {"inspect": f"look({turn.batch})", "take": f"grab({turn.cap})", "finish": "finish()"}[turn.kind]


def _compact_stateless(turn: Turn) -> str:
    if turn.kind in ("first", "inspect"):
        return f"""import json
ids = json.loads(list_items())
ids = {_order(turn, "ids")}
def look(n):
    d = json.loads(inspect(ids[n]))
    print(n, end=":")
    print(ids[n], d["weight"], d["value"], d["class"], sep=",")
for n in range({turn.offset}, min({turn.stop}, {turn.budget})):
    look(n)
left = max(0, min({turn.budget}, len(ids)) - {turn.stop})
print("left", left) if left else print("seen all")""".replace("ids = ids\n", "")
    if turn.kind == "take":
        # Numbered rows: whoever copies them from several outputs knows which comes next. What an earlier take left
        # over is numbered anew, behind another mark, so that no two outputs answer to the same number.
        mark = ";" if turn.taken else ":"
        literal = "\n".join(
            f"{n}{mark}{r.id},{r.weight},{r.value},{r.label}" for n, r in enumerate(turn.rows)
        )
        return f'''text = """
{literal}
"""
rows = [t.split("{mark}")[1].split(",") for t in text.split()]
rows = [(i, int(w), int(v), c) for i, w, v, c in rows]
k, bad, room = {turn.cap}, set(), {turn.room}
for r in sorted(rows, key=lambda r: (-r[2] / r[1], r[0])):
    if k and r[3] not in bad and r[1] <= room:
        k -= 1
        rows.remove(r)
        try:
            take_item(r[0])
            room -= r[1]
        except Exception:
            bad.add(r[3])
rows = [r for r in rows if r[3] not in bad and r[1] <= room]
for n, r in enumerate(rows):
    print(n, end=";")
    print(*r, sep=",")
print("room", room, "pending", len(rows))'''
    return "finish()"


STYLES: tuple[Style, ...] = (
    Style("plain", _plain_persistent, _plain_stateless),
    Style("dicts", _dicts_persistent, _dicts_stateless),
    Style("functional", _functional_persistent, _functional_stateless),
    Style("object", _object_persistent, _object_stateless),
)
"""The styles that `varied` draws from."""

COMPACT = Style("compact", _compact_persistent, _compact_stateless)
"""Few tokens a block, for models that train in minutes; drawn only when asked for."""

_PROSE = {
    "first": (
        "I list the items and inspect the first batch.",
        "First I get the ids and look at some of them.",
        "Start with the list, then spend part of the budget.",
        "Nothing is known yet, so I list everything and begin to inspect.",
    ),
    "inspect": (
        "I inspect the next batch.",
        "There is budget left, so I look at more items.",
        "Next batch of inspections.",
        "More inspections before the first take.",
    ),
    "take": (
        "I take the densest items and skip classes that are refused.",
        "Now I take by value per weight, learning from refusals.",
        "Time to fill the knapsack, best ratio first.",
        "Inspection is over; take what fits, in order of density.",
    ),
    "finish": (
        "Nothing worth trying is left, so I finish.",
        "The knapsack is filled. Finish.",
        "No candidate remains; done.",
        "I end the episode here.",
    ),
}


def prose(kind: str, rng: random.Random) -> str:
    """Return a sentence for a turn."""
    return _PROSE[kind][rng.randrange(len(_PROSE[kind]))]


_ROW = r"\W+(?:w=)?(\d+)\W+(?:v=)?(\d+)\W+(?:c=)?([A-Z])\b"


def read_rows(text: str, id_pattern: str) -> list[Row]:
    """Return the rows printed in a block's output, whichever style printed them."""
    found = re.findall(rf"(?<![\w])({id_pattern}){_ROW}", text)
    return [Row(item_id, int(weight), int(value), label) for item_id, weight, value, label in found]


def read_number(text: str, word: str) -> int | None:
    """Return the last number printed after a word, None when the word was not printed."""
    if word == "left" and "seen all" in text:
        return 0
    found = re.findall(rf"\b{word}\W+(\d+)", text)
    return int(found[-1]) if found else None


def read_refused(text: str) -> list[str]:
    """Return the refused classes printed in a block's output, in order."""
    found = re.findall(r"refused\b(.*)", text)
    return re.findall(r"[A-Z]", found[-1]) if found else []


def id_pattern(ids: Sequence[str] | None, prefix: str, hex_digits: int) -> str:
    """Return a regular expression for item ids."""
    if ids:
        return "|".join(re.escape(item_id) for item_id in ids)
    return re.escape(prefix) + rf"[0-9a-f]{{{hex_digits}}}"

"""The fused CPU search: one compiled kernel walks the episodes, one backs the tree up.

Per-episode order gives the same tree as level order, because the policy is fixed within an iteration and the random
numbers belong to places, not to the order of the work; ``search_array`` is the oracle for that.

A belief node's id is larger than its parent's, so a sweep by falling id needs no level index. Only actions that were tried
have a node; the untried ones of a belief share one preference and are counted in closed form. A belief that is visited
often gets an index of cumulative weights besides: a full row of |A| ("dense"), or the tried actions only ("sparse").

What mattered for speed, measured: arrays without reference counts (``borrow_numba``), one large kernel, one cache line a
node, weights stored at backup so that drawing an action needs no exponential, and no row of |A| for a node seen once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sfumato_vopp.borrow_numba import borrow
from sfumato_vopp.counter import SLOTS_PER_STEP
from sfumato_vopp.counter_numba import GAMMA, episode_key, uniform
from sfumato_vopp.model import CompiledModel
from sfumato_vopp.numba_cache import with_disk_cache

__all__ = ["ACTION", "BELIEF", "backup", "child_slot", "forward_kernel", "rehash"]

OK, FULL, BAD_REWARD, BAD_OBSERVATION, NOT_WHOLE, BAD_STATE = range(6)
N_BELIEFS, N_ACTIONS, HASH_MASK, EPISODE, N_VISITED, STEPS, N_ROWS, N_SLOTS, WHICH_ACTION, WHICH_OBSERVATION = range(10)
#: What ``row`` says of a belief without an index: a leaf, opened in this iteration, opened before.
LEAF, FRESH, LISTED = -1, -2, -3

BELIEF = np.dtype(
    [
        ("parent", np.int32),  # the action node above
        ("n", np.int32),
        ("obs", np.int64),
        ("hint", np.float64),  # sum of leaf estimates; once opened, the preference of the untried actions
        ("share", np.float64),  # n·V with which this node last entered its parent's sum
        ("v", np.float64),
        ("untried", np.float64),  # probability of each single untried action
        ("hint_n", np.int32),
        ("row", np.int32),
        ("stamp", np.int32),  # last iteration that passed through
        ("first", np.int32),  # first action node
    ]
)
ACTION = np.dtype(
    [
        ("n", np.int32),
        ("end", np.int32),  # visits that ended the episode
        ("reward", np.float64),
        ("q_sum", np.float64),  # Σ n·V over the beliefs below
        ("psi", np.float64),
        ("p", np.float64),  # probability under the policy of this iteration
        ("child", np.int32),  # the belief below that was met last
        ("next", np.int32),
        ("id", np.int32),
        ("bel", np.int32),
        ("born", np.int32),
        ("other", np.int32),  # the belief below that was met last but one
    ]
)

_SLOTS = np.uint64(SLOTS_PER_STEP)
_HASH_1, _HASH_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_S29, _S32 = np.uint64(29), np.uint64(32)


@njit(inline="always")
def child_slot(parent, observation, mask):  # type: ignore[no-untyped-def]
    """Return where to look first for the child of an action node on an observation."""
    h = np.uint64(parent) * _HASH_1 + np.uint64(observation) * _HASH_2
    h ^= h >> _S29
    h *= _HASH_1
    return np.int64(h >> _S32) & mask


@njit(cache=True)
def rehash(table, mask, n_beliefs, bel):  # type: ignore[no-untyped-def]
    """Fill the first mask+1 places of the child table anew from the nodes."""
    for p in range(mask + 1):
        table[p] = -1
    for b in range(1, n_beliefs):
        p = child_slot(bel[b].parent, bel[b].obs, mask)
        while table[p] >= 0:
            p = (p + 1) & mask
        table[p] = b


def forward_kernel(model: CompiledModel) -> Any:
    """Build the kernel that walks the episodes of one iteration through the tree."""
    step, hint = model.step, model.hint

    def forward(  # type: ignore[no-untyped-def]
        counters, S_, stream_, particles_, cumulative, weighted, n_episodes, first_episode, depth, n_actions,
        n_observations, seed, iteration, leaf_prior, mixing, dense, ints_, floats_, table_, visited_, bel_, act_,
        row_start_, row_size_, slot_cum_, slot_act_, slot_id_,
    ):  # fmt: skip
        S, stream, particles, ints, floats = borrow(S_), borrow(stream_), borrow(particles_), borrow(ints_), borrow(floats_)
        table, visited, bel, act = borrow(table_), borrow(visited_), borrow(bel_), borrow(act_)
        row_start, row_size = borrow(row_start_), borrow(row_size_)
        slot_cum, slot_act, slot_id = borrow(slot_cum_), borrow(slot_act_), borrow(slot_id_)
        n_beliefs, n_acts, mask = counters[N_BELIEFS], counters[N_ACTIONS], counters[HASH_MASK]
        n_visited, steps = counters[N_VISITED], counters[STEPS]
        width, n_particles = particles.shape[1], particles.shape[0]
        code = 0
        while counters[EPISODE] < n_episodes:
            if n_beliefs + depth + 1 > bel.size or n_acts + depth > act.size or 2 * (n_beliefs + depth + 1) > mask:
                code = 1
                break
            key = episode_key(seed, first_episode + counters[EPISODE])
            stream[0] = key
            u = uniform(stream)
            start = int(u * n_particles)
            if weighted:
                low, high, x = 0, n_particles - 1, u * cumulative[n_particles - 1]
                while low < high:
                    mid = (low + high) >> 1
                    if cumulative[mid] <= x:
                        low = mid + 1
                    else:
                        high = mid
                start = low
            for j in range(width):
                S[0, j] = particles[start, j]
            b = 0
            ended = False
            for d in range(depth):
                bel[b].n += 1
                if bel[b].stamp != iteration:
                    bel[b].stamp = iteration
                    visited[n_visited] = b
                    n_visited += 1
                stream[0] = key + (np.uint64(1) + np.uint64(d) * _SLOTS) * GAMMA
                u = uniform(stream)
                row = bel[b].row
                even = row == -2
                if row == -1:
                    bel[b].row = row = -2
                    bel[b].first = -1
                    even = True
                if d == 0 and mixing > 0.0:
                    if u < mixing:
                        u = u / mixing
                        even = True
                    else:
                        u = (u - mixing) / (1.0 - mixing)
                # Draw an action: its id a, and its node e or -1. All storages walk the same line, ordered by id, so the
                # same u gives the same action in each.
                e = -1
                a = int(u * n_actions)
                before = -1
                if row >= 0 and dense:
                    first = row * n_actions
                    if not even:
                        a = 0
                        if n_actions <= 32:
                            for j in range(n_actions - 1):
                                a += slot_cum[first + j] <= u
                        else:
                            low, high = 0, n_actions - 1
                            while low < high:
                                mid = (low + high) >> 1
                                if slot_cum[first + mid] <= u:
                                    low = mid + 1
                                else:
                                    high = mid
                            a = low
                    e = slot_act[first + a]
                elif row >= 0:
                    first, low, high = row_start[row], 0, row_size[row]
                    untried = bel[b].untried
                    if even:
                        while low < high:
                            mid = (low + high) >> 1
                            if slot_id[first + mid] < a:
                                low = mid + 1
                            else:
                                high = mid
                        if low < row_size[row] and slot_id[first + low] == a:
                            e = slot_act[first + low]
                    else:
                        while low < high:
                            mid = (low + high) >> 1
                            if slot_cum[first + mid] <= u:
                                low = mid + 1
                            else:
                                high = mid
                        # Slot `low` is the first whose end lies beyond u; before it comes a gap of untried actions.
                        last_id, last_cum = -1, 0.0
                        if low > 0:
                            last_id, last_cum = slot_id[first + low - 1], slot_cum[first + low - 1]
                        next_id = slot_id[first + low] if low < row_size[row] else n_actions
                        gap = next_id - last_id - 1
                        x = u - last_cum
                        if low < row_size[row] and x >= gap * untried:
                            e, a = slot_act[first + low], next_id
                        elif gap > 0:
                            a = last_id + 1 + min(gap - 1, int(x / untried)) if untried > 0.0 else last_id + 1
                        else:
                            e, a = slot_act[first + low - 1], last_id
                    if e < 0:
                        f = bel[b].first
                        while f >= 0 and act[f].born == iteration:
                            if act[f].id == a:
                                e = f
                                break
                            f = act[f].next
                else:
                    f = bel[b].first
                    if even:
                        while f >= 0 and act[f].id < a:
                            before = f
                            f = act[f].next
                        if f >= 0 and act[f].id == a:
                            e = f
                    else:
                        untried, last_id, x = bel[b].untried, -1, u
                        while True:
                            next_id = act[f].id if f >= 0 else n_actions
                            gap = next_id - last_id - 1
                            if x < gap * untried or (f < 0 and gap > 0):
                                a = last_id + 1 + min(gap - 1, int(x / untried)) if untried > 0.0 else last_id + 1
                                break
                            if f < 0:
                                e, a = before, last_id  # u fell on the rounding error at the end
                                break
                            x -= gap * untried
                            if x < act[f].p:
                                e, a = f, next_id
                                break
                            x -= act[f].p
                            last_id, before = next_id, f
                            f = act[f].next
                o, r, ended = step(S, 0, a, stream, ints, floats)
                steps += 1
                if not np.isfinite(r):
                    counters[WHICH_ACTION] = a
                    code = 2
                    break
                if n_observations > 0 and (o < 0 or o >= n_observations):
                    counters[WHICH_ACTION], counters[WHICH_OBSERVATION] = a, o
                    code = 3
                    break
                # Nothing is left of these two checks where the numbers are whole by type.
                if o != np.int64(o):
                    counters[WHICH_ACTION] = a
                    code = 4
                    break
                if not ended:
                    for j in range(width):
                        if S[0, j] - S[0, j] != 0:
                            counters[WHICH_ACTION] = a
                            code = 5
                    if code != 0:
                        break
                if e < 0:
                    e = n_acts
                    n_acts += 1
                    act[e].n = 0
                    act[e].end = 0
                    act[e].reward = 0.0
                    act[e].q_sum = 0.0
                    act[e].psi = bel[b].hint
                    act[e].p = bel[b].untried
                    act[e].child = -1
                    act[e].other = -1
                    act[e].id = a
                    act[e].bel = b
                    act[e].born = iteration
                    if row >= 0 or before < 0:
                        act[e].next = bel[b].first
                        bel[b].first = e
                        if row >= 0 and dense:
                            slot_act[row * n_actions + a] = e
                    else:
                        act[e].next = act[before].next
                        act[before].next = e
                act[e].n += 1
                act[e].reward += r
                if ended:
                    act[e].end += 1
                    break
                child = act[e].child
                if child < 0 or bel[child].obs != o:
                    last = child
                    child = act[e].other
                    if child < 0 or bel[child].obs != o:
                        p = child_slot(e, o, mask)
                        while True:
                            child = table[p]
                            if child < 0:
                                child = n_beliefs
                                n_beliefs += 1
                                table[p] = child
                                bel[child].parent = e
                                bel[child].obs = o
                                bel[child].n = 0
                                bel[child].hint = 0.0
                                bel[child].hint_n = 0
                                bel[child].share = 0.0
                                bel[child].row = -1
                                bel[child].stamp = -1
                                break
                            if bel[child].parent == e and bel[child].obs == o:
                                break
                            p = (p + 1) & mask
                    act[e].other = last
                    act[e].child = child
                b = child
                # A node not expanded before this iteration gathers leaf estimates: they are its value while it is a
                # leaf, and the start of its preferences once it is not.
                if (bel[b].row == -1 or bel[b].row == -2) and (leaf_prior or d + 1 == depth):
                    bel[b].hint += hint(S, 0, a, ints, floats)
                    bel[b].hint_n += 1
            if code != 0:
                break
            if not ended:
                bel[b].n += 1
                if bel[b].stamp != iteration:
                    bel[b].stamp = iteration
                    visited[n_visited] = b
                    n_visited += 1
            counters[EPISODE] += 1
        counters[N_BELIEFS], counters[N_ACTIONS] = n_beliefs, n_acts
        counters[N_VISITED], counters[STEPS] = n_visited, steps
        return code

    return with_disk_cache(forward, model.cache_key)


@njit(cache=True, nogil=True)
def backup(  # type: ignore[no-untyped-def]
    counters, visited, whole_tree, iteration, n_actions, eta, discount, leaf_prior, prior, survivors, children_only,
    subtract_all, clip, dense, row_visits, bel, act, row_start, row_size, row_room, slot_cum, slot_act, slot_id,
):  # fmt: skip
    """Back values up from the leaves to the root, and clear the visited list.

    The sum over an action's successors is kept by differences, so the cost is that of the visited nodes alone. Nodes with
    at least ``row_visits`` visits get an index while there is room for one.
    """
    count = counters[N_BELIEFS] if whole_tree else counters[N_VISITED]
    log_actions = np.log(n_actions) / eta
    for place in range(count - 1, -1, -1):
        b = place if whole_tree else visited[place]
        row = bel[b].row
        if row == -1:
            v = bel[b].hint / bel[b].hint_n if bel[b].hint_n > 0 else 0.0
        else:
            fresh = row == -2
            old = bel[b].v
            untried = bel[b].hint
            if fresh:
                untried = prior
                if leaf_prior:
                    untried = (bel[b].hint / bel[b].hint_n if bel[b].hint_n > 0 else 0.0) - log_actions
                old = untried + log_actions
                row = -3
            if children_only:
                best = -np.inf
                e = bel[b].first
                while e >= 0:
                    best = max(best, untried if fresh else act[e].psi)
                    e = act[e].next
                total = 0.0
                e = bel[b].first
                while e >= 0:
                    total += np.exp(eta * ((untried if fresh else act[e].psi) - best))
                    e = act[e].next
                old = best + np.log(total) / eta
            best = -np.inf
            n_tried = 0
            e = bel[b].first
            while e >= 0:
                n = act[e].n
                below = n - act[e].end if survivors else n
                q = act[e].reward / n
                if below > 0:
                    q += discount * act[e].q_sum / below
                psi = (untried if fresh else act[e].psi) + (q - old)
                act[e].psi = psi
                best = max(best, psi)
                n_tried += 1
                e = act[e].next
            n_untried = n_actions - n_tried
            if n_untried > 0:
                if subtract_all:
                    untried -= old
                best = max(best, untried)
            floor = best - clip / eta
            untried = max(untried, floor)
            weight = np.exp(eta * (untried - best)) if n_untried > 0 else 0.0
            tried = 0.0
            e = bel[b].first
            while e >= 0:
                act[e].psi = max(act[e].psi, floor)
                p = np.exp(eta * (act[e].psi - best))
                act[e].p = p
                tried += p
                e = act[e].next
            total = tried + n_untried * weight
            v = best + np.log(tried if children_only else total) / eta
            scale = 1.0 / total
            e = bel[b].first
            while e >= 0:
                act[e].p *= scale
                e = act[e].next
            bel[b].untried = weight * scale
            bel[b].hint = untried
            if row < 0 and bel[b].n >= row_visits and counters[N_ROWS] < row_start.size:
                room = n_actions if dense else min(n_actions, 2 * n_tried + 2)
                if counters[N_SLOTS] + room <= slot_cum.size:
                    row = counters[N_ROWS]
                    counters[N_ROWS] += 1
                    row_start[row], row_size[row], row_room[row] = counters[N_SLOTS], 0, room
                    counters[N_SLOTS] += room
                    if dense:
                        for j in range(counters[N_SLOTS] - room, counters[N_SLOTS]):
                            slot_act[j] = -1
                        e = bel[b].first
                        while e >= 0:
                            slot_act[row_start[row] + act[e].id] = e
                            e = act[e].next
            if row >= 0:
                if dense:
                    total = 0.0
                    for j in range(row * n_actions, (row + 1) * n_actions):
                        total += act[slot_act[j]].p if slot_act[j] >= 0 else weight * scale
                        slot_cum[j] = total
                else:
                    row = fill_sparse(
                        counters, b, row, n_tried, n_actions, weight * scale,
                        bel, act, row_start, row_size, row_room, slot_cum, slot_act, slot_id,
                    )  # fmt: skip
            bel[b].row = row
        bel[b].v = v
        if b > 0:
            share = bel[b].n * v
            act[bel[b].parent].q_sum += share - bel[b].share
            bel[b].share = share
    counters[N_VISITED] = 0


@njit(cache=True)
def fill_sparse(  # type: ignore[no-untyped-def]
    counters, b, row, n_tried, n_actions, untried, bel, act, row_start, row_size, row_room, slot_cum, slot_act, slot_id
):
    """Bring a belief's index of tried actions up to date; returns its row, or LISTED when there is no room left.

    A new action node stands at the head of the belief's list, so those that the index lacks come first there.
    """
    first, size = row_start[row], row_size[row]
    if n_tried > row_room[row]:
        room = min(n_actions, 2 * n_tried)
        if counters[N_SLOTS] + room > slot_cum.size:
            # Without an index the list has to be in the order of ids again.
            e = bel[b].first
            head = -1
            while e >= 0:
                following = act[e].next
                if head < 0 or act[e].id < act[head].id:
                    act[e].next = head
                    head = e
                else:
                    f = head
                    while act[f].next >= 0 and act[act[f].next].id < act[e].id:
                        f = act[f].next
                    act[e].next = act[f].next
                    act[f].next = e
                e = following
            bel[b].first = head
            return -3
        for j in range(size):
            slot_act[counters[N_SLOTS] + j] = slot_act[first + j]
            slot_id[counters[N_SLOTS] + j] = slot_id[first + j]
        first = counters[N_SLOTS]
        row_start[row], row_room[row] = first, room
        counters[N_SLOTS] += room
    e = bel[b].first
    fresh = n_tried - size
    for _ in range(fresh):
        j = first + size
        while j > first and slot_id[j - 1] > act[e].id:
            slot_id[j], slot_act[j] = slot_id[j - 1], slot_act[j - 1]
            j -= 1
        slot_id[j], slot_act[j] = act[e].id, e
        size += 1
        e = act[e].next
    row_size[row] = size
    total = 0.0
    last = -1
    for j in range(first, first + size):
        total += (slot_id[j] - last - 1) * untried + act[slot_act[j]].p
        slot_cum[j] = total
        last = slot_id[j]
    return row


@njit(cache=True)
def depths(n_beliefs, bel, act):  # type: ignore[no-untyped-def]
    """Return the depth of each belief node; a parent's id is smaller than its child's."""
    out = np.zeros(n_beliefs, np.int64)
    for b in range(1, n_beliefs):
        out[b] = out[act[bel[b].parent].bel] + 1
    return out


@njit(cache=True)
def find_child(act_node, observation, mask, table, bel):  # type: ignore[no-untyped-def]
    """Return the belief below an action node on an observation, or -1."""
    p = child_slot(act_node, observation, mask)
    while table[p] >= 0:
        b = table[p]
        if bel[b].parent == act_node and bel[b].obs == observation:
            return b
        p = (p + 1) & mask
    return -1


@njit(cache=True)
def compact(root, n_beliefs, n_acts, bel, act, bel_map, act_map):  # type: ignore[no-untyped-def]
    """Move the subtree below belief ``root`` to the front of the arrays; returns (beliefs, action nodes) kept.

    One pass in the order of ids, parents before children, so every move goes to a lower place. Indexes of weights are
    dropped, and the lists put in the order of action ids again, as nodes without an index need them.
    """
    kept = 0
    kept_acts = 0
    for b in range(n_beliefs):
        bel_map[b] = -1
    for e in range(n_acts):
        act_map[e] = -1
    bel_map[root] = 0
    for b in range(root + 1, n_beliefs):
        if bel_map[act[bel[b].parent].bel] >= 0:
            bel_map[b] = 1
    for b in range(root, n_beliefs):
        if bel_map[b] >= 0:
            bel_map[b] = kept
            kept += 1
    for e in range(n_acts):
        if bel_map[act[e].bel] >= 0:
            act_map[e] = kept_acts
            kept_acts += 1
    for e in range(n_acts):
        to = act_map[e]
        if to >= 0:
            act[to] = act[e]
            act[to].bel = bel_map[act[e].bel]
            act[to].child = -1
            act[to].other = -1
            act[to].born = -1
            if act[to].next >= 0:
                act[to].next = act_map[act[to].next]
    for b in range(root, n_beliefs):
        to = bel_map[b]
        if to >= 0:
            bel[to] = bel[b]
            bel[to].stamp = -1
            bel[to].parent = act_map[bel[to].parent]
            if bel[to].row != -1:
                bel[to].row = -3
                head = -1
                e = act_map[bel[to].first] if bel[to].first >= 0 else -1
                while e >= 0:
                    following = act[e].next
                    if head < 0 or act[e].id < act[head].id:
                        act[e].next = head
                        head = e
                    else:
                        f = head
                        while act[f].next >= 0 and act[act[f].next].id < act[e].id:
                            f = act[f].next
                        act[e].next = act[f].next
                        act[f].next = e
                    e = following
                bel[to].first = head
    bel[0].parent = -1
    bel[0].obs = -1
    bel[0].share = 0.0
    return kept, kept_acts

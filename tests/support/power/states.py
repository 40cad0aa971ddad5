"""States of a disk that are tried at each moment of a power loss.

A moment is right before a flush takes effect, or the end: between two of them, the possible states only grow. At each,
the unflushed operations are all lost; all there; there up to each one; all there except one; all lost except
one; there with the last write torn at each sector; there as bytes without names, or as names without bytes; and
random combinations of these. Equal states are tried once.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

from support.power.disk import Disk, digest, flushed, sectors_of
from support.power.trace import Mark, Operation, Sync, Trace

PIECES_MAX = 24
"""A write of more sectors is torn at this number of them, including the first and the last."""
NAMING = {"link", "unlink", "rename"}


class State(NamedTuple):
    """The files on the disk, the marks until then, and a description of the state."""

    files: dict[str, bytes | None]
    marks: list[str]
    story: str


class Choice(NamedTuple):
    """The pending operations that took effect, by place, with their sectors if not complete."""

    story: str
    happened: dict[int, frozenset[int] | None]


def states(
    trace: Trace,
    *,
    mixtures: int = 0,
    one_of: int = 1,
    few: bool = False,
    wanted=lambda _story: True,
    without=lambda _sync: False,
    seed: int = 0,
) -> Iterator[State]:
    """Yield the states to try, or every n-th of them, or the `wanted` one; only the simplest of each moment if `few`.

    `without` says which flushes are left out, as if the program did not make them.
    """
    chance = random.Random(seed)
    seen = set()
    count = itertools.count()
    disk, pending, marks = Disk.of(trace), [], []
    for place, event in enumerate([*trace.events, None]):
        if isinstance(event, Operation):
            pending.append(event)
        elif isinstance(event, Mark):
            marks.append(event.line)
        elif event is None or not without(event):
            tried = simple_choices(pending) if few else choices(pending, chance, mixtures)
            for choice in tried:
                if next(count) % one_of or not wanted(choice.story):
                    continue
                files = _files(disk, pending, choice)
                key = digest(files), len(marks)
                if key not in seen:
                    seen.add(key)
                    yield State(files, list(marks), f"event {place} of {len(trace.events)}: {choice.story}")
            if isinstance(event, Sync):
                for one in flushed(pending, event):
                    disk.apply(one)
                    pending.remove(one)


def _files(disk, pending, choice):
    left = disk.copy()
    for place, one in enumerate(pending):
        if place in choice.happened:
            left.apply(one, choice.happened[place])
    return left.files()


def simple_choices(pending: list[Operation]) -> Iterator[Choice]:
    """Yield the choices for all operations together."""
    everything = dict.fromkeys(range(len(pending)))
    names = {place for place, one in enumerate(pending) if one.kind in NAMING}
    yield Choice("nothing more", {})
    yield Choice("all", everything)
    yield Choice("names only", dict.fromkeys(names))
    yield Choice("no names", dict.fromkeys(everything.keys() - names))


def choices(pending: list[Operation], chance: random.Random, mixtures: int) -> Iterator[Choice]:
    """Yield the choices of operations that are tried."""
    everything = dict.fromkeys(range(len(pending)))
    yield from simple_choices(pending)
    yield Choice("sizes only", {place: _none_of(one) for place, one in enumerate(pending)})
    for place, one in enumerate(pending):
        what = f"{one.kind} at {one.at}"
        before = dict.fromkeys(range(place))
        yield Choice(f"all before the {what}", before)
        yield Choice(f"all but the {what}", {other: None for other in everything if other != place})
        yield Choice(f"only the {what}", {place: None})
        if one.kind == "write":
            yield Choice(f"all, zeros for the {what}", everything | {place: frozenset()})
    for place in _last_writes(pending):
        for cut in _cuts(sectors_of(pending[place])):
            torn = frozenset(sector for sector in sectors_of(pending[place]) if sector < cut)
            yield Choice(f"all, the write at {pending[place].at} torn at {cut}", everything | {place: torn})
            yield Choice(f"the write at {pending[place].at} torn at {cut}", {place: torn})
    for number in range(mixtures if len(pending) > 1 else 0):
        yield Choice(f"mixture {number}", _mixture(pending, chance))


def _none_of(operation):
    return frozenset() if operation.kind == "write" else None


def _last_writes(pending):
    """Return the last write to each file."""
    return sorted({one.target: place for place, one in enumerate(pending) if one.kind == "write"}.values())


def _cuts(sectors):
    within = sectors[1:]
    if len(within) <= PIECES_MAX:
        return list(within)
    step = len(within) // (PIECES_MAX // 2)
    return sorted({*within[: PIECES_MAX // 4], *within[::step], *within[-PIECES_MAX // 4 :]})


def _mixture(pending, chance):
    kept_share = chance.choice((0.1, 0.5, 0.9))
    happened = {}
    for place, one in enumerate(pending):
        if chance.random() >= kept_share:
            continue
        happened[place] = None
        if one.kind == "write" and chance.random() < 0.25:
            happened[place] = frozenset(sector for sector in sectors_of(one) if chance.random() < 0.5)
    return happened

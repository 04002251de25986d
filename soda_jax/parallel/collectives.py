"""What devices say to each other in a compiled program, read off its text (`compiled.as_text()`, HLO).

The text has one instruction a line, in computations; loops and branches call other computations by name:

    %all-reduce.3 = (f32[8]{0}, f32[]) all-reduce(%a, %b), replica_groups=[2,4]<=[8], to_apply=%add
    %w = (s32[], f32[8]{0}) while(%tuple), body=%region_6, backend_config={"known_trip_count":{"n":"2"}}
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
    "send",
)
Shape = tuple[str, tuple[int, ...]]  # type as HLO calls it, lengths: ("f32", (3, 3, 1, 8))

_OPERATION = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\((.*?)\)(?=[,\s]|$)")
_SHAPE = re.compile(r"\b([a-z]+[0-9]*(?:e[0-9]m[0-9]\w*)?)\[([0-9,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .* -> (.*) \{$")
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
ENTRY = ""  # name of the computation that is the program itself


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective operation.

    Attributes:
      kind: one of KINDS; both halves of an asynchronous one count as one. "send": from a slice of TPUs to the
        others, part of an operation over several slices, of which the rest is listed for itself.
      shapes: of its results on one device; several where the compiler joined several into one.
      members: numbers of the devices of its first group, as the program counts them; the others are alike.
        Of "send" the sender alone.
      in_loop: it lies in a loop.
      runs: how often one call of the program runs it; a loop of unknown length counts as one round, a
        branch as taken.
      name: where in the traced function it comes from, "" where the text does not say.
    """

    kind: str
    shapes: tuple[Shape, ...]
    members: tuple[int, ...]
    in_loop: bool
    runs: int
    name: str

    @property
    def groups(self) -> int:
        """Devices that take part in one group."""
        return len(self.members)

    @property
    def bytes(self) -> int:
        """Of the results of one run on one device."""
        return sum(math.ceil(math.prod(lengths) * bits(kind) / 8) for kind, lengths in self.shapes)


@dataclass(frozen=True, kw_only=True)
class _Computation:
    name: str
    result: str  # its type
    lines: list[str]


class _Callers:
    """Who calls a computation, and by it how often it runs."""

    def __init__(self, computations: list[_Computation]):
        self._sites: dict[str, list[tuple[str, int | None]]] = {}  # (caller, rounds of a loop or None)
        self.fused: set[str] = set()
        for computation in computations:
            for line in computation.lines:
                self._read(computation.name, line)

    def _read(self, caller: str, line: str) -> None:
        trips = _TRIPS.search(line)
        for role, name in _CALLED.findall(line):
            rounds = (int(trips[1]) if trips else 1) if role in ("body", "condition") else None
            self._sites.setdefault(name, []).append((caller, rounds))
            if " fusion(" in line:
                self.fused.add(name)
        for name in re.findall(r"[\w.\-]+", " ".join(_BRANCHES.findall(line))):
            self._sites.setdefault(name, []).append((caller, None))

    def runs(self, name: str) -> tuple[int, bool]:
        """How often a computation runs, and whether in a loop."""
        if name == ENTRY:
            return 1, False
        total, looped = 0, False
        for caller, rounds in self._sites.get(name, []):
            runs, inside = self.runs(caller)
            total, looped = total + runs * (rounds or 1), looped or inside or rounds is not None
        return total, looped


def collectives(hlo_text: str) -> list[Collective]:
    """Every collective operation of a compiled program, in the order of its text.

    Raises ValueError for text that is no HLO module, or that names groups in a way not known here.
    """
    header = re.match(r"\s*HloModule .*", hlo_text)
    if not header:
        raise ValueError("expected the text of a compiled program (HloModule ...), found something else")
    count = re.search(r"num_partitions=(\d+)", header[0]) or re.search(r"replica_count=(\d+)", header[0])
    computations = list(_computations(hlo_text))
    callers, found, seen = _Callers(computations), [], set()
    for computation in computations:
        for line in computation.lines:
            result = _result(line, computation)
            if not result or (computation.name in callers.fused and _again(line, seen)):
                continue
            members = (0,) if result[0] == "send" else first_group(line, int(count[1]) if count else 1)
            found.append(_collective(line, result, members, callers.runs(computation.name)))
    return found


def _again(line: str, seen: set[str]) -> bool:
    """TPUs cut an asynchronous one into fusions, and repeat it in each: its channel tells."""
    channel = re.search(r"channel_id=\d+", line)
    if not channel or channel[0] not in seen:
        seen |= {channel[0]} if channel else set()
        return False
    return True


def bits(kind: str) -> int:
    """Bits of one element of an HLO type: f32, bf16, s8, u4, pred, c64, f8e4m3fn, ..."""
    if kind in ("pred", "token"):
        return {"pred": 8, "token": 0}[kind]
    return int(re.match(r"[a-z]+(\d+)", kind)[1])


def _computations(text: str) -> Iterator[_Computation]:
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = _Computation(name=ENTRY if header[1] else header[2], result=header[3], lines=[])
        elif line.startswith("}"):
            yield current
        elif line.startswith(" "):
            current.lines.append(line)


def _result(line: str, computation: _Computation) -> tuple[str, tuple[Shape, ...]] | None:
    """(kind, shapes of the result) of a line that is a collective; None for any other."""
    found = _OPERATION.search(line)
    if not found or (found[2] == "send" and "_xla_megascale" not in line):  # other sends go to the host
        return None
    if computation.name.startswith("all-reduce-scatter"):  # how TPUs write it: an all-reduce and a slice
        return "reduce-scatter", _shapes(computation.result)
    kind, shapes, operands = found[2], _shapes(found[1]), found[4].count("%")
    if found[3] and kind != "all-reduce":  # the first half of an asynchronous one: (operands, results, ...)
        shapes = shapes[operands : 2 * operands]
    return kind, shapes[:1] if kind == "send" else shapes


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(
        (kind, tuple(int(n) for n in lengths.split(",") if n)) for kind, lengths in _SHAPE.findall(text)
    )


def _collective(
    line: str, result: tuple[str, tuple[Shape, ...]], members: tuple[int, ...], runs: tuple[int, bool]
) -> Collective:
    name = re.search(r'op_name="([^"]*)"', line)
    return Collective(
        kind=result[0],
        shapes=result[1],
        members=members,
        in_loop=runs[1],
        runs=runs[0],
        name=name[1] if name else "",
    )


def first_group(line: str, present: int) -> tuple[int, ...]:
    """Devices of the first group that an instruction names; all that are `present` where it names none."""
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    if pairs:
        return tuple(sorted({int(n) for n in re.findall(r"\d+", pairs[1])}))
    found = re.search(r"replica_groups=(.*?)(?:, [a-z_]+=(?!\(\[)|$)", line)
    text = found[1] if found else "{}"
    if text.startswith("{"):
        listed = re.match(r"\{\{([\d,]*)\}", text)
        return tuple(int(n) for n in listed[1].split(",")) if listed else tuple(range(present))
    return _by_axes(text) if text.startswith("mesh") else _by_shape(text)


def _by_shape(text: str) -> tuple[int, ...]:
    """`[2,4]<=[4,2]T(1,0)`: 2 groups of 4 of the numbers 0..7, transposed."""
    found = re.match(r"\[(\d+),(\d+)\]<=(\[.*)", text)
    if not found:
        raise ValueError(f"expected replica_groups={{...}}, [a,b]<=[...] or mesh[...], found {text!r}")
    return tuple(int(n) for n in _numbers(found[3]).reshape(int(found[1]), int(found[2]))[0])


def _by_axes(text: str) -> tuple[int, ...]:
    """`mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}`: those along 'a'; `'a':(2)2` is a part of it."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", text)}
    order = re.search(r"device_ids=\((.*?)\) \{", text)
    numbers = _numbers(order[1]) if order else np.arange(math.prod(sizes.values()))
    numbers = numbers.reshape(list(sizes.values()))
    inside = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", text[text.rindex("{") :])
    index: list[list[int]] = [[0] for _ in sizes]
    for name, before, size in inside:
        axis = list(sizes).index(name)
        before, size = (int(before), int(size)) if size else (1, sizes[name])
        stride = sizes[name] // (before * size)
        index[axis] = sorted(i + n * stride for i in index[axis] for n in range(size))
    return tuple(int(n) for n in numbers[np.ix_(*index)].ravel())


def _numbers(text: str) -> np.ndarray:
    """`[2,4]T(1,0)`: 0..7 as a 2 x 4 table, its axes in this order; a plain list where no T follows it."""
    shape, order = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()
    lengths = [int(n) for n in shape.split(",")]
    table = np.arange(math.prod(lengths)).reshape(lengths)
    return (table.transpose([int(n) for n in order.split(",")]) if order else table).ravel()

"""What is printed before training: parameters by module, where the arrays lie, how much memory that takes."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from soda_jax.parallel.sharding import RULES, Rules, name_of, nbytes, rule_of
from soda_jax.types import Tree

Row = tuple[str, ...]


def table(header: Row, rows: Iterable[Row], right: Sequence[int] = ()) -> str:
    """Plain columns; those of the numbers in `right` are set flush right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    cells = [
        [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in cells)


def parameter_table(params: Tree) -> str:
    """Arrays and parameters of each part of each network; blocks of one level are summed up."""
    counts: dict[str, list[int]] = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        row = counts.setdefault(part_of(name_of(path)), [0, 0])
        row[0] += 1
        row[1] += math.prod(leaf.shape)
    total = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [(name, f"{arrays:,}", f"{size:,}") for name, (arrays, size) in [*counts.items(), ("all", total)]]
    return table(("module", "arrays", "parameters"), rows, right=(1, 2))


def part_of(name: str) -> str:
    """ "encoder/stage1_block2/conv0/kernel" is a part of "encoder/stage1"."""
    network, _, rest = name.partition("/")
    module = rest.partition("/")[0]
    return f"{network}/{re.sub(r'_(block[0-9]+|conv|norm)$', '', module)}" if rest else network


def sharding_table(abstract: Tree, shardings: Tree, rules: Rules = RULES) -> str:
    """Arrays and bytes of each part of the state, by how they are cut over the devices."""
    counts: dict[Row, list[int]] = {}
    places = jax.tree.leaves(shardings)
    for (path, leaf), place in zip(jax.tree.leaves_with_path(abstract), places, strict=True):
        name = name_of(path)
        row = counts.setdefault((name.partition("/")[0], rule_of(name, rules), spec_text(place.spec)), [0, 0])
        row[0] += 1
        row[1] += nbytes(leaf)
    rows = [(*key, f"{arrays:,}", size_text(size)) for key, (arrays, size) in counts.items()]
    return table(("state", "rule", "cut over", "arrays", "size"), rows, right=(3, 4))


def spec_text(spec: Any) -> str:
    """ "axis 3: fsdp", or "-" for an array that every device holds whole."""
    return ", ".join(f"axis {axis}: {name}" for axis, name in enumerate(spec) if name) or "-"


def size_text(size: int | float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def state_bytes(abstract: Tree, shardings: Tree) -> tuple[int, int]:
    """Bytes of the whole state, and of the part that one device holds."""
    leaves = list(zip(jax.tree.leaves(abstract), jax.tree.leaves(shardings), strict=True))
    local = sum(
        math.prod(s.shard_shape(x.shape)) * nbytes(x) // max(math.prod(x.shape), 1) for x, s in leaves
    )
    return sum(nbytes(x) for x, _ in leaves), local


def memory_text(abstract: Tree, shardings: Tree, compiled: Any) -> str:
    """One line: the state, and what the compiled step needs beside it, of one device."""
    whole, local = state_bytes(abstract, shardings)
    text = f"memory: state {size_text(whole)} ({size_text(local)} a device)"
    analysis = compiled.memory_analysis()
    if analysis is None:
        return text
    arguments = analysis.argument_size_in_bytes
    extra = analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return (
        f"{text}; a step needs {size_text(arguments + extra)} a device: arguments {size_text(arguments)}, "
        f"working memory {size_text(extra)}"
    )

"""Before the first step, every process says what it is about to run; the odd one out is named.

A host with other code, another config, other libraries or other data would not fail: it would train on, and
spoil the run of all.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from soda_jax.parallel.processes import process_count

Facts = Mapping[str, str]  # what must be the same everywhere -> what it is here
MISSING = "(none)"
SHOWN = 200  # characters of a value in a message


def check_alike(facts: Facts) -> None:
    """Waits for all processes; raises ValueError, in each of them, naming those that differ, and in what."""
    if process_count() == 1:
        return
    complaint = odd_ones_out(gathered(facts))
    if complaint:
        raise ValueError(complaint)


def gathered(facts: Facts) -> list[dict[str, str]]:
    """The facts of all processes, in their order."""
    text = json.dumps(dict(facts)).encode()
    with jax.transfer_guard("allow"):
        lengths = multihost_utils.process_allgather(np.asarray(len(text), np.int32)).ravel()
        row = np.zeros(int(lengths.max()), np.uint8)
        row[: len(text)] = np.frombuffer(text, np.uint8)
        rows = multihost_utils.process_allgather(row).reshape(len(lengths), -1)
    return [json.loads(bytes(row[:length])) for row, length in zip(rows, lengths, strict=True)]


def odd_ones_out(everyone: Sequence[Facts]) -> str | None:
    """What to say if not all are alike: "process 3: libraries.jax is 0.9.0 (others: 0.10.2)"; None if they are."""
    names = sorted({name for facts in everyone for name in facts})
    found = [line for name in names for line in _differing(name, [f.get(name, MISSING) for f in everyone])]
    if not found:
        return None
    return (
        "the processes are about to run different things: "
        + "; ".join(found)
        + ". Start all of them from the same checkout, config, environment and data"
    )


def _differing(name: str, values: Sequence[str]) -> list[str]:
    """One line for each process whose value is not the most frequent one (the first one's, if none is)."""
    usual = Counter(values).most_common(1)[0][0]
    return [
        f"process {number}: {name} is {_short(value)} (others: {_short(usual)})"
        for number, value in enumerate(values)
        if value != usual
    ]


def _short(value: str) -> str:
    return value if len(value) <= SHOWN else value[:SHOWN] + " ..."

"""What the tasks of a probe found, as lines of the terminal and as a section of the run's page."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.disentangling import TASKS
from experiments.probe_tasks import ALWAYS
from experiments.probing import Job
from soda_jax.parallel import processes
from soda_jax.report import exhibit
from soda_jax.report.exhibit import Exhibit, HeatMap, Table

Found = Mapping[str, Any]
SINGLE = {"mig": "MIG", "sap": "SAP", "factor_vae": "FactorVAE score"}
PARTS = {"z": "dimensions of z", "sections": "sections of z"}
FIGURES = ("disentanglement", "completeness", "informativeness")
WORDS = {
    "dci": (
        "D, disentanglement: does a part of z serve one label only? C, completeness: does one part do all for a "
        "label? I, informativeness: how often classifiers on all of z are right on test. By boosted trees, and by "
        "linear classifiers. The untrained encoder shows what a code has without training."
    ),
    "factor_vae": (
        "MIG and SAP: how far the best dimension is ahead of the second best. FactorVAE score: how often the "
        "dimension that varies least tells which label was held."
    ),
    "sections": (
        "A linear probe that sees one section of z alone: section 0 modulates the outermost layers of the "
        "denoiser, the last one its middle (of a DiT: its first and its last blocks)."
    ),
    "f1": "F1: of the linear probe, for labels that are there or not.",
}


def leave(job: Job, step: int, found: Found) -> None:
    """Writes the exhibit of these results; takes away one that there is nothing for. Process 0 does."""
    folder = job.folder / str(step)
    if not processes.is_main():
        return
    if any(name in found for name in TASKS):
        exhibit.write(folder, made(job, step, found))
    else:
        (folder / exhibit.FILE).unlink(missing_ok=True)


def made(job: Job, step: int, found: Found) -> Exhibit:
    """The section of the page."""
    names = [name for name in TASKS if name in found]
    command = ["python", "-m", "experiments.probe", f"--workdir={job.run.workdir}", f"--step={step}"]
    return Exhibit(
        title="Which part of z knows what",
        order=10,
        paragraphs=[f"Step {step}.", *(WORDS[name] for name in names if name in WORDS)],
        tables=tables(found),
        heat_maps=[*probed(found), *weighed(found)],
        command=shlex.join([*command, f"--tasks={','.join([*ALWAYS, *names])}"]),
    )


def tables(found: Found) -> list[Table]:
    """Those that there is something for."""
    return [table for table in (dci_table(found), single_table(found), f1_table(found)) if table.rows]


def dci_table(found: Found) -> Table:
    """A row a kind of code and classifier; D, C and I of the trained and of the untrained encoder."""
    if "dci" not in found:
        return Table(head=[], rows=[])
    rows = [
        [f"{PARTS[part]}, {kind}", *(shown(side[part][figure]) for side in sides for figure in FIGURES)]
        for kind, sides in _kinds(found["dci"]).items()
        for part in PARTS
    ]
    return Table(head=["", "D", "C", "I", "untrained D", "C", "I"], rows=rows)


def _kinds(block: Found) -> dict[str, tuple[Found, Found]]:
    """Kind of classifier -> the figures of the trained and of the untrained encoder."""
    base = block["untrained"]
    return {"trees": (block, base), "linear": (block["linear"], base["linear"])}


def single_table(found: Found) -> Table:
    """A row a score of one number."""
    rows = [
        [words, shown(found[name]["z"]), shown(found[name]["untrained"]["z"])]
        for name, words in SINGLE.items()
        if name in found
    ]
    return Table(head=["", "z", "untrained z"], rows=rows)


def f1_table(found: Found) -> Table:
    """A row an attribute, and the mean."""
    if "f1" not in found:
        return Table(head=[], rows=[])
    block = found["f1"]
    columns = [block["z"], block["pooled"], block["untrained"]["z"], block["untrained"]["pooled"]]
    rows = [["mean", *(shown(column["mean"]) for column in columns)]]
    rows += [[name, *(shown(column["labels"][name]) for column in columns)] for name in block["z"]["labels"]]
    return Table(head=["F1", "z", "pooled", "untrained z", "untrained pooled"], rows=rows)


def probed(found: Found) -> list[HeatMap]:
    """Accuracies of the sections by themselves, of the trained and of the untrained encoder."""
    if "sections" not in found:
        return []
    block = found["sections"]
    return [
        _probed(block, "Accuracy of each section alone"),
        _probed(block["untrained"], "The same of the untrained encoder"),
    ]


def _probed(block: Found, title: str) -> HeatMap:
    labels = block["labels"]
    rows = [*section_names(block["linear"]), "all of z", "chance"]
    values = [*block["linear"], *([block[name][label] for label in labels] for name in ("whole", "chance"))]
    return HeatMap(title=title, rows=rows, columns=labels, values=values)


def weighed(found: Found) -> list[HeatMap]:
    """The trees' importance of each section for each label."""
    if "dci" not in found:
        return []
    block = found["dci"]
    rows, columns = section_names(block["importance"]), list(block["accuracy"])
    title = "Share of each section in what boosted trees know of a label"
    return [HeatMap(title=title, rows=rows, columns=columns, values=block["importance"])]


def section_names(values: Sequence) -> list[str]:
    return [f"section {number}" for number in range(len(values))]


def shown(value: float) -> str:
    return f"{value:.3f}"


def tasks_text(found: Found) -> str:
    """What the terminal shows below the accuracies; empty where there is nothing."""
    lines = [line for table in tables(found) for line in columns_of(table.head, table.rows)]
    for one in probed(found)[:1]:
        rows = [
            [name, *(f"{v * 100:.1f}" for v in row)] for name, row in zip(one.rows, one.values, strict=True)
        ]
        lines += columns_of([one.title, *one.columns], rows)
    return "\n".join(lines)


def columns_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right, each as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (head, *rows)
    ]

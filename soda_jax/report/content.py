"""The page of a run, section by section. What is not there yet is said in words."""

from collections.abc import Mapping, Sequence

from soda_jax.report import exhibit
from soda_jax.report import page as html
from soda_jax.report.curves import Dot, Series, bar_chart, dot_chart, line_chart, smooth
from soda_jax.report.page import Html
from soda_jax.report.record import (
    FEATURE_NAMES,
    FEATURES,
    RunRecord,
    column,
    differences,
    features_of,
    flatten,
    gains,
    interval,
    monitor_rows,
    newest_probe,
)
from soda_jax.report.summary import headline, title
from soda_jax.training.latent_monitor import warning

SMOOTH_SHARE = 30  # the bold loss curve is a running mean over 1/30 of the run


def render(record: RunRecord) -> Html:
    """The whole document."""
    above = (headline, generated, probes, probe_history)
    below = (latent, training, configuration, provenance)
    parts = [section(record) for section in above]
    parts += [exhibit.render(found) for found in record.exhibits]
    parts += [section(record) for section in below]
    return html.page(f"{title(record)}: {record.name}", parts)


def missing(what: str, main: str, record: RunRecord) -> str:
    return f"{what}: run python -m experiments.{main} --workdir={record.name}, then this report again."


def training(record: RunRecord) -> Html:
    """Loss and speed over the images trained on."""
    if not column(record.metrics, "loss")[0]:
        return html.section("Training", html.paragraph("No training metrics yet.", "note"))
    charts = html.side_by_side(
        html.chart(loss_chart(record), "Loss"),
        html.chart(speed_chart(record), "Images per second"),
    )
    return html.section("Training", charts)


def loss_chart(record: RunRecord) -> Html:
    x, y = column(record.metrics, "loss")
    window = len(y) // SMOOTH_SHARE
    raw = Series(name="", x=x, y=y, style="faint" if window > 1 else "line")
    mean = [Series(name=f"mean of {window} readings", x=x, y=smooth(y, window))] if window > 1 else []
    return line_chart([raw, *mean], title="Training loss", log=True)


def speed_chart(record: RunRecord) -> Html:
    x, y = column(record.metrics, "images_per_second")
    return line_chart([Series(name="", x=x, y=y)], title="Training images per second", from_zero=True)


def probes(record: RunRecord) -> Html:
    """The newest probe, as dots and as a table."""
    probe = newest_probe(record)
    if probe is None:
        words = missing("Not probed yet", "probe", record)
        return html.section("What the features know", html.paragraph(words, "note"))
    explanation = (
        f"Step {probe['step']}. A linear classifier and k nearest neighbours on frozen features, chosen on a "
        "part of train that was held out, reported once on test. The untrained encoder and the raw pixels go "
        "through the same probe: what they reach is not to training's credit. Whiskers, small figures: 95% "
        "intervals."
    )
    dots = html.chart(probe_dots(probe), "Linear probe, test accuracy")
    return html.section(
        "What the features know", html.paragraph(explanation), dots, probe_table(record, probe)
    )


def probe_dots(probe: Mapping) -> Html:
    names = features_of(probe)
    rows = [
        (label, [_dot(label, name, scores[name]) for name in names])
        for label, scores in probe["labels"].items()
    ]
    legend = [(FEATURE_NAMES[name], FEATURES.index(name)) for name in names]
    return dot_chart(rows, title="Linear probe accuracy by label and feature", legend=legend)


def _dot(label: str, name: str, scores: Mapping) -> Dot:
    low, high = interval(scores)
    title = f"{label}, {FEATURE_NAMES[name]}: {scores['linear']:.1%} ({low:.1%} to {high:.1%})"
    return Dot(value=scores["linear"], low=low, high=high, colour=FEATURES.index(name), title=title)


def probe_table(record: RunRecord, probe: Mapping) -> Html:
    """A row a label, two columns a feature; the best linear and the best k-NN figure of a row are marked."""
    names = features_of(probe)
    head = ["label", "chance", *(kind for _ in names for kind in ("linear", "k-NN"))]
    rows = [
        [*_label_cells(record, probe, label), *_scores(scores, names)]
        for label, scores in probe["labels"].items()
    ]
    return html.table(head, rows, [("", 2), *((FEATURE_NAMES[name], 2) for name in names)])


def _label_cells(record: RunRecord, probe: Mapping, label: str) -> list[Html]:
    classes, chance = record.classes.get(label), probe.get("chance", {}).get(label)
    known = f"{classes} classes" if classes else ""
    return [html.cell(label, known), html.cell("?" if chance is None else f"{chance:.1%}")]


def _scores(scores: Mapping[str, Mapping], names: Sequence[str]) -> list[Html]:
    best = {kind: max(scores[name][kind] for name in names) for kind in ("linear", "knn")}
    cells = []
    for name in names:
        linear, knn, (low, high) = scores[name]["linear"], scores[name]["knn"], interval(scores[name])
        span = f"{low * 100:.1f} to {high * 100:.1f}"
        cells.append(html.cell(f"{linear:.1%}", span, best=linear == best["linear"]))
        cells.append(html.cell(f"{knn:.1%}", best=knn == best["knn"]))
    return cells


def probe_history(record: RunRecord) -> Html:
    """Curves over the checkpoints probed, where there are two or more."""
    if len(record.probes) < 2:
        return ""
    labels = newest_probe(record)["labels"]
    charts = [html.chart(probe_curve(record, label), label) for label in labels]
    words = "Linear probe on test after each checkpoint probed; bands: 95% intervals."
    return html.section("How it came to know it", html.paragraph(words), html.side_by_side(*charts))


def probe_curve(record: RunRecord, label: str) -> Html:
    batch = int(record.config["train"]["batch"])
    steps = [step for step in sorted(record.probes) if label in record.probes[step]["labels"]]
    lines = [_probe_line(record, label, name, steps, batch) for name in FEATURES]
    return line_chart([line for line in lines if line], title=f"Linear probe of {label}", percent=True)


def _probe_line(record: RunRecord, label: str, name: str, steps: list[int], batch: int) -> Series | None:
    readings = [(step, record.probes[step]["labels"][label]) for step in steps]
    known = [(step, scores[name]) for step, scores in readings if name in scores]
    if not known:
        return None
    values, spans = [scores["linear"] for _, scores in known], [interval(scores) for _, scores in known]
    trained = name in ("z", "pooled")
    return Series(
        name=FEATURE_NAMES[name],
        x=[record.probes[step].get("images", step * batch) for step, _ in known],
        y=values,
        colour=FEATURES.index(name),
        style="line" if trained else "dashed",
        low=[low for low, _ in spans] if trained else (),
        high=[high for _, high in spans] if trained else (),
    )


def latent(record: RunRecord) -> Html:
    """What the latent monitor saw."""
    rows = monitor_rows(record.metrics)
    if not rows:
        return html.section("The latent", html.paragraph("The latent monitor has not run yet.", "note"))
    words = warning({key: value for key, value in rows[-1].items() if value is not None})
    verdict = html.paragraph(words, "note warn") if words else ""
    explanation = (
        "Loss with each image's own z, and with the z of another image at the same noise: the gap is what "
        "the denoiser takes from z. Effective rank: how many directions z really uses."
    )
    return html.section(
        "The latent", verdict, html.paragraph(explanation), latent_charts(rows), gain_chart(rows)
    )


def latent_charts(rows: Sequence[Mapping]) -> Html:
    rank = [
        _series(rows, "effective_rank", "effective rank", 0),
        _series(rows, "dead_dims", "dead dimensions", 1),
    ]
    return html.side_by_side(
        html.chart(use_chart(rows), "Does the denoiser use z?"),
        html.chart(line_chart(rank, title="Effective rank of z", from_zero=True), rank_heading(rows)),
    )


def use_chart(rows: Sequence[Mapping]) -> Html:
    lines = [_series(rows, "loss_true", "own z", 0), _series(rows, "loss_shuffled", "z of another image", 1)]
    return line_chart(lines, title="Loss with the true and with shuffled z", log=True)


def rank_heading(rows: Sequence[Mapping]) -> str:
    return f"How much does z hold? ({rows[-1]['latent_dim']:.0f} dimensions)"


def gain_chart(rows: Sequence[Mapping]) -> Html:
    """Bars of the newest reading."""
    names, values = gains(rows[-1])
    if not names:
        return ""
    words = (
        "Rise of the loss when one section of z is set to zero. Section 0 modulates the outermost layers of "
        f"the denoiser, section {len(names) - 1} its middle (of a DiT: its first and its last blocks)."
    )
    bars = html.chart(bar_chart(names, values, title="Gain of each section of z"), "Gain of each section")
    slope = line_chart([_series(rows, "gradient_norm", "", 0)], title="Gradient norm at z", from_zero=True)
    return html.paragraph(words) + html.side_by_side(bars, html.chart(slope, "Gradient of the loss at z"))


def _series(rows: Sequence[Mapping], key: str, name: str, colour: int) -> Series:
    x, y = column(rows, key)
    return Series(name=name, x=x, y=y, colour=colour)


def generated(record: RunRecord) -> Html:
    """Pictures of the test split, from the newest samples."""
    if not record.pictures:
        words = missing("No samples yet", "sample", record)
        return html.section("What the latent draws", html.paragraph(words, "note"), history(record))
    parts = [_picture(record, name) for name in CAPTIONS if name in record.pictures]
    return html.section("What the latent draws", *parts, history(record))


def history(record: RunRecord) -> Html:
    """Grids that were drawn while training, folded away."""
    shown = [html.picture(p.png, alt=f"samples {name}", caption=name) for name, p in record.history.items()]
    return html.folded("Grids drawn while training", *shown) if shown else ""


CAPTIONS = {
    "views": (
        "Source: what the encoder sees. Target: another view of the same. "
        "Generated: drawn from the source's z, each with other noise; where no view is asked for, what should "
        "agree with the target is the thing."
    ),
    "interpolation": "From the z of A to the z of B in equal steps, all with the same noise.",
    "sections": (
        "A drawn with one section of its z taken from B, section by section, all with the same noise: what "
        "changes is what that section carries."
    ),
}


def _picture(record: RunRecord, name: str) -> Html:
    one = record.pictures[name]
    caption = f"{CAPTIONS[name]} {one.description}".strip()
    return html.picture(one.png, alt=f"grid of {name}", caption=caption)


def configuration(record: RunRecord) -> Html:
    """Differences first; every key behind a click."""
    changed = differences(record.config, record.default) if record.default else []
    table = html.plain_table(["key", "default", "this run"], changed) if changed else ""
    words = "" if table else html.paragraph("Nothing differs from the default configuration.")
    lines = "\n".join(f"{key} = {value!r}" for key, value in flatten(record.config).items())
    return html.section("Configuration", table, words, html.folded("Every key", html.preformatted(lines)))


def provenance(record: RunRecord) -> Html:
    """Command lines and versions: how to make this again."""
    commands = html.preformatted("\n".join(record.commands)) if record.commands else ""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    known = html.paragraph(f"Versions: {versions}.", "soft") if versions else ""
    return html.section("How this was made", commands, known)

"""The table and the warnings that end a run of the grid."""

from collections import defaultdict
from pathlib import Path

from facet.base.names import COMPARISONS_FILE, METRICS, RUNS_TABLE
from facet.base.storage import read_csv, read_json
from facet.comparisons import describe_together


def format_summary() -> str:
    """Heads, chance and accuracy of each experiment, as a mean over seeds, and the verdicts."""
    rows_by_head: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in read_csv(RUNS_TABLE):
        rows_by_head[row["experiment"], row["head"]].append(row)
    lines = [
        f"{'experiment':22} {'head':11} {'seeds':>5} {'accuracy':>8} {'chance':>7} "
        f"{'balanced':>8} {'chance':>7}  verdicts"
    ]
    for (experiment, head), rows in rows_by_head.items():

        def mean(key: str, rows: list[dict[str, str]] = rows) -> str:
            values = [float(r[key]) for r in rows if r[key]]
            return f"{sum(values) / len(values):.3f}" if values else "-"

        verdicts = [r["verdict"] for r in rows]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
        lines.append(
            f"{experiment:22} {head:11} {len(rows):5} {mean('accuracy'):>8} "
            f"{mean('chance'):>7} {mean('balanced_accuracy'):>8} "
            f"{mean('balanced_chance'):>7}  {counts}"
        )
    for name, c in read_json(COMPARISONS_FILE).items():
        interval = f" [{c['ci95'][0]:+.3f}, {c['ci95'][1]:+.3f}]" if c["ci95"] else ""
        amount = f" {c['difference']:+.3f}{interval}" if c["difference"] is not None else ""
        lines.append(
            f"{name}: {c['candidate']} against {c['baseline']}, {c['head']} "
            f"{c['metric']}{amount}: {c['verdict']}"
            + (", by another split" if c.get("warning") else "")
        )
    together = describe_together(read_json(COMPARISONS_FILE))
    return "\n".join([*lines, *filter(None, [together]), *format_warnings()])


def format_warnings() -> list[str]:
    """The runs' warnings in a line each, those of an experiment's seeds together."""
    warnings_by_kind: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in sorted(Path(METRICS.format("x")).parent.glob("*.json")):
        metrics = read_json(path)
        for warning in metrics["warnings"]:
            warnings_by_kind[metrics["experiment"], *warning.split(": ")[:2]].append(warning)
    return [
        f"warning: {experiment}, {len(texts)} run{'s' * (len(texts) > 1)}: {texts[0]}"
        for (experiment, *_), texts in warnings_by_kind.items()
    ]

"""review.md: a review as Markdown."""

from collections.abc import Mapping
from typing import Any

from facet.base.config import get_nested
from facet.base.names import MAIN_METRIC
from facet.formats import Judgement, Review
from facet.review import consistency
from facet.tracking.provenance import name_processor


def markdown_table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """A Markdown table."""
    cells = [[str("" if c is None else c).replace("|", "\\|") for c in r] for r in rows]
    return [f"| {' | '.join(r)} |" for r in [head, ["---"] * len(head), *cells]] + [""]


def render_page(review: Review) -> str:
    """review.md: the verdict first, then what was found, each stage, each run."""
    who, here = review.reviewer, review.machine
    name = " ".join(filter(None, (who["name"], who["email"] and f"<{who['email']}>")))
    lines = [
        f"# Review of {review.commit[:12]}: {review.verdict}",
        "",
        review.reason,
        "",
        *markdown_table(
            ["", ""],
            [
                ["commit", review.commit],
                ["reviewer", name or "git has no name"],
                ["when", review.when],
                ["machine", f"{here['host']}, {here['cores']} cores, {here['system']}"],
                ["processor", name_processor(review.processor)],
                ["packages", ", ".join(f"{k} {v}" for k, v in review.versions.items()) or "-"],
                ["scope", review.scope + ("" if review.ran else "; nothing was run")],
                ["bytes", review.bytes],
            ],
        ),
    ]
    rows: list[list[Any]]
    if review.judgements:
        lines += format_judgements(review.judgements)
    if review.findings:
        rows = [[f.severity, f.check, f.where, f.what] for f in review.findings]
        lines += ["## Found", "", *markdown_table(["", "check", "where", "what"], rows)]
    stages = review.stages
    if changed := {n: s.metrics for n, s in stages.items() if s.metrics}:
        rows = [[n, key, a, b] for n, m in changed.items() for key, (a, b) in list(m.items())[:12]]
        lines += [
            "## Metrics that differ",
            "",
            "At most 12 for each stage; review.json has all.",
            "",
        ]
        lines += markdown_table(["stage", "figure", "then", "now"], rows)
    if stages:
        rows = [
            [
                n if not i else "",
                s.verdict if not i else "",
                out,
                was,
                "same" if was == now else now or "none",
                s.why if not i else "",
            ]
            for n, s in stages.items()
            for i, (out, (was, now)) in enumerate(s.outs.items())
        ]
        lines += ["## Stages", ""]
        lines += markdown_table(["stage", "verdict", "output", "dvc.lock", "here", "why"], rows)
    if review.runs:
        rows = []
        for run, r in review.runs.items():
            m: Mapping[str, Any] = r["manifest"] or {}  # older ones have not all keys
            state = " and uncommitted changes" if m.get("uncommitted") is True else ""
            source = f"{str(m.get('commit'))[:12]}{state}" if m else "no manifest here"
            by = get_nested(m, "who.name", None)
            where = name_processor(m.get("processor"))
            rows.append([run, r["wandb_id"], by, m.get("when"), source, where])
        lines += ["## Runs", ""]
        lines += markdown_table(["run", "W&B", "made by", "when", "from", "processor"], rows)
    return "\n".join(lines)


def format_judgements(judgements: list[Judgement]) -> list[str]:
    """What the judgement of figures found, and what it would have found."""
    rows = []
    for j in judgements:
        if j.metric != MAIN_METRIC:
            continue
        spread, limit = (f"{x:.3f}" if x is not None else "-" for x in (j.spread, j.limit))
        found = "nothing" if j.smallest is None else f"{j.smallest:.3f}"
        if j.smallest is not None and j.smallest >= 1:
            found = "nothing below 1"
        n = len(j.differences)
        rows.append([j.experiment, j.head, n, f"{j.mean:+.3f}", spread, limit, found, j.verdict])
    return [
        "## Figures",
        "",
        "Balanced accuracies made here less the committed ones, means over seeds. `spread` is the "
        "standard deviation over trainings; a mean difference beyond `limit` is inconsistent, "
        f"which happens to at most {consistency.FALSE_ALARM:.0%} of honest reviews. `found` is the "
        f"smallest change that would have been found with {consistency.POWER:.0%}: few seeds and "
        "few test items find little. review.json has the accuracies and single runs too.",
        "",
        *markdown_table(
            ["experiment", "head", "seeds", "difference", "spread", "limit", "found", "verdict"],
            rows,
        ),
    ]

"""The report's plots as Vega-Lite specifications. Pure: rows in, charts out.

Colours of lines and words are the page's (report.css), so that dark mode and paper need no second
drawing; the parameter `shown` of a specification is the experiments switched on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from facet.formats import ComparisonResult

Spec = dict[str, Any]  # a Vega-Lite specification, or a part of one
Rows = Sequence[Mapping[str, object]]  # what is drawn, a mark's fields in each
# Each at least 3:1 against the page's background, in light and in dark.
PALETTE = ("#2f7fd0", "#cf6a12", "#2a9457", "#d9455f", "#8f63d2", "#9a7a1c", "#16909c", "#c9519c")
GREY = "#808790"
SPACED_LABELS = {"labelOverlap": "greedy", "labelSeparation": 6}  # of a narrow axis
SPLIT_COLOURS = {"train": "#2f7fd0", "validation": "#9a7a1c", "test": "#d9455f"}


@dataclass
class Chart:
    """A plot and the table beside it."""

    title: str
    spec: Spec  # with the rows in it
    columns: list[tuple[str, str]]  # the table's: a row's field, and the heading
    rows: Rows | None  # the table's; None: those of the specification


class MetricPoint(TypedDict):
    """A head's metric of an experiment: of one run `seed` and `value`, over all runs the rest."""

    experiment: str
    metric: str  # in words
    seed: NotRequired[str]
    value: NotRequired[float]
    mean: NotRequired[float | None]
    low: NotRequired[float | None]  # the 95 % interval's ends, each a mean over the runs
    high: NotRequired[float | None]
    chance: NotRequired[float | None]


class CurvePoint(TypedDict):
    """An experiment's loss or accuracy after an epoch, over its seeds."""

    experiment: str
    part: str  # training or validation
    epoch: int
    mean: float | None  # None where a seed's value is no number
    low: float | None  # least over seeds
    high: float | None  # greatest over seeds


class UsagePoint(TypedDict):
    """One of W&B's samples of the machine while a run was training."""

    experiment: str
    run: str
    second: float  # since the run's first sample
    value: float


class UsageRow(TypedDict):
    """A run's samples in the table."""

    run: str
    samples: int
    mean: float
    greatest: float


# How many items of a split are of a class; `part` is the split, `share` is of its items.
ClassShare = TypedDict("ClassShare", {"class": str, "part": str, "items": int, "share": float})


class DifferencePoint(TypedDict):
    """The paired difference of one seed, or the mean of all with its interval."""

    row: str  # where it is drawn: `each seed` or `mean`
    seed: str
    difference: float | None
    low: NotRequired[float | None]
    high: NotRequired[float | None]


def make_chart(
    title: str, columns: dict[str, str], rows: Rows, table: Rows | None = None, **spec: Any
) -> Chart:
    """A chart of `rows`; `columns` maps fields to headings of the table, of `table` if given."""
    whole = {
        "description": title,
        "width": "container",
        "background": None,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"name": "rows", "values": rows},
        "config": {
            "view": {"stroke": None},
            "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
            "legend": {"orient": "bottom", "labelFontSize": 12, "title": None},
        },
        **spec,
    }
    return Chart(title, whole, list(columns.items()), table)


def colour_encoding(experiments: list[str]) -> Spec:
    """Colour by experiment, the same wherever it is drawn; the page's switches are the legend."""
    return {
        "field": "experiment",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": experiments, "range": colours(experiments)},
    }


def colours(experiments: list[str]) -> list[str]:
    """A colour for each experiment, in their order."""
    return [PALETTE[i % len(PALETTE)] for i in range(len(experiments))]


def experiment_switch(experiments: list[str]) -> Spec:
    """The switch of experiments: a parameter, and the filter that obeys it."""
    return {
        "params": [{"name": "shown", "value": experiments}],
        "transform": [{"filter": "indexof(shown, datum.experiment) >= 0"}],
    }


def difference_chart(title: str, comparison: ComparisonResult) -> Chart:
    """A dot for each seed's paired difference, their mean, and its interval where there is one."""
    metric = comparison["metric"].replace("_", " ")
    differences, mean = comparison["differences"], comparison["difference"]
    rows: list[DifferencePoint] = [
        {"row": "each seed", "seed": str(s), "difference": d}
        for s, d in zip(comparison["seeds"], differences, strict=True)
    ]
    low, high = comparison["ci95"] or (None, None)
    rows.append({"row": "mean", "seed": "mean", "difference": mean, "low": low, "high": high})
    widest = 1.1 * max((abs(v) for v in (*differences, mean, low, high) if v), default=0.01)
    x = {
        "field": "difference",
        "type": "quantitative",
        "title": f"difference in {metric}, a fraction of 1",
        "axis": {
            "labelExpr": "datum.value ? format(datum.value, '+.3~f') : '0'",
            "tickCount": 5,
            "grid": False,
        }
        | SPACED_LABELS,
        "scale": {"domain": [-widest, widest], "nice": False},
    }
    y = {"field": "row", "type": "nominal", "title": None, "sort": ["each seed", "mean", "better"]}
    tip = [
        {"field": "seed", "title": "seed"},
        {"field": "difference", "format": "+.4f"},
        {"field": "low", "title": "95 % from", "format": "+.4f"},
        {"field": "high", "title": "95 % to", "format": "+.4f"},
    ]
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "strokeDash": [4, 3], "color": GREY, "aria": False},
            "encoding": {"x": {"datum": 0}},
        },
        {
            "transform": [{"filter": "datum.row == 'mean' && isValid(datum.low)"}],
            "mark": {"type": "rule", "strokeWidth": 3, "color": PALETTE[0], "tooltip": True},
            "encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y},
        },
        {
            "mark": {"type": "point", "size": 70, "strokeWidth": 2, "color": PALETTE[1]},
            "transform": [{"filter": "datum.row != 'mean'"}],
            "encoding": {"x": x, "y": y, "tooltip": tip[:2]},
        },
        {
            "mark": {
                "type": "point",
                "shape": "diamond",
                "filled": True,
                "size": 130,
                "opacity": 1,
                "color": PALETTE[0],
            },
            "transform": [{"filter": "datum.row == 'mean'"}],
            "encoding": {"x": x, "y": y, "tooltip": tip[1:]},
        },
    ]
    layers += [
        {
            "data": {"values": [{"row": "better"}]},
            "mark": {"type": "text", "text": words, "align": align, "dx": dx, "fontSize": 12},
            "encoding": {"x": {"datum": 0}, "y": y},
        }
        for words, align, dx in (
            (f"← {comparison['baseline']}", "right", -7),
            (f"{comparison['candidate']} →", "left", 7),
        )
    ]
    columns = {
        "seed": "seed",
        "difference": f"difference in {metric}",
        "low": "95 % from",
        "high": "95 % to",
    }
    return make_chart(title, columns, rows, layer=layers, height=92)


def metric_chart(title: str, rows: list[MetricPoint], experiments: list[str]) -> Chart:
    """A head's metrics: a dot a seed, the mean, its interval, and a tick at chance."""
    y = {
        "field": "experiment",
        "type": "nominal",
        "title": None,
        "sort": experiments,
        "axis": {"labelLimit": 150, "domain": False, "ticks": False},
    }

    def x(field: str) -> Spec:
        return {
            "field": field,
            "type": "quantitative",
            "title": "fraction right (0 to 1)",
            "scale": {"domain": [0, 1]},
            "axis": {"tickCount": 5, "format": ".1f"} | SPACED_LABELS,
        }

    tip = [
        {"field": f, "format": ".3f", "title": t}
        for f, t in (
            ("mean", "mean"),
            ("low", "95 % from"),
            ("high", "95 % to"),
            ("chance", "chance"),
        )
    ]
    name = {"field": "experiment", "title": "experiment"}
    switch = experiment_switch(experiments)
    switch["params"].append({"name": "metric", "value": "balanced accuracy"})
    switch["transform"].append({"filter": "datum.metric == metric"})
    columns = {k: k for k in ("experiment", "metric", "mean", "low", "high", "chance")}
    columns |= {"low": "95 % from", "high": "95 % to"}
    return make_chart(
        title,
        columns,
        rows,
        table=[r for r in rows if "mean" in r],
        description=f"{title}, each seed, mean, 95 % interval and chance",
        height=24 * len(experiments),
        layer=[
            {
                "mark": {"type": "tick", "thickness": 2, "size": 20, "color": GREY},
                "encoding": {"x": x("chance"), "y": y, "tooltip": [name, tip[3]]},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {
                    "x": x("low"),
                    "x2": {"field": "high"},
                    "y": y,
                    "color": colour_encoding(experiments),
                    "tooltip": [name, *tip],
                },
            },
            {
                "mark": {"type": "point", "size": 34, "strokeWidth": 1.4},
                "encoding": {
                    "x": x("value"),
                    "y": y,
                    "color": colour_encoding(experiments),
                    "tooltip": [name, {"field": "seed"}, {"field": "value", "format": ".3f"}],
                },
            },
            {
                "mark": {
                    "type": "point",
                    "shape": "diamond",
                    "filled": True,
                    "size": 110,
                    "opacity": 1,
                },
                "encoding": {
                    "x": x("mean"),
                    "y": y,
                    "color": colour_encoding(experiments),
                    "tooltip": [name, *tip],
                },
            },
        ],
        **switch,
    )


def curve_chart(title: str, rows: list[CurvePoint], experiments: list[str]) -> Chart:
    """Mean over seeds and least to greatest, by epoch; validation whole, training dashed."""
    dash = {
        "field": "part",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["validation", "training"], "range": [[1, 0], [5, 3]]},
        "legend": None,
    }
    unit = "nats" if title.endswith("loss") else "fraction right (0 to 1)"
    x = {
        "field": "epoch",
        "type": "quantitative",
        "title": "epoch",
        "axis": {"tickMinStep": 1, "grid": False},
    }
    y = {"type": "quantitative", "title": unit, "scale": {"zero": False}}
    return make_chart(
        title,
        {k: k for k in ("experiment", "part", "epoch", "mean")}
        | {"low": "least over seeds", "high": "greatest over seeds"},
        rows,
        description=f"{title} by epoch, mean and range over seeds",
        height=190,
        layer=[
            {
                "mark": {"type": "area", "opacity": 0.16},
                "encoding": {
                    "x": x,
                    "y": y | {"field": "low"},
                    "y2": {"field": "high"},
                    "color": colour_encoding(experiments),
                    "detail": {"field": "part"},
                },
            },
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {
                    "x": x,
                    "y": y | {"field": "mean"},
                    "color": colour_encoding(experiments),
                    "strokeDash": dash,
                    "tooltip": [
                        {"field": "experiment"},
                        {"field": "part"},
                        {"field": "epoch"},
                        *({"field": f, "format": ".3f"} for f in ("mean", "low", "high")),
                    ],
                },
            },
        ],
        **experiment_switch(experiments),
    )


def usage_chart(
    title: str, unit: str, rows: list[UsagePoint], table: list[UsageRow], experiments: list[str]
) -> Chart:
    """Samples over seconds, a line for each run."""
    return make_chart(
        title,
        {"run": "run", "samples": "samples", "mean": f"mean, {unit}", "greatest": "greatest"},
        rows,
        table=table,
        height=190,
        mark={"type": "line", "strokeWidth": 1.6},
        encoding={
            "x": {
                "field": "second",
                "type": "quantitative",
                "title": "seconds since the start",
                "axis": {"grid": False},
            },
            "y": {"field": "value", "type": "quantitative", "title": unit},
            "color": colour_encoding(experiments),
            "detail": {"field": "run"},
            "tooltip": [{"field": "run"}, {"field": "second"}, {"field": "value", "title": unit}],
        },
        **experiment_switch(experiments),
    )


def balance_chart(title: str, rows: list[ClassShare], classes: list[str]) -> Chart:
    """The share of each class in each part."""
    return make_chart(
        title,
        {k: k for k in ("class", "part", "items")} | {"share": "share of the part"},
        rows,
        description=f"{title}, share of each class in each part",
        height=len(classes) * (42 if len(classes) < 9 else 22),
        mark={"type": "bar", "height": {"band": 0.95}},
        encoding={
            "y": {
                "field": "class",
                "type": "nominal",
                "title": None,
                "sort": classes,
                "axis": {"labelLimit": 110, "labelFontSize": 12 if len(classes) < 9 else 10},
            },
            "yOffset": {"field": "part", "sort": list(SPLIT_COLOURS)},
            "x": {
                "field": "share",
                "type": "quantitative",
                "title": "share of the part's items",
                "axis": {"format": ".0%", "tickCount": 5},
            },
            "color": {
                "field": "part",
                "type": "nominal",
                "title": None,
                "scale": {"domain": list(SPLIT_COLOURS), "range": list(SPLIT_COLOURS.values())},
            },
            "tooltip": [
                {"field": "class"},
                {"field": "part"},
                {"field": "items"},
                {"field": "share", "format": ".1%"},
            ],
        },
    )


def confusion_chart() -> Chart:
    """Counts of true against predicted; the page fills in rows, order of classes and size."""

    def axis(field: str, **more: Any) -> Spec:
        place = {"labelLimit": 90, "domain": False, "ticks": False, **more}
        return {"field": field, "type": "nominal", "title": f"{field} class", "axis": place}

    share = {
        "field": "share",
        "type": "quantitative",
        "scale": {"domain": [0, 1], "range": [0, 0.8]},
        "legend": None,
    }
    return make_chart(
        "Confusion matrix",
        {
            "true": "true class",
            "predicted": "predicted class",
            "n": "test items",
            "share": "share of the true class",
        },
        [],
        encoding={"x": axis("predicted", orient="top", labelAngle=-50), "y": axis("true")},
        layer=[
            {
                "mark": {
                    "type": "rect",
                    "color": PALETTE[0],
                    "stroke": GREY,
                    "strokeOpacity": 0.35,
                },
                "encoding": {
                    "fillOpacity": share,
                    "tooltip": [
                        {"field": "true"},
                        {"field": "predicted"},
                        {"field": "n", "title": "test items"},
                        {"field": "share", "format": ".1%", "title": "of the true class"},
                    ],
                },
            },
            {
                "transform": [{"filter": "datum.n > 0"}],
                "mark": {"type": "text", "fontSize": 12},
                "encoding": {"text": {"field": "n"}},
            },
        ],
    )

"""Four words that the page rests on, each with an example from the page itself."""

from typing import NamedTuple

from facet.base.names import CHANCE
from facet.report.content import ComparisonCard
from facet.report.results import Results, mean


class Word(NamedTuple):
    """A word, what it means, and where this page shows it."""

    word: str
    meaning: str
    example: str  # empty where the page has none


def explain_words(results: Results, verdicts: list[ComparisonCard]) -> list[Word]:
    """Chance, interval, verdict and leak, for who meets them for the first time."""
    return [
        Word(
            "Chance",
            "What answering without looking gets. Always naming the commonest class is right as "
            "often as that class occurs, which can be most of the time. Balanced accuracy is a "
            "mean over the classes, so that this habit gets no more than 1 over their number. "
            "Compare each figure with its own chance.",
            _chance_example(results),
        ),
        Word(
            "Interval",
            "With other test items, and in a comparison with other seeds, each figure would have "
            "come out a little differently. The interval [low, high] says how much: of a hundred "
            "such intervals about 95 hold the true value.",
            _interval_example(verdicts),
        ),
        Word(
            "Verdict",
            "What the interval of a difference lets one say. All of it above 0: better. All below: "
            "worse. With 0 inside: no difference shown, which is not to say that there is none; "
            "the interval says how large it may still be. Another split: the two were tested on "
            "different items, so that a difference says nothing of the networks.",
            _verdict_example(verdicts),
        ),
        Word(
            "Leak",
            "A test item is to be new to the network. If nearly the same was trained on, like "
            "another photo of the same sitting, the network need only recognise it. Its figure is "
            "then too good; or too bad, if the near copies have another label.",
            _leak_example(verdicts),
        ),
    ]


def _chance_example(results: Results) -> str:
    """The head whose commonest class is the largest share of the test part."""
    rows = results.rows.dropna(subset=["accuracy", "chance"])
    if rows.empty:
        return ""
    gap = rows["chance"] - rows["balanced_chance"]
    first = rows.assign(gap=gap).nlargest(1, "gap").iloc[0]
    same = rows[(rows["experiment"] == first["experiment"]) & (rows["head"] == first["head"])]
    accuracy, chance, balanced, balanced_chance = (
        f"{mean(same[key]):.2f}" for pair in CHANCE.items() for key in pair
    )
    return (
        f"{first['experiment']} at {first['head']}: accuracy {accuracy}, and always naming the "
        f"commonest class would get {chance}. Its balanced accuracy is {balanced}, where chance is "
        f"{balanced_chance}."
    )


def _interval_example(verdicts: list[ComparisonCard]) -> str:
    found = next((v for v in verdicts if v.found and not v.leak), None)
    return f"{found.name}, at {found.head}: {found.found}." if found else ""


def _verdict_example(verdicts: list[ComparisonCard]) -> str:
    names: dict[str, str] = {}
    for v in verdicts:
        if not v.leak:
            names.setdefault(v.verdict, v.name)
    return "; ".join(f"{words}: {name}" for words, name in names.items()) + "." if names else ""


def _leak_example(verdicts: list[ComparisonCard]) -> str:
    found = next((v for v in verdicts if v.leak), None)
    return f"{found.name}. {found.sentence} {found.why}".strip() if found else ""

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
            "What answering without looking gets. Who always names the commonest class is right as "
            "often as that class occurs, which may be most of the time; so classes are averaged "
            "(balanced accuracy), where the same habit gets 1 over the number of classes. A figure "
            "is worth what it is above its chance.",
            _chance_example(results),
        ),
        Word(
            "Interval",
            "With other test items or another seed each figure would have come out a little "
            "differently. The interval [low, high] says how much: of a hundred such intervals "
            "about 95 hold the true value.",
            _interval_example(verdicts),
        ),
        Word(
            "Verdict",
            "What the interval of a difference lets one say. All of it above 0: better. All below: "
            "worse. With 0 inside: no difference shown, which is not to say that there is none; "
            "the interval says how large it may still be.",
            _verdict_example(verdicts),
        ),
        Word(
            "Leak",
            "A test item is to be new to the network. Where something nearly the same was trained "
            "on, as another photo of one sitting is, the test measures recognition and not what "
            "was meant: the figure is too good, or too bad if the near copies have other labels.",
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
    return f"{found.name}: {found.sentence} {found.why}".strip() if found else ""

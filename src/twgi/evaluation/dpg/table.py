"""DPG's `scores.json` as lines for people, with all that the score must not be read without."""

from collections.abc import Iterator, Mapping
from typing import Any


def table(scores: Mapping[str, Any]) -> str:
    """Categories and overall, as we count and, where asked for, as published; then remarks."""
    judge, official = scores["judged"]["judge"], scores["official"] or {}
    theirs = {**official.get("l1", {}), "overall": official.get("overall")}
    ours = {**{name: share["score"] for name, share in scores["l1"].items()}, "overall": scores["overall"]}
    lines = [
        f"DPG: {scores['thoughts']} pictures of {scores['prompts']} prompts, judge {judge['name']} {judge['version']}",
        f"{'':12} {'corrected':>10}" + (f" {'official':>10}" if official else ""),
    ]
    for name, value in ours.items():
        lines.append(f"{name:12} {_number(value):>10}" + (f" {_number(theirs.get(name)):>10}" if official else ""))
    return "\n".join([*lines, *_remarks(scores), *_published(official), *_faults(scores)])


def _remarks(scores: Mapping[str, Any]) -> Iterator[str]:
    rules = ", ".join(f"{rule} {_number(value)}" for rule, value in scores["by_gating"].items())
    yield f"gating {scores['gating']}; overall by each rule: {rules}"
    if scores["first_picture"] and scores["first_is_draft"]:
        yield f"first pictures: overall {_number(scores['first_picture']['overall'])}"
    answers, (low, high) = scores["answers"], map(_number, scores["bounds"])
    if answers["invalid"]:
        total = answers["yes"] + answers["no"] + answers["invalid"]
        yield f"INVALID answers: {answers['invalid']} of {total}; the score lies between {low} and {high}"
    soft = scores["soft"]
    if soft["am"] is not None:
        yield f"Soft-TIFA AM {_number(soft['am'])}, GM {_number(soft['gm'])}; {soft['unknown']} answers without"
    elif scores["schema"] == "geneval2":
        yield "Soft-TIFA: none: this judge gives no probabilities"


def _published(official: Mapping[str, Any]) -> Iterator[str]:
    if "problem" in official:
        yield f"official: none: {official['problem']}"
    elif official:
        yield f"official: of {official['files']} files; {len(official['vanished'])} more vanished"


def _faults(scores: Mapping[str, Any]) -> Iterator[str]:
    if wrong := scores["wrong"]:
        yield f"{len(wrong)} thoughts without a readable picture count as wrong, as {wrong[0]}"
    if scores["nothing_known"]:
        yield f"{len(scores['nothing_known'])} pictures without one known answer are in no row and no mean"
    for key, words in (("question_faults", "faults in the question file"), ("unknown_files", "files of no prompt")):
        if scores[key]:
            yield f"{len(scores[key])} {words}, as {scores[key][0]}"
    if scores["partial"]:
        yield f"PARTIAL {scores['partial']}: not comparable; missing are {', '.join(scores['missing'][:3])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

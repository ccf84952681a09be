"""DPG's `scores.json` as lines for people, with all that the score must not be read without."""

from collections.abc import Mapping
from typing import Any


def shown(scores: Mapping[str, Any], *, json: bool = False) -> str:
    """The table, or what `scores.json` holds."""
    if not json:
        return table(scores)
    from json import dumps

    return dumps(scores, ensure_ascii=False, indent=2)


def table(scores: Mapping[str, Any]) -> str:
    """`scores.json` as lines for people."""
    judge = scores["judged"]["judge"]
    lines = [
        f"DPG: {scores['thoughts']} pictures of {scores['prompts']} prompts, judge {judge['name']} {judge['version']}"
    ]
    official = scores["official"]
    lines.append(f"{'':12} {'corrected':>10}" + (f" {'official':>10}" if official else ""))
    for name, ours, theirs in _lines(scores, official or {}):
        lines.append(f"{name:12} {_number(ours):>10}" + (f" {_number(theirs):>10}" if official else ""))
    lines += _remarks(scores)
    return "\n".join(lines)


def _lines(scores: Mapping[str, Any], official: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    theirs = official.get("l1", {})
    broad = [(name, share["score"], theirs.get(name)) for name, share in scores["l1"].items()]
    return [*broad, ("overall", scores["overall"], official.get("overall"))]


def _remarks(scores: Mapping[str, Any]) -> list[str]:
    """What a score must not be read without."""
    rules = ", ".join(f"{rule} {_number(value)}" for rule, value in scores["by_gating"].items())
    first = scores["first_picture"] if _mode(scores) not in ("subgoal", "direct") else None  # there it is no draft
    lines = [f"gating {scores['gating']}; overall by each rule: {rules}"]
    lines += [f"first pictures: overall {_number(first['overall'])}"] if first else []
    return [*lines, *_invalid(scores), *_soft(scores), *_published(scores["official"] or {}), *_faults(scores)]


def _mode(scores: Mapping[str, Any]) -> str | None:
    mode: str | None = scores["made"].get("settings", {}).get("mode")
    return mode


def _invalid(scores: Mapping[str, Any]) -> list[str]:
    answers, (low, high) = scores["answers"], map(_number, scores["bounds"])
    if not answers["invalid"]:
        return []
    total = answers["yes"] + answers["no"] + answers["invalid"]
    return [f"INVALID answers: {answers['invalid']} of {total}; the score lies between {low} and {high}"]


def _soft(scores: Mapping[str, Any]) -> list[str]:
    soft = scores["soft"]
    if soft["am"] is not None:
        return [f"Soft-TIFA AM {_number(soft['am'])}, GM {_number(soft['gm'])}; {soft['unknown']} answers without"]
    return ["Soft-TIFA: none: this judge gives no probabilities"] if scores["schema"] == "geneval2" else []


def _published(official: Mapping[str, Any]) -> list[str]:
    if not official:
        return []
    of = f"of {official.get('files')} files; {len(official.get('vanished', ()))} more vanished"
    port = official.get("single_key_port")
    told = [f"official: {'none: ' + official['problem'] if 'problem' in official else of}"]
    return (
        told
        if port is None
        else [*told, f"a public port's gating, which fails questions of two parents: {_number(port)}"]
    )


def _faults(scores: Mapping[str, Any]) -> list[str]:
    wrong = scores["wrong"]
    lines = [f"{len(wrong)} thoughts without a readable picture count as wrong, as {wrong[0]}"] if wrong else []
    if scores["nothing_known"]:
        lines.append(f"{len(scores['nothing_known'])} pictures without one known answer are in no row and no mean")
    for key, words in (("question_faults", "faults in the question file"), ("unknown_files", "files of no prompt")):
        if scores[key]:
            lines.append(f"{len(scores[key])} {words}, as {scores[key][0]}")
    if scores["partial"]:
        lines.append(f"PARTIAL {scores['partial']}: not comparable; missing are {', '.join(scores['missing'][:3])}")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

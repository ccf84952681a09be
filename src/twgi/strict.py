"""JSON as it is read here: strict, so that whatever was read can be written, compared and printed again."""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from twgi.errors import DataError

MAX_DEPTH = 100  # of lists and objects in each other
Object = dict[str, Any]


def decoded(content: bytes) -> str:
    """As UTF-8, with or without a byte order mark; raises `DataError` that says what it may be instead."""
    if not (kind := json.detect_encoding(content)).startswith("utf-8"):
        raise DataError(f"{kind.upper()[:6]}, not UTF-8: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start} (Latin-1 or Windows-1252?): save it as UTF-8") from None


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text. Raises `DataError`, also for what could not be written again: NaN, numbers without
    bound, a key that stands twice, nesting deeper than `MAX_DEPTH`."""
    text = decoded(content) if isinstance(content, bytes) else content
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_double)
    except json.JSONDecodeError as error:
        raise DataError(f"broken JSON at column {error.colno}: {error.msg}") from None
    except ValueError as error:
        what = "a number of too many digits" if "int_max_str_digits" in str(error) else error
        raise DataError(f"broken JSON: {what}") from None
    except RecursionError:
        raise DataError("broken JSON: nested too deep") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        level = [value]
        for _ in range(MAX_DEPTH):
            parts = (one.values() if isinstance(one, dict) else one for one in level)
            level = [part for inner in parts for part in inner if isinstance(part, dict | list)]
        if level:
            raise DataError(f"broken JSON: nested deeper than {MAX_DEPTH}")
    return value


def parse_object(content: bytes | str) -> Object:
    """The JSON object of a text; raises `DataError` for anything else."""
    value = parse_json(content)
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, got {type(value).__name__}")
    return value


def checked(value: object, what: str, wanted: Mapping[str, Any]) -> Object:
    """A JSON object that has exactly the wanted keys, each of its type or union of types; raises `DataError`."""
    if not isinstance(value, dict):
        raise DataError(f"{what} must be a JSON object, got {short(value)}")
    if wrong := sorted(wanted.keys() ^ value.keys(), key=str):
        raise DataError(f"{what} {'lacks' if wrong[0] in wanted else 'has the unknown key'} {wrong[0]!r:.60}")
    for key, kind in wanted.items():
        is_truth = isinstance(value[key], bool) and kind not in (bool, object)
        if is_truth or not isinstance(value[key], kind):
            name = getattr(kind, "__name__", kind)
            raise DataError(f"{what}: {key!r} must be of type {name}, got {short(value[key])}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if abs(value := float(text)) == float("inf"):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _no_double(pairs: Iterable[tuple[str, Any]]) -> Object:
    kept: Object = {}
    for key, value in pairs:
        if key in kept:
            raise ValueError(f"the key {key[:60]!r} stands twice")
        kept[key] = value
    return kept


def short(value: Any) -> str:
    """A value as JSON in at most 60 signs; it is cut before it is written, however large or deep it is."""
    text = json.dumps(_cut(value, 3), ensure_ascii=False, default=lambda other: type(other).__name__)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _cut(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        return {str(_cut(k, 0)): _cut(v, depth - 1) for k, v in islice(value.items(), 20)} if depth else "..."
    if isinstance(value, list | tuple):
        return [_cut(entry, depth - 1) for entry in value[:20]] if depth else "..."
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of many digits"
    return value[:61] if isinstance(value, str) else value

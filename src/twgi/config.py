"""Recipes: defaults < YAML file < key=value on the command line. Unknown keys and wrong types are errors."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from twgi.errors import ConfigError, DataError
from twgi.files import read_text, short

T = TypeVar("T")
MAX_YAML = 64 * 2**10  # bytes


class _Loader(yaml.SafeLoader):
    """YAML without what surprises: no aliases, no tags, no key twice; 010, 1:30, 0x1F and dates are no numbers."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as the library has it

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        for mark, what in (("anchor", "anchors and aliases"), ("tag", "tags")):
            if getattr(event, mark, None) is not None:
                raise yaml.MarkedYAMLError(problem=f"{what} are not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[str]()
        for key, _ in node.value:
            plain = isinstance(key, yaml.ScalarNode)
            if not plain or key.value in seen:
                problem = f"the key {short(key.value)} stands twice" if plain else "a key must be a word"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if any("\ud800" <= sign <= "\udfff" for sign in node.value):
            raise yaml.MarkedYAMLError(problem="half a surrogate pair is no text", problem_mark=node.start_mark)
        return super().construct_scalar(node)


_NUMBER = list("-+.0123456789")
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"(?i:true|false|yes|no|on|off)", list("yYnNtTfFoO")),
    ("int", r"[-+]?(0|[1-9][0-9]{0,18})", _NUMBER),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", _NUMBER),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"({_pattern})\Z"), _first)


def load_yaml(content: str) -> Any:
    """The value of a YAML text; raises `ConfigError` with the line for what is none, or what `_Loader` refuses."""
    try:
        return yaml.load(content, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"not valid YAML: {line}{error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"not valid YAML: {reason}") from None


def load_recipe(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """A dataclass `cls` from a YAML file and overrides such as `lr=1e-3` or `model.num_layers=4`."""
    values = read_yaml(Path(path)) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a recipe must be a mapping of keys to values")
    for item in overrides:
        key, sign, text = item.partition("=")
        if not sign or not key:
            raise ConfigError(f"override {item!r} is not of the form key=value")
        *parents, last = key.split(".")
        group = values
        for parent in parents:
            group = group.setdefault(parent, {})
            if not isinstance(group, dict):
                raise ConfigError(f"override {item!r}: {parent} is not a group of keys")
        try:
            group[last] = load_yaml(text)
        except ConfigError as error:
            raise ConfigError(f"override {item!r}: {error}") from None
    return build(cls, values, where=str(path))


def read_yaml(path: Path) -> Any:
    """The value of a small YAML file; raises `ConfigError` with the path."""
    try:
        return load_yaml(read_text(path, most=MAX_YAML))
    except DataError as error:
        raise ConfigError(f"{error}; give the path of a YAML file") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """`cls(**values)` for a dataclass, nested dataclasses included, with every key and type checked."""
    hints = get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {short(key)}; known are {', '.join(known)}")
    needed = (f.name for f in known.values() if f.default is f.default_factory is dataclasses.MISSING)
    if lacking := [name for name in needed if name not in values]:
        raise ConfigError(f"{where}: lacks the key {lacking[0]}")
    return cls(**{key: _convert(value, hints[key], f"{where}: {key}") for key, value in values.items()})


KINDS: Mapping[Any, str] = {tuple: "a list", dict: "a group of keys", int: "a whole number", float: "a number",
                            str: "a text", bool: "true or false"}  # fmt: skip


def check_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raise `ConfigError` for a value that is none of these."""
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _convert(value: Any, kind: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return build(kind, value, where)  # type: ignore[arg-type]
    plain = dict if dataclasses.is_dataclass(kind) else get_origin(kind) or kind
    if plain is tuple and isinstance(value, list):
        return tuple(_convert(v, get_args(kind)[0], where) for v in value)
    if plain is dict and isinstance(value, dict):
        of_key, of_value = get_args(kind)
        return {_convert(k, of_key, where): _convert(v, of_value, f"{where}.{k}") for k, v in value.items()}
    if plain is float and type(value) is int:
        value = float(value)
    if plain in KINDS and (type(value) is not plain or (isinstance(value, float) and not math.isfinite(value))):
        raise ConfigError(f"{where} must be {KINDS[plain]}, got {short(value)}")
    return value

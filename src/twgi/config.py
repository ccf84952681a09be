"""Recipes: defaults < YAML file < key=value on the command line. Unknown keys and wrong types are errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from twgi.errors import ConfigError

T = TypeVar("T")


def load_recipe(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """A dataclass `cls` from a YAML file and overrides such as `lr=1e-3` or `model.num_layers=4`."""
    try:
        values = yaml.safe_load(Path(path).read_text()) or {}
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read ({error.strerror}); give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {path} must be a mapping of keys to values")
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
        group[last] = yaml.safe_load(text)
    return build(cls, values, where=str(path))


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """`cls(**values)` for a dataclass, nested dataclasses included, with every key and type checked."""
    hints = get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
    return cls(**{key: _convert(value, hints[key], f"{where}: {key}") for key, value in values.items()})


def check_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raise `ConfigError` for a value that is none of these."""
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _convert(value: Any, kind: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return build(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_convert(v, get_args(kind)[0], where) for v in value)
    if get_origin(kind) is dict and isinstance(value, dict):
        return {k: _convert(v, get_args(kind)[1], where) for k, v in value.items()}
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML reads 1e-3 as text
            return float(value)
        except ValueError:
            pass
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise ConfigError(f"{where} must be {kind.__name__}, got {value!r}")
    return value

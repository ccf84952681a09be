"""Short names: the bundled model, and repositories of the hub that are in its cache, or cannot be had."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.tiny import save_tiny

from twgi.checkpoint.load import load
from twgi.checkpoint.presets import FILES, PRESETS, resolve
from twgi.errors import CheckpointError

hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")


def cached(cache: Path, repository: str) -> Path:
    """The repository in the hub's cache, as a download leaves it."""
    root = cache / f"models--{repository.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text(revision)
    return save_tiny(root / "snapshots" / revision)


def test_a_preset_of_the_hub_is_taken_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = PRESETS["twgi-subgoal"].repository
    assert repository is not None
    folder = cached(tmp_path, repository)
    download = hub.snapshot_download
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **kw: download(*args, cache_dir=tmp_path, **kw))
    assert resolve("twgi-subgoal") == ("twgi-subgoal", folder, PRESETS["twgi-subgoal"])
    assert load("twgi-subgoal").name == "twgi-subgoal"


def test_what_is_not_in_the_cache_says_what_to_do_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download = hub.snapshot_download
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **kw: download(*args, cache_dir=tmp_path, **kw))
    with pytest.raises(CheckpointError, match=r"not in the hub's cache.*hf download GAIR/Anole-7b.*--model"):
        load("anole")


def response() -> Any:
    """As much of an answer of the hub as its errors look at."""
    return SimpleNamespace(headers={}, request=SimpleNamespace(headers={}), status_code=403)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("GatedRepoError", "is gated: accept the licence"),
        ("RepositoryNotFoundError", "the hub shows no GAIR/twgi-critique-anole-7b"),
        ("OfflineModeIsEnabled", "hf download GAIR/twgi-critique-anole-7b"),
    ],
)
def test_what_the_hub_refuses_says_what_to_do(monkeypatch: pytest.MonkeyPatch, kind: str, said: str) -> None:
    def refusing(*_: object, **__: object) -> None:
        error = getattr(hub.errors, kind)
        raise error("no") if kind == "OfflineModeIsEnabled" else error("no", response=response())

    monkeypatch.setattr(hub, "snapshot_download", refusing)
    with pytest.raises(CheckpointError, match=said) as caught:
        resolve("twgi-critique")
    assert "\n" not in str(caught.value)


def test_only_data_is_downloaded() -> None:
    assert FILES == ["*.json", "*.safetensors"]


def test_a_folder_of_a_presets_name_is_the_folder_when_written_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path / "icons")
    monkeypatch.chdir(tmp_path)
    assert load("./icons").tokenizer.vocab != load("icons").tokenizer.vocab

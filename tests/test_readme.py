"""What the README shows, works: its blocks are run in order in one empty folder, as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
WEIGHTS = REPOSITORY / "src" / "twgi" / "icons" / "weights"
BIN = Path(sys.executable).parent
# `make` is not run again inside the tests: it must only know the target.
MAKE = f'make() {{ command make --dry-run --directory "{REPOSITORY}" "$@" > /dev/null; }}'


class Block(NamedTuple):
    """One fenced block: its language, its text and the line where it starts."""

    language: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    fence = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in fence.finditer(text)]


BLOCKS = blocks(README)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has nothing but the environment the tests run in."""
    if not any(WEIGHTS.glob("*.safetensors")):
        pytest.skip("needs the bundled model in icons/weights")
    place = tmp_path_factory.mktemp("reader")
    (place / ".venv").symlink_to(BIN.parent)
    return place


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    shell = ["bash", "-euo", "pipefail", "-c", f"{MAKE}\n{block.text}"]
    command = shell if block.language == "bash" else [sys.executable, "-c", block.text]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_readme_has_commands_and_python() -> None:
    assert {block.language for block in BLOCKS} >= {"bash", "python"}


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language in ("bash", "python")],
    ids=lambda block: f"{block.language}-line-{block.line}",
)
def test_every_block_of_the_readme_runs(block: Block, folder: Path) -> None:
    done = run(block, folder)
    assert done.returncode == 0, f"README line {block.line}:\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "console"], ids=lambda b: f"line-{b.line}")
def test_commands_too_long_to_run_here_use_options_that_exist(block: Block) -> None:
    for command in re.findall(r"^\$ twgi (.+)$", block.text, re.MULTILINE):
        verbs = re.match(r"([a-z]+ ?)+", command)
        assert verbs is not None
        words = [*verbs[0].split()[:2], "--help"]
        asked = subprocess.run([sys.executable, "-m", "twgi", *words], capture_output=True, text=True, timeout=60)
        missing = [option for option in re.findall(r"--[a-z-]+", command) if option not in asked.stdout]
        assert missing == [], f"README line {block.line}: twgi {command}"


def test_every_path_the_readme_names_exists() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)|`((?:src|docs|recipes|tests)/[\w./-]+)`", README)
    missing = [path for pair in named for path in pair if path and not (REPOSITORY / path).exists()]
    assert missing == []

"""What the pages show, works: blocks are run in order in one empty folder, as a reader would; options are there."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from twgi.cli import execute

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
PAGES = [page for page in sorted((REPOSITORY / "docs").glob("*.md")) if page.name != "log.md"]
WEIGHTS = REPOSITORY / "src" / "twgi" / "icons" / "weights"
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
    return tmp_path_factory.mktemp("reader")


def run(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader would, but `twgi` in this process: ten starts of an interpreter with torch say no more than one."""
    monkeypatch.chdir(folder)
    if block.language == "python":
        exec(compile(block.text, f"line {block.line}", "exec"), {"__name__": "__main__"})
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("twgi "):
            assert execute(shlex.split(line, comments=True)[1:]) == 0, line
        else:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", f"{MAKE}\n{line}"], capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_readme_has_commands_and_python() -> None:
    assert {block.language for block in BLOCKS} >= {"bash", "python"}


def test_every_block_of_the_readme_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as later ones use what earlier ones made."""
    for block in BLOCKS:
        if block.language in ("bash", "python"):
            run(block, folder, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_bash_on_a_page_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder / page.stem
    place.mkdir()
    for block in blocks(page.read_text()):
        if block.language == "bash":
            run(block, place, monkeypatch)


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_command_on_a_page_uses_options_that_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fence in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        for command in re.findall(r"^(?:\$ )?twgi (.+(?:\\\n.+)*)$", fence, re.MULTILINE):
            verbs = [word for word in re.split(r"\s", command)[:2] if re.fullmatch(r"[a-z]+", word)]
            help_text = helped(verbs, capsys)
            missing = [o for o in re.findall(r"(?<=\s)--[a-z0-9-]+", command.split(" #")[0]) if o not in help_text]
            assert missing == [], f"{page.name}: twgi {command}"


def helped(verbs: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The help of a command; the second word may be an argument of it already."""
    capsys.readouterr()
    if execute([*verbs, "--help"]) != 0:
        assert execute([*verbs[:1], "--help"]) == 0, verbs
    return capsys.readouterr().out


def test_every_path_the_readme_names_exists() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)|`((?:src|docs|recipes|tests)/[\w./-]+)`", README)
    missing = [path for pair in named for path in pair if path and not (REPOSITORY / path).exists()]
    assert missing == []

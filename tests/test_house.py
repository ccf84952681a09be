"""The house: names, errors, package contents and the rules that hold for every file."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import twgi

KINDS = ["ConfigError", "PromptError", "ImageError", "CheckpointError", "RunError", "TraceError", "DataError"]


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def code_files(repository: Path) -> list[Path]:
    folders = [repository / name for name in ("src", "tests", "benchmarks", "examples", "scripts")]
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize("name", twgi.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(twgi, name) is getattr(twgi, name)
    assert name in dir(twgi)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'thnk'"):
        _ = twgi.thnk


@pytest.mark.parametrize("kind", KINDS)
def test_every_user_error_is_a_twgi_error_of_one_line(kind: str) -> None:
    error = getattr(twgi, kind)("prompts.jsonl, line 3:\n  not JSON;\tmend the line")
    assert isinstance(error, twgi.TwgiError)
    assert str(error) == "prompts.jsonl, line 3: not JSON; mend the line"
    assert error.exit_status == 2


def test_the_version_is_told_once(project: dict[str, Any], repository: Path) -> None:
    assert project["project"]["version"] == twgi.__version__
    assert f"version: {twgi.__version__}\n" in (repository / "CITATION.cff").read_text()
    assert f"## [{twgi.__version__}]" in (repository / "CHANGELOG.md").read_text()


def test_the_base_install_is_light(project: dict[str, Any]) -> None:
    base = {re.split(r"[<>=\[]", line)[0] for line in project["project"]["dependencies"]}
    assert base == {
        "filelock",
        "jinja2",
        "numpy",
        "pillow",
        "pyyaml",
        "rich",
        "safetensors",
        "tokenizers",
        "torch",
        "typer",
    }


def test_no_install_asks_for_torchvision(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    assert not [line for lines in extras.values() for line in lines if "torchvision" in line]


def test_no_file_is_longer_than_400_lines(repository: Path) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in code_files(repository)}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_file_unpickles_or_imports_torchvision(repository: Path) -> None:
    banned = re.compile(r"^\s*(import|from) (pickle|torchvision)|weights_only=False|trust_remote_code=True", re.M)
    ours = Path(__file__)
    assert [path for path in code_files(repository) if path != ours and banned.search(path.read_text())] == []


def test_ci_is_executable_bash_without_a_syntax_error(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_make_builds_a_missing_environment_first(repository: Path) -> None:
    for target in ("venv", "demo", "test", "check"):
        command = ["make", "--dry-run", "--always-make", target]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
        assert "-m venv" in done.stdout, target


def package_path(repository: Path, name: str) -> Path:
    inside = repository / "src" / "twgi" / name
    return inside if inside.exists() else repository / name


def test_every_place_that_the_documents_name_is_there(repository: Path) -> None:
    """The table of CONTRIBUTING, the map of the README, the walks of the design page."""
    contributing = (repository / "CONTRIBUTING.md").read_text().split("| to change | touch |")[1].split("## Rules")[0]
    readme = (repository / "README.md").read_text().split("## Where things are")[1].split("## Limits")[0]
    walks = "".join(walks_of(repository))
    named = re.findall(r"`((?:src/twgi/)?[a-z_./]+(?:\.py|\.md|/))`", contributing + readme + walks)
    assert len(named) > 60
    assert [name for name in named if not package_path(repository, name).exists()] == []


def test_every_promise_of_reliability_has_its_test(repository: Path) -> None:
    page = (repository / "docs" / "reliability.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    assert len(named) > 40
    missing = [
        f"{path}::{name}" for path, name in named if f"def {name}(" not in (repository / "tests" / path).read_text()
    ]
    assert missing == []
    for row in re.findall(r"^\| (?!promise|---)(.+) \|$", page, re.M):
        assert "::" in row or "no test" in row, row


def walks_of(repository: Path) -> list[str]:
    page = (repository / "docs" / "design.md").read_text()
    return page.split("## Two walks")[1].split("## Decisions")[0].split("### ")[1:]


def test_a_walk_goes_through_each_file_once(repository: Path) -> None:
    walks = walks_of(repository)
    assert len(walks) == 2
    for walk in walks:
        files = re.findall(r"`([a-z_/]+\.py)`", walk)
        assert sorted(files) == sorted(set(files))


def test_the_map_of_the_design_page_is_the_package(repository: Path) -> None:
    """Every module and folder of the package stands on the map, by its name."""
    layout = (repository / "docs" / "design.md").read_text().split("## Layout")[1].split("```")[1]
    package = repository / "src" / "twgi"
    names = {path.stem for path in package.rglob("*.py")} - {"__init__"}
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", layout)) == []


def test_no_class_name_stands_twice_in_the_package(repository: Path) -> None:
    counts = Counter(
        name
        for path in sorted((repository / "src").rglob("*.py"))
        for name in re.findall(r"^class (\w+)", path.read_text(), re.M)
        if not name.startswith("_")
    )
    assert {name: count for name, count in counts.items() if count > 1} == {}


def test_the_wheel_carries_the_icons_the_weights_and_the_type_marker(repository: Path, tmp_path: Path) -> None:
    if not any((repository / "src/twgi/icons/weights").glob("*.safetensors")):
        pytest.skip("needs the bundled model in icons/weights")
    build = "import setuptools.build_meta as m, sys; print(m.build_wheel(sys.argv[1]))"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True)
    copy = tmp_path / "copy"
    for name in filter(None, tracked.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((repository / name).read_bytes())
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked_package = {name.removeprefix("src/") for name in tracked.stdout.split("\0") if name.startswith("src/twgi/")}
    assert tracked_package <= names

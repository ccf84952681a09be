"""The import contracts hold, and they are able to fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def house(repository: Path, tmp_path: Path) -> Path:
    """A copy of the package and its contracts, to be broken at will."""
    shutil.copy(repository / "pyproject.toml", tmp_path)
    leave_out = shutil.ignore_patterns("__pycache__", "weights", "*.egg-info")
    shutil.copytree(repository / "src" / "twgi", tmp_path / "twgi", ignore=leave_out)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts on the package in ``folder``, not on the installed one."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [str(LINT), "--no-cache"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def add_line(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}\n{line}\n")


def test_the_contracts_hold(house: Path) -> None:
    done = lint(house)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


UPWARD = [
    ("twgi.errors", "twgi.vocab"),
    ("twgi.vocab", "twgi.tokenizer.text"),
    ("twgi.client", "twgi.trace"),
    ("twgi.data.factory.build", "twgi.training.objective"),
    ("twgi.model.config", "twgi.decoding.engine"),
    ("twgi.model.transformer", "twgi.decoding.cache"),
    ("twgi.decoding.engine", "twgi.tokenizer.multimodal"),
    ("twgi.thinking.modes", "twgi.icons.world"),
    ("twgi.training.icons.lm", "twgi.cli"),
]
HEAVY = [
    ("twgi.trace", "torch"),
    ("twgi.decoding.grammar", "torch"),
    ("twgi.decoding.scheduler", "twgi.decoding.cache"),  # torch by way of another module
    ("twgi.icons.checker", "twgi.tokenizer.image"),
]


def path_of(house: Path, module: str) -> Path:
    return house.joinpath(*module.split(".")).with_suffix(".py")


def test_every_upward_or_sideways_import_breaks_the_layers(house: Path) -> None:
    for importer, imported in UPWARD:
        add_line(path_of(house, importer), f"import {imported}")
    done = lint(house)
    assert done.returncode != 0
    assert "Imports go downward only BROKEN" in done.stdout
    assert [pair for pair in UPWARD if " -> ".join(pair) not in done.stdout] == []


def test_a_module_outside_the_layers_is_refused(house: Path) -> None:
    (house / "twgi" / "stray.py").write_text('"""No layer of its own."""\n')
    done = lint(house)
    assert done.returncode != 0
    assert "stray" in done.stdout


def test_torch_is_refused_where_it_does_not_belong_directly_or_not(house: Path) -> None:
    for importer, imported in HEAVY:
        add_line(path_of(house, importer), f"def lazily() -> None:\n    import {imported}")
    done = lint(house)
    assert done.returncode != 0
    assert "never imports torch BROKEN" in done.stdout
    assert "Imports go downward only KEPT" in done.stdout
    assert [pair for pair in HEAVY if " -> ".join(pair) not in done.stdout] == []


@pytest.mark.parametrize(
    "statement",
    [
        "import twgi",
        "import twgi.trace, twgi.render, twgi.vocab",
        "import twgi.decoding.scheduler, twgi.decoding.guidance",
        "import twgi.icons.world, twgi.icons.checker",
        "import sys; sys.argv = ['twgi', '--help']\ntry: import twgi.__main__ as m; m.main()\nexcept SystemExit: pass",
    ],
    ids=["import twgi", "values and page", "scheduler and guidance", "icons", "twgi --help"],
)
def test_torch_is_not_loaded_before_it_is_needed(statement: str) -> None:
    heavy = "import sys; print('heavy:', sorted({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    command = [sys.executable, "-c", f"{statement}\n{heavy}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "heavy: []"

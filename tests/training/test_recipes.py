"""Laws of recipes."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.icons.tiny import VQ
from tests.training.runs import write_recipe

from twgi.cli import execute
from twgi.config import load_recipe, load_yaml
from twgi.errors import ConfigError, TwgiError
from twgi.training.batches import Batching
from twgi.training.icons.lm import LMRecipe, Mixture
from twgi.training.icons.vq import VQRecipe
from twgi.training.lora import Lora
from twgi.training.objective import LossWeights, as_published
from twgi.training.recipe import Optimization, Recipe, Watching

RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 1
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    lr: float = 0.1
    inner: Inner = field(default_factory=Inner)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "name: a\nlr: 1e-3\ninner:\n  size: 2\n  shape: [1, 2]\n")
    assert load_recipe(Outer, path) == Outer(name="a", lr=1e-3, inner=Inner(size=2, shape=(1, 2)))
    assert load_recipe(Outer, path, ["inner.size=5", "lr=2"]) == Outer(
        name="a", lr=2.0, inner=Inner(size=5, shape=(1, 2))
    )


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("name: a\nspeed: 3\n", [], 'unknown key "speed"'),
        ("name: a\ninner:\n  sise: 3\n", [], 'unknown key "sise"'),
        ("name: 3\n", [], "name must be a text, got 3"),
        ("name: a\n", ["lr"], "not of the form key=value"),
        ("- a\n", [], "must be a mapping"),
        ("name: [\n", [], "not valid YAML"),
        ("name: a\nname: b\n", [], 'line 2: the key "name" stands twice'),
        ("name: a\ninner: {size: 010}\n", [], 'inner: size must be a whole number, got "010"'),
        ("name: a\ninner: {shape: word}\n", [], 'shape must be a list, got "word"'),
        ("name: a\nlr: .nan\n", [], "lr must be a number"),
        ("name: a\n", ["lr=nan"], "lr must be a number"),
        ("name: a\n", ["lr=1e999"], "lr must be a number"),
        ("name: a\n", ["lr=[1"], "not valid YAML"),
        ("name: a\nlr: " + "9" * 5000, [], "lr must be a number"),
        ("name: &a b\n", [], "line 1: anchors and aliases are not read"),
        ("name: *a\n", [], "anchors and aliases are not read"),
        ("name: !!python/object/apply:os.abort []\n", [], "tags are not read"),
        ("name: " + "[" * 3000, [], "nested too deep"),
        ('name: "\\ud800"\n', [], "half a surrogate pair"),
        ("# " + "x" * 2**16, [], "larger than 64 KiB"),
        ("? [1]\n: 2\n", [], "a key must be a word"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_in_one_line(
    tmp_path: Path, text: str, overrides: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        load_recipe(Outer, write(tmp_path, text), overrides)
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(Outer, tmp_path / "none.yaml")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_recipe_that_is_not_utf_8_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes("name: café\n".encode(encoding))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_recipe(Outer, path)


def test_aliases_are_refused_before_they_grow(tmp_path: Path) -> None:
    lines = ["a0: &a0 [l, l, l, l, l, l, l, l, l, l]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="line 1: anchors and aliases are not read"):
        load_recipe(Outer, write(tmp_path, "\n".join(lines)))


@given(st.text(alphabet="ab:-[]{}&*!? \n'\"0.~<", max_size=60) | st.text(max_size=40))
def test_whatever_the_text_only_user_errors_come_out(text: str) -> None:
    with suppress(ConfigError):
        load_yaml(text)


OWN = {"icons_vq.yaml": VQRecipe, "icons_lm.yaml": LMRecipe}


@pytest.mark.parametrize(
    "path", sorted(p for p in RECIPES.glob("*.yaml") if not p.name.startswith("data_")), ids=lambda path: path.name
)
def test_every_shipped_recipe_parses_and_says_what_it_costs(path: Path) -> None:
    recipe: Any = load_recipe(OWN.get(path.name, Recipe), path)
    assert recipe.out.startswith("runs/")
    head = path.read_text().split("\nout:")[0]
    assert "cost" in head.lower()
    if isinstance(recipe, Recipe):
        gpus = 8 if "torchrun" in head else 1
        assert recipe.batching.accumulation(gpus) >= 1


@pytest.mark.parametrize(("name", "mode"), [("stage1", "direct"), ("stage2_subgoal", "subgoal")])
def test_the_recipes_of_the_paper_have_its_numbers(name: str, mode: str) -> None:
    recipe = load_recipe(Recipe, RECIPES / f"{name}_7b.yaml")
    chosen = recipe.optimizer
    assert (chosen.lr, chosen.beta1, chosen.beta2, chosen.clip) == (1e-5, 0.9, 0.999, 1.0)
    assert recipe.loss.reconstruction == 1
    assert recipe.watch.mode == mode
    assert (recipe.steps, recipe.batching.batch) == ((5000, 1536) if name == "stage1" else (2000, 8))


def test_compat_reference_computes_the_losses_as_published_and_keeps_their_weights() -> None:
    assert Recipe(out="x", compat="reference").loss == as_published(LossWeights())
    assert Recipe(out="x", compat="reference", loss=LossWeights(reconstruction=5)).loss.reconstruction == 5
    assert Recipe(out="x").loss == LossWeights()
    with pytest.raises(ConfigError, match="compat must be reference"):
        Recipe(out="x", compat="published")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"report_to": ("no_tracker",)}, "report_to must be one of tensorboard, trackio, wandb"),
        ({"report_to": ("wandb",)}, "not installed: pip install wandb"),
        ({"method": "half"}, "method must be one of full, lora"),
        ({"keep": 0}, "must be 1 or more"),
        ({"epochs": 0.0}, "either steps or epochs"),
        ({"epochs": float("inf")}, "either steps or epochs"),
        ({"seed": -1}, "seed in 0"),
        ({"seed": 2**70}, "seed in 0"),
        ({"steps": 10**12}, "steps in 0"),
        ({"threads": 10**9}, "threads at most"),
        ({"out": ""}, "out must be a folder"),
        ({"out": "~nobody-of-this-name/run"}, "out must be a folder"),
        ({"lora": Lora(rank=4)}, "lora goes with method lora"),
        ({"adapter": "none"}, "adapter goes with method lora"),
        ({"adapter": "none", "method": "lora"}, "not an adapter"),
    ],
)
def test_values_that_mean_nothing_are_refused(keys: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twgi.training.recipe.find_spec", lambda name: None)
    with pytest.raises(TwgiError, match=says):
        Recipe(**{"out": "x", **keys})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Optimization(lr=float("nan")), "lr and eps must be above 0"),
        (lambda: Optimization(clip=float("nan")), "the rest 0 or more"),
        (lambda: Optimization(eps=float("inf")), "lr and eps must be above 0"),
        (lambda: Batching(seed=-1), "seed in 0"),
        (lambda: Batching(batch=2**40), "batch must be in"),
        (lambda: Batching(batch=2, micro_batch=4), "micro_batch in 1..batch"),
        (lambda: Lora(alpha=float("nan")), "alpha > 0"),
        (lambda: Watching(mode="zzz"), "watch.mode must be one of"),
        (lambda: VQRecipe(out="x", warmup=0, model=VQ), "must be 1 or more"),
        (lambda: VQRecipe(out="x", steps=600, model=VQ), "must be 1 or more"),
        (lambda: VQRecipe(out="x"), "the icon world has 8 x 8 cells"),
        (lambda: LMRecipe(out="x", vq="y", model={"hidden_size": "a"}), "model: "),
        (lambda: LMRecipe(out="x", vq="y", model={"depth": 3}), 'unknown key "depth"'),
        (lambda: Mixture(chains={"subgoal": 0.5}), "come to 1"),
        (lambda: Mixture(tasks={"nothing": 1.0}), "a key of mixture.tasks must be one of"),
    ],
)
def test_numbers_and_names_have_a_range(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("device=cuda", "no CUDA device"),
        ("device=zzz", "unknown device 'zzz'"),
        ("device=meta", "training runs on cpu or cuda"),
        ("steps=[1", "not valid YAML"),
        ("out=/dev/null", "cannot write to /dev/null"),
        ("report_to=tensorboard", 'report_to must be a list, got "tensorboard"'),
        ("report_to=[os]", "report_to must be one of"),
        ("data=rows.jsonl", 'data must be a list, got "rows.jsonl"'),
        ("optimizer.lr=.nan", "lr must be a number"),
        ("seed=1180591620717411303424", "seed must be a whole number"),
        ("lora={rank: 1000000000}", "lora.rank must be at most"),
    ],
)
def test_an_ordinary_mistake_is_one_line(
    tmp_path: Path, change: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert execute(["train", str(write_recipe(tmp_path, method="lora")), change]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_recipe_without_its_needed_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match="lacks the key out"):
        load_recipe(Recipe, tmp_path / "empty.yaml")


def test_home_is_where_a_run_goes_that_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Recipe(out="~/runs/mine").out == str(tmp_path / "runs" / "mine")

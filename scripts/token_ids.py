"""Token ids of the bundled model in every mode, preset and quirk: a net under changes that must not move one token.

python scripts/token_ids.py --write ids.json      before a change
python scripts/token_ids.py --compare ids.json    after it; says which cases differ, and from which token on
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twgi import SamplingParams, Thinker, load
from twgi.decoding.compat import Quirk
from twgi.decoding.guidance import PRESETS, SCALES_OF
from twgi.thinking.modes import MODES
from twgi.trace import read_traces

PROMPTS = ("a photo of a red couch and a blue horse", "a photo of three green apples", "a bird below a skateboard")
SEVERAL = ("subgoal", "critique")


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, arguments of `think`) of every case."""
    for mode in MODES:
        for place, prompt in enumerate(PROMPTS):
            yield f"{mode}, prompt {place}", {"prompt": prompt, "mode": mode, "seed": place, "sample": place}
        for name in (*PRESETS, *SCALES_OF):
            yield f"{mode}, guidance {name}", {"prompt": PROMPTS[0], "mode": mode, "guidance": name}
        for quirk in (*Quirk, "reference"):
            yield f"{mode}, compat {quirk}", {"prompt": PROMPTS[1], "mode": mode, "compat": str(quirk), "seed": 3}
        yield f"{mode}, greedy", {"prompt": PROMPTS[2], "mode": mode, "sampling": greedy()}
    for rounds in (2, 3):
        yield f"critique, {rounds} rounds", {"prompt": PROMPTS[2], "mode": "critique", "rounds": rounds, "seed": 4}
    for mode in SEVERAL:
        scales = {"negative": 2.0, "prompt": 3.0} if mode == "critique" else {"full": 3.0}
        with_words = {"negative_prompt": "a blurry photo of a cat"}
        yield (
            f"{mode}, scales",
            {"prompt": PROMPTS[0], "mode": mode, "guidance": "paper", "scales": scales} | with_words,
        )
    text, image = {"text_temperature": 1.0, "text_top_p": 0.9, "text_top_k": 5}, {"image_top_k": 20, "image_top_p": 0.8}
    filters = SamplingParams(**text, **image, image_temperature=1.0, max_tokens=160)
    yield "subgoal, filters and a limit", {"prompt": PROMPTS[0], "mode": "subgoal", "sampling": filters}


def greedy() -> SamplingParams:
    return SamplingParams(text_temperature=0, image_temperature=0)


def thought(thinker: Thinker) -> Iterator[tuple[str, list[int]]]:
    """Every case alone, then general mode about a picture, then thoughts that go on from a beginning."""
    for name, arguments in cases():
        yield name, list(thinker.think(**arguments).tokens)
    drawn = thinker.think(PROMPTS[0], mode="direct", seed=1)
    looked = {"prompt": "<image> What is in the picture?", "mode": "general", "pictures": [drawn.final], "seed": 2}
    yield "general, about a picture", list(thinker.think(**looked).tokens)
    for mode in SEVERAL:
        whole = thinker.think(PROMPTS[0], mode=mode, seed=5)
        for share in (0.25, 0.5, 0.75):
            given = whole.tokens[: int(len(whole.tokens) * share)]
            again = thinker.think(PROMPTS[0], mode=mode, seed=5, given=given)
            yield f"{mode}, given {share}", list(again.tokens)


def run() -> Iterator[tuple[str, list[int]]]:
    """A run of prompts in a batch, ended after its third thought and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        prompts, out = Path(folder) / "prompts.jsonl", Path(folder) / "out"
        prompts.write_text("".join(json.dumps({"prompt": prompt, "seed": 7}) + "\n" for prompt in PROMPTS))
        command = [sys.executable, "-m", "twgi", "think", "--prompts", str(prompts), "--mode", "subgoal"]
        command += ["--samples", "3", "--batch", "4", "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith(b"3/"):
                    process.kill()
        subprocess.run([*command, "--resume"], check=True, capture_output=True, env=environment)
        traces = sorted(read_traces(out), key=lambda trace: (PROMPTS.index(trace.prompt), trace.sample))
        for trace in traces:
            yield f"run, prompt {PROMPTS.index(trace.prompt)}, sample {trace.sample}", list(trace.tokens)


def differences(before: dict[str, list[int]], after: dict[str, list[int]]) -> Iterator[str]:
    for name in sorted(before.keys() ^ after.keys()):
        yield f"{name}: only {'before' if name in before else 'after'}"
    for name in [name for name in before if name in after and before[name] != after[name]]:
        pairs = enumerate(zip(before[name], after[name], strict=False))
        place = next((i for i, (one, other) in pairs if one != other), min(len(before[name]), len(after[name])))
        yield f"{name}: differs from token {place} of {len(before[name])} on"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--compare", type=Path)
    options = parser.parse_args()
    found = dict(thought(load("icons"))) | dict(run())
    if options.write:
        options.write.write_text("".join(f"{json.dumps(name)}: {ids}\n" for name, ids in found.items()))
    print(f"{len(found)} cases, {sum(map(len, found.values()))} tokens")
    if options.compare is None:
        return 0
    before = json.loads("{" + ",".join(options.compare.read_text().splitlines()) + "}")
    wrong = list(differences(before, found))
    print("\n".join(wrong) if wrong else "no token differs")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())

"""Whether the golden tests can fail: alter one array of the set at a time, and see that they do.

    OMP_NUM_THREADS=1 python scripts/alter_golden.py ../shared/golden [case ...]

Cases are letters; all of them when left out. Takes a minute for every ten arrays. Prints those whose alteration no test
noticed; the exit status is 1 if there are any.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TESTS = {
    "a": ["test_forward"], "b": ["test_forward", "test_data"], "c": ["test_forward"], "d": ["test_guidance"],
    "f": ["test_greedy"], "g": ["test_losses"], "i": ["test_guidance"],
}  # fmt: skip


def main() -> int:
    source = Path(sys.argv[1])
    unnoticed = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "golden"
        shutil.copytree(source, folder, copy_function=shutil.copyfile)
        for name, altered in alterations(source):
            save_file(altered, folder / "cases.safetensors")
            noticed = not passes(folder, TESTS[name.split(".")[0]])
            print(f"{'noticed  ' if noticed else 'UNNOTICED'} {name}", flush=True)
            unnoticed += [] if noticed else [name]
    print(f"{len(unnoticed)} unnoticed: {', '.join(unnoticed) or 'none'}")
    return 1 if unnoticed else 0


def alterations(source: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    arrays, cases = load_file(source / "cases.safetensors"), sys.argv[2:] or list(TESTS)
    for name, tensor in ((name, arrays[name]) for name in arrays if name[0] in cases):
        yield name, {**arrays, name: altered(tensor, arrays, name)}


def altered(tensor: Tensor, arrays: dict[str, Tensor], name: str) -> Tensor:
    """One element in the middle of what is not padding: one more, or twice a typical value more."""
    changed, flat = tensor.clone(), tensor.clone().flatten()
    places = list(range(flat.numel()))
    mask = arrays.get(f"{name[0]}.attention_mask")
    if mask is not None and tensor.shape[:2] == mask.shape and name != f"{name[0]}.attention_mask":
        real = mask.bool().view(*mask.shape, *[1] * (tensor.ndim - 2)).expand_as(tensor).flatten()
        places = real.nonzero().flatten().tolist()
    place = places[len(places) // 2]
    if changed.is_floating_point():
        flat[place] += max(1e-3, 2 * float(flat.abs().mean()))
    else:
        flat[place] = flat[place] - 1 if flat[place] > 0 else flat[place] + 1
    return flat.view(changed.shape).contiguous()


def passes(folder: Path, tests: list[str]) -> bool:
    files = [f"tests/golden/{name}.py" for name in tests]
    environment = {**os.environ, "TWGI_GOLDEN": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", *files]
    status = subprocess.run(command, env=environment, capture_output=True).returncode
    assert status in (0, 1), f"pytest could not run: exit status {status}"
    return status == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())

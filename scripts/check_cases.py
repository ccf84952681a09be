"""Run the cases on which the program once went wrong, and print a table of what comes out now.

    python scripts/check_cases.py CASES [NUMBER ...]

CASES is a folder with a folder for each case: its inputs, and a README whose line `Run:` is the command. A case is
right where what it prints has all of the signs that are wanted and none of those that are not.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1]
WEIGHTS = SOURCE / "src" / "twgi" / "icons" / "weights"
ALWAYS_WRONG = ("mistake of ours", "SECRET")
TIMEOUT = 600


@dataclass(frozen=True)
class Right:
    """Regular expressions over the whole output: all of `wanted` are found, none of `unwanted`; `why` in words."""

    why: str
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


RIGHT = {
    "01": Right("pictures of other prompts are refused", (r"74\.26", "rc=2"), (r"\b4\.63",)),
    "02": Right("four prompts paired by their words", (r'"prompts": 4',)),
    "03": Right("answers are found by their question", (r"74\.26",), (r"54\.26",)),
    "04": Right("a form that is not understood is unknown, never 0", (r"99\.00",), (r"\b0\.00[^\n]*\w+\n",)),
    "05": Right("an adapter that does not fit is refused", ("rc=0", "rc=2", "42 tensors changed"), (r"\b0 tensors",)),
    "06": Right("a folder with other weights is refused, or they go", (r"rc=2|1 file",)),
    "07": Right("changed pictures are refused", ("rc=2",), ("rc=0",)),
    "08": Right("rows of another image tokenizer are refused", ("image tokenizer", "rc=2"), ("rc=0",)),
    "09": Right("the scale is read from processor_config.json", ("^True$",)),
    "10": Right("the key is in no message", ("rc=[02]",), ("Invalid header",)),
    "11": Right("half a surrogate pair stops nothing", (r"scores\.json",)),
    "13": Right("recipe and adapter that contradict each other", ("adapter",), ("LoRA of rank 64",)),
    "14": Right("an adapter of another base is refused", ("rc=2",), ("rc=0",)),
    "15": Right("both grids are read", (r"100\.00",), (r"\b0\.00",)),
    "16": Right("the first picture of the file is read", ("page: ",), ("animation",)),
    "18": Right("the hash is that of the content", (), ("HASH OF THE NAME",)),
    "19": Right("replies of real servers are read", (r"100\.00",), ("another shape",)),
    "20": Right("no sign stops a stream", ("page: ",), ("UnicodeEncodeError",)),
    "21": Right("runs judged otherwise are marked", ("question|gating|judge",)),
    "22": Right("nothing to learn is an error", ("rc=2",), ("rc=0",)),
    "24": Right("each is told in a line", ("twice|double", "not UTF-8|Latin|encod", "nan|finite|number"), (r"^\./~$",)),
    "25": Right("three is 3, and yes is not No", (r"100\.00", r"\b0\.00"), (r"[1-9] invalid",)),
    "27": Right("yes by its first word", (r"100\.00|50\.00",), (r"between 0\.00",)),
    "28": Right("photographs are not judged as icons", ("rc=[12]",), ("rc=0",)),
}


def command_of(readme: str) -> str:
    """The command, in the words that the program has today."""
    (line,) = re.findall(r"^Run: (.+)$", readme, re.M)
    line = re.sub(r"twgi data shards (\S+)", r"twgi encode \1 --format parquet", line)
    return line.replace("--rows ", "--shard-rows ").replace(">/dev/null 2>&1", ">>$OUT/log 2>&1")


def run(folder: Path, out: Path) -> str:
    environment = {**os.environ, "OUT": str(out), "WEIGHTS": str(WEIGHTS), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(SOURCE / "src"), "PYTHONUNBUFFERED": "1"}
    words = (f'{name}() {{ "{sys.executable}" {more} "$@"; }}' for name, more in (("twgi", "-m twgi"), ("python", "")))
    head = "; ".join([*words, "export -f twgi python"])
    command = ["bash", "-c", f"{head}\ncd {folder}\n{command_of((folder / 'README').read_text())}\necho end=$?"]
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        return f"{(error.stdout or b'').decode(errors='replace')}\nstill running after {TIMEOUT} s"
    return done.stdout.decode(errors="replace")


def faults(said: str, right: Right) -> list[str]:
    missing = [f"no {sign!r}" for sign in right.wanted if not re.search(sign, said, re.M)]
    there = [f"has {sign!r}" for sign in (*right.unwanted, *ALWAYS_WRONG) if re.search(sign, said, re.M)]
    return missing + there


def main() -> int:
    cases, *numbers = sys.argv[1:] or [""]
    folders = [path for path in sorted(Path(cases).glob("[0-9][0-9]-*")) if not numbers or path.name[:2] in numbers]
    if not cases or not folders:
        print(__doc__)
        return 2
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for folder in folders:
            place = Path(scratch) / folder.name
            subprocess.run(["cp", "-rL", str(folder.resolve()), str(place)], check=True)  # commands write beside inputs
            subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)
            out = Path(scratch) / f"out-{folder.name}"
            out.mkdir()
            said = run(place, out)
            found = faults(said, RIGHT[folder.name[:2]])
            wrong += bool(found)
            print(f"{folder.name:36} {'wrong' if found else 'right'}  {RIGHT[folder.name[:2]].why}", flush=True)
            if found:
                print(
                    f"    {'; '.join(found)}\n" + "\n".join(f"    | {line[:160]}" for line in said.splitlines()[-12:])
                )
    print(f"{len(folders) - wrong} of {len(folders)} cases are right")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())

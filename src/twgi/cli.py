"""The command line: a table of commands. What each does is in `twgi.commands`; torch comes with the call."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from twgi import __version__
from twgi.commands import data, evaluate, icons, score, train
from twgi.commands.audit import audit
from twgi.commands.checkpoint import convert, info
from twgi.commands.data import decode, encode
from twgi.commands.report import report
from twgi.commands.think import INTERRUPTED, think
from twgi.console import complain
from twgi.errors import TwgiError, is_out_of_memory

CLOSED_PIPE, OURS = 141, 1

app = typer.Typer(
    help="Think in pictures: a model that writes, draws, looks at what it drew, and draws again.",
    epilog='Try: twgi think "a photo of a red couch and a blue horse" --mode subgoal --seed 0 --out out/couch',
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"twgi {__version__}")
        raise typer.Exit


@app.callback()
def _twgi(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None: ...


for command in (think, encode, decode, info, convert, report, audit):
    app.command()(command)
for name, group in {"icons": icons, "train": train, "data": data, "eval": evaluate, "score": score}.items():
    app.add_typer(group.app, name=name)


def main() -> None:
    """The command `twgi`. A request to end (as a cluster's scheduler sends it) is the same as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run a command; the exit status is 0 when all went well, 2 when the user can put it right, 1 when we must."""
    command = typer.main.get_command(app)
    try:
        status = command.main(list(arguments) or ["--help"], prog_name="twgi", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except TwgiError as error:
        complain(str(error))
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        complain("stopped")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the parser makes the one the other
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to read what is still buffered
        return CLOSED_PIPE
    except Exception as error:
        return _other(error)


def _other(error: Exception) -> int:
    """A wrong option (the parser's own exception), or a bug of ours."""
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        complain(f"{error.format_message()} (see {context.command_path if context else 'twgi'} --help)")
        return 2
    if is_out_of_memory(error):
        complain("out of memory: try a smaller --batch, or --resume later; what was finished is kept")
        return 2
    if os.environ.get("TWGI_DEBUG"):
        traceback.print_exc()
    complain(f"a mistake of ours: {type(error).__name__}: {error}; TWGI_DEBUG=1 shows where, please report it")
    return OURS

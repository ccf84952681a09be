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
from twgi.console import complain, steady
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
    steady()
    status = execute(sys.argv[1:])
    for asking in (signal.SIGTERM, signal.SIGINT):  # all is done: what ends now ends as it was going to
        signal.signal(asking, signal.SIG_IGN)
    if lost := getattr(sys.stdout, "lost", ""):
        complain(f"cannot write to standard output: {lost}; what was finished is kept")
        status = status or TwgiError.exit_status
    if status == INTERRUPTED:  # at once: threads and native libraries take their time to end
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def execute(arguments: Sequence[str]) -> int:
    """Run a command; the exit status is 0 when all went well, 2 when the user can put it right, 1 when we must."""
    command = typer.main.get_command(app)
    try:
        try:
            with command.make_context("twgi", list(arguments) or ["--help"]) as context:
                status = command.invoke(context)
        except typer.Exit as end:
            status = end.exit_code
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except TwgiError as error:
        complain(str(error))
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        complain("stopped")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # rich makes the one the other
        return CLOSED_PIPE
    except BaseException as error:  # native libraries have exceptions of their own
        return _other(error)


def _other(error: BaseException) -> int:
    """A wrong option (the parser's own exception), a disk or a machine that gives no more, or a bug of ours."""
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        complain(f"{error.format_message()} (see {context.command_path if context else 'twgi'} --help)")
        return 2
    if is_out_of_memory(error):
        complain("out of memory: try a smaller --batch, or --resume later; what was finished is kept")
        return 2
    if os.environ.get("TWGI_DEBUG"):
        traceback.print_exc()
    if isinstance(error, OSError) and error.errno:
        complain(f"{error.filename or 'a file or a socket'}: {error.strerror}; what was finished is kept")
        return 2
    complain(f"a mistake of ours: {type(error).__name__}: {error}; TWGI_DEBUG=1 shows where, please report it")
    return OURS

"""`twgi score`: judge pictures that are there already, by this program or by any other."""

import typer

app = typer.Typer(help="Judge the pictures of a benchmark, apart from drawing them.")


@app.callback()
def _score() -> None: ...

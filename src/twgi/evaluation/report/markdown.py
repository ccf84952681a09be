"""A report as Markdown: tables and words. Curves are files beside it."""

from collections.abc import Iterator, Sequence

from twgi.evaluation.report.blocks import Block, Cell, Chart, Facts, Heading, Note, Table, in_line
from twgi.evaluation.report.build import Gallery


def markdown(sections: Sequence[Sequence[Block]]) -> str:
    """The whole report."""
    return "\n".join(line for blocks in sections for block in blocks for line in (*_block(block), ""))


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading(text=text, level=level):
            yield f"{'#' * level} {_text(text)}"
        case Note(texts=texts):
            yield "\n\n".join(map(_text, texts))
        case Table(head=head, rows=rows):
            yield f"| {' | '.join(head)} |"
            yield "|---" * len(head) + "|"
            yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)
        case Chart(name=name):
            yield f"![{name.removesuffix('.svg')}]({name})"
        case Facts(facts=facts):
            yield from (f"- **{_text(name)}**: {_text(told)}" for name, told in facts)
        case Gallery(a=a, b=b, counts=(wins, losses)):
            yield f"{_text(b)} against {_text(a)}: {wins} thoughts won, {losses} lost."


def _cell(cell: Cell) -> str:
    return _text(in_line(cell)) + (f" **{_text(cell.mark)}**" if cell.mark else "")


def _text(text: str) -> str:
    """Any text, also as part of a table's cell."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())

"""Where the demo is shown: a terminal with colours and a bar, or plain lines of a fixed width in a pipe."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reaper.observers.log import one_line

WIDE = 132  # from here on a name and a sentence have room in one line
_IN_A_PIPE = 100
_INDENT = 2
_STYLES = {"reap": "red", "keep": "green", "deleted": "green", "skipped": "yellow", "failed": "bold red"}


class Screen:
    """Shows headings, tables and lines, none wider than it is."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self.console = Console(
            force_terminal=terminal,
            no_color=None if terminal else True,
            width=None if terminal else _IN_A_PIPE,
            highlight=False,
            markup=False,
            emoji=False,
        )

    @property
    def wide(self) -> bool:
        """Whether there is room for long rows."""
        return self.console.width >= WIDE

    def title(self, name: str, text: str) -> None:
        """What this is, at the very beginning."""
        self.console.print(Text.assemble((name, "bold"), "  ", text))

    def heading(self, title: str, *caption: str) -> None:
        """Begin a section: its title, and what one sees there."""
        self.console.print()
        self.console.print(Text(title, "bold cyan"))
        for sentence in caption:
            self.say((sentence, "dim"))
        self.gap()

    def gap(self) -> None:
        """Leave a line empty."""
        self.console.print()

    def _show(self, table: Table) -> None:
        """Show it, indented, and without the blanks with which its cells are filled up."""
        with self.console.capture() as capture:
            self.console.print(Padding(table, (0, 0, 0, _INDENT), expand=False))
        for line in capture.get().splitlines():
            sys.stdout.write(line.rstrip() + "\n")

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Show one line, cut off where the screen ends."""
        text = Text.assemble(" " * _INDENT, *((one_line(part), "") if isinstance(part, str) else part for part in parts))
        self.console.print(text, no_wrap=True, overflow="ellipsis", crop=True)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[str] = ()) -> None:
        """A table of words and numbers; the columns whose heads begin with ">" are aligned to the right."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for head in heads:
            right = head.startswith(">")
            table.add_column(head.removeprefix(">"), justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*(Text(cell, _style(cell)) for cell in map(one_line, row)))
        if last:
            table.add_row(*(Text(one_line(cell), "bold") for cell in last))
        self._show(table)

    def examples(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Rows of a word, a name and a sentence; the sentence goes below the name where it does not fit beside it."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=self.wide, overflow="ellipsis" if self.wide else "fold")
        if self.wide:
            table.add_column(overflow="fold")
        for word, name, sentence in rows:
            first = Text(one_line(word), _style(word))
            if self.wide:
                table.add_row(first, one_line(name), Text(one_line(sentence), "dim"))
            else:
                table.add_row(first, Text.assemble(one_line(name), "\n", (one_line(sentence), "dim")))
        self._show(table)


def _style(cell: str) -> str:
    return "dim" if cell == "0" else _STYLES.get(cell.split(" ", 1)[0], "")

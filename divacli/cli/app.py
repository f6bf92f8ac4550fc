"""The `diva` command."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from divacli import COMMANDS
from divacli.cli.command import unforeseen
from divacli.cli.console import say
from divacli.cli.processes import launched, may_speak
from divacli.errors import cut, shown
from divacli.version import __version__

# Read by torch when it is imported, which the commands do later: threads that wait sleep instead of spinning.
# On a machine with other work to do (the next command of a pipe, say) spinning makes small steps ten times
# slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# torch 2.9 tells of a setting that has a new name, also whoever uses neither name.
warnings.filterwarnings("ignore", "Please use the new API settings to control TF32", UserWarning)

_WIDTHS = {"COLUMNS": (20, 1000), "TERMINAL_WIDTH": (20, 1000), "LINES": (5, 1000)}
"""What may say how large the terminal is, and what it may say: text fits into no other one."""


class _Commands(TyperGroup):
    """The commands, whose messages of wrong usage quote what was typed: no terminal is to obey it."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """See click; with a width that text fits into, and an answer where even help cannot be written."""
        _require_width()
        try:
            return super().main(*arguments, **options)
        except Exception as error:
            if hasattr(error, "exit_code"):  # wrong usage, where the caller asked for it
                raise
            # Python would complain once more when it flushes the stream on exit.
            sys.stdout = None
            try:
                say(*unforeseen(error))
            except MemoryError as lack:  # not even what shows messages can be imported
                sys.stderr.write("\n".join([*unforeseen(lack), ""]))
            sys.exit(1)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """See click."""
        with _harmless():
            return super().make_context(*arguments, **options)

    def invoke(self, *arguments: Any) -> Any:
        """See click."""
        with _harmless():
            return super().invoke(*arguments)


def _require_width() -> None:
    """Forget sizes of the terminal that no text fits into; then Rich asks it, or takes 80 columns."""
    for name, (least, most) in _WIDTHS.items():
        said = os.environ.get(name, "")
        if said and not (said.isascii() and said.isdigit() and least <= int(said[:9]) <= most):
            del os.environ[name]
    if shutil.get_terminal_size().columns < _WIDTHS["COLUMNS"][0]:
        os.environ["COLUMNS"] = "80"


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):
            # Of a choice that is missing Typer lists what there is, each on a line of its own.
            message = cut(shown(error.format_message().replace("\n\t", " ")))
            error.format_message = lambda: message
        raise


app = typer.Typer(
    name="diva",
    cls=_Commands,
    help="Which training images hurt, which are mislabelled: dataset derivatives of your own folder.\n\n"
    "A positive derivative is harmful: more of that sample raises the validation loss. "
    "Start with `diva demo`.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

GREETING = """\
diva finds the training images that hurt and the labels that are wrong.

  diva score photos/ --model resnet50 --weights DEFAULT
      rank the images of a folder with one sub-folder a class, harmful first

  diva report
      look at them in a browser, with the neighbours that say why, and decide

  diva prune diva-out/scores.csv --keep auto
      drop wrong labels and outliers, and learn what that does to the error

diva demo shows all three on images that it makes. diva --help has every
command, diva COMMAND --help its options and examples, and diva doctor says what
diva sees of this machine."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"diva {__version__}")
        raise typer.Exit


@app.callback()
def _diva(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(GREETING)


for name in COMMANDS:
    importlib.import_module(f"divacli.cli.commands.{name}").register(app)


def main() -> None:
    """Run the command line; of several processes, which all see the same, one tells of wrong usage."""
    # In the place of a stream that is closed: otherwise the next file that is opened would take it, and what
    # libraries write there would go into that file.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    if not launched():
        app()
    try:
        status = app(standalone_mode=False)
    except Exception as error:
        # Typer keeps the class of wrong usage to itself.
        if not hasattr(error, "exit_code"):
            raise
        if may_speak():
            error.show()  # type: ignore[attr-defined]
        status = error.exit_code
    sys.exit(status)

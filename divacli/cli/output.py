"""Where results go: files in a folder, all or none of them, or standard output.

Of several processes that share the work, the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from divacli.cli.command import page_command
from divacli.cli.console import warn
from divacli.cli.options import OutputOptions
from divacli.cli.processes import leads
from divacli.errors import OutputError, listed
from divacli.files.path_or_url import RUN_FILE, place_of
from divacli.files.urls import is_url
from divacli.results.names import FAILED
from divacli.results.write import ResultFiles, TakenError, in_any_format
from divacli.run_record import current

_ARGUMENTS = ("data", "decisions", "table")
"""What is given without the name of an option."""


class Output:
    """Where a command's tables go: files in a folder, or its main table to standard output.

    Args:
        options: `--out`, `--format`, `--overwrite` and `--report`.
        makes: As of `ResultFiles`: what is certain to be written.
        sources: What the samples come from whose tables `finish` accounts for, as on the command line.
        command: As of `ResultFiles`.
        recorded: As of `ResultFiles`.

    Raises:
        OutputError: `--out` is a file, a URL, or a folder that cannot be written to, is in use, or holds such
            files.

    Attributes:
        options: As given.
        files: What takes the result.
    """

    def __init__(
        self,
        options: OutputOptions,
        *makes: str,
        sources: tuple[str, ...] = (),
        command: str = "",
        recorded: bool = True,
    ) -> None:
        if is_url(options.out):
            raise OutputError(
                f"--out {options.out}",
                expected="a folder in a file system of this machine",
                hint="write the results there, and copy them",
            )
        self.options = options
        self._sources = sources
        require_no_input(options.out, (*makes, FAILED, f"{FAILED}-{current().command}"))
        with self._page_told(command or current().command):
            self.files = ResultFiles(
                None if options.out == "-" else Path(options.out),
                options.format.value,
                makes,
                command=command,
                overwrite=options.overwrite,
                recorded=recorded,
                writes=leads(),
            )
        current().ending.callback(self.files.close)
        if options.report:
            from divacli.report.page.write import REPORT

            self.files.require_free([REPORT], "report")

    @property
    def folder(self) -> Path | None:
        """The folder of the files; None for standard output."""
        return self.files.folder

    @contextmanager
    def _page_told(self, command: str) -> Iterator[None]:
        """Say how to make a page that is missing beside results of this command, which are not replaced."""
        try:
            yield
        except TakenError as error:
            from divacli.report.page.write import REPORT

            there = os.path.lexists(Path(self.options.out, REPORT))
            if self.options.report and command in error.makers and not there:
                error.hint = f"{page_command(Path(self.options.out))} makes the page of them; or {error.hint}"
            raise

    def required_folder(self, why: str, hint: str = "leave --out out for diva-out") -> Path:
        """The folder of a result that standard output cannot take.

        Args:
            why: What of it needs a folder.
            hint: What to do.

        Raises:
            OutputError: The result goes to standard output.
        """
        if self.folder is None:
            raise OutputError(f"--out -: {why}", expected="--out DIR", hint=hint)
        return self.folder

    def done(self, *, whole: bool = True) -> None:
        """As `ResultFiles.finish`, of the command that is running, with the samples that it has read."""
        # Which of those that not every run makes are written is known now.
        require_no_input(self.options.out, (*self.files.written, RUN_FILE))
        read = [current().manifest(source) for source in self._sources]
        with self._page_told(current().command):
            self.files.finish(read=read, whole=whole)
        if self.files.outdated:
            warn(
                f"{listed(self.files.outdated)} in {self.options.out} were made from what is replaced now: "
                "make them anew, or remove them"
            )


def require_no_input(out: str, names: Iterable[str]) -> None:
    """Refuse to write a result in the place of what it is made from, which would be lost.

    Args:
        out: `--out`.
        names: Of what would be written, tables without suffix.

    Raises:
        OutputError: An argument or option of the command that is running names one of the files.
    """
    if out == "-":
        return
    targets = {os.path.realpath(Path(out, name)): Path(out, name) for name in in_any_format(names)}
    for option, value in current().options.items():
        for given in value if isinstance(value, list) else [value]:
            if not isinstance(given, str | Path) or is_url(str(given)):
                continue
            target = targets.get(os.path.realpath(str(place_of(str(given)))))
            if target is not None:
                what = option.upper() if option in _ARGUMENTS else f"--{option.replace('_', '-')}"
                raise OutputError(
                    f"{given} is {what}, and {target} would replace it",
                    expected="a place for the results where nothing lies that they are made from",
                    hint="choose another folder with --out",
                )

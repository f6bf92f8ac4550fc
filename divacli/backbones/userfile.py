"""Run a user's own Python file and take what it defines under a name: `FILE.py:NAME`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from divacli.errors import ModelError, listed
from divacli.files.path_or_url import file_digest


def is_user_file(text: str) -> bool:
    """Tell whether a thing is given as `FILE.py:NAME`; a forgotten `:NAME` counts."""
    return ".py:" in text or text.endswith(".py")


@dataclass(frozen=True)
class UserFile:
    """A name in a user's file.

    Attributes:
        path: The file.
        name: What is wanted from it, a callable.
        kind: What that is to be, in one word for messages.
        form: How it is given and what it must be, for messages.
    """

    path: Path
    name: str
    kind: str
    form: str

    @classmethod
    def given(cls, text: str, kind: str, form: str) -> UserFile:
        """The file and name that `FILE.py:NAME` stands for; the other arguments are the attributes.

        Raises:
            ModelError: There is no such file.
        """
        file, _, name = text.partition(".py:")
        path = Path(file if file.endswith(".py") else f"{file}.py")
        if not path.is_file():
            raise ModelError(f"no file {path}", expected=form, hint="check the path before the colon")
        return cls(path, name, kind, form)

    def __str__(self) -> str:
        """Short, for people."""
        return f"{self.path.name}:{self.name}"

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return file_digest(self.path).hex()

    @property
    def note(self) -> str:
        """A sentence for the user about what is done with the file."""
        return f"{self.path} is run for its {self.kind}: use only files you trust"

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """What the user's code runs in: its folder is importable meanwhile, as it is for a script.

        What it prints goes to standard error, for standard output may be a table.
        """
        entry = str(self.path.parent.resolve())
        sys.path.insert(0, entry)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            sys.path.remove(entry)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The `surroundings` of code that is to succeed.

        Raises:
            ModelError: The code raises anything; the message has the line of the file.
        """
        try:
            with self.surroundings():
                yield
        except ModelError:
            raise
        except (Exception, SystemExit) as error:
            raise self._explained(error) from error

    def load(self) -> Callable[..., Any]:
        """Import the file, within `running`, and take the name from it.

        Raises:
            ModelError: It defines no such callable.
        """
        module = self._import()
        found = getattr(module, self.name, None)
        if callable(found):
            return found
        defined = [
            key
            for key, value in vars(module).items()
            if callable(value) and not key.startswith("_") and inspect.getmodule(value) is module
        ]
        raise ModelError(
            f"{self.path} defines no callable {self.name!r}"
            if self.name
            else f"{self.path} names a file without a {self.kind}",
            expected=self.form,
            hint=f"it defines {listed(defined)}" if defined else "define one there",
        )

    def _import(self) -> ModuleType:
        # The name is its own, so that a file called torch.py hides nothing.
        spec = importlib.util.spec_from_file_location(f"divacli_{self.kind}_{self.path.stem}", self.path)
        assert spec is not None  # a .py file always has a loader
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickling look their module up there
        spec.loader.exec_module(module)
        return module

    def _explained(self, error: BaseException) -> ModelError:
        line: int | None
        if isinstance(error, SyntaxError) and error.lineno:
            file, line = error.filename or str(self.path), error.lineno
        else:
            frames = traceback.extract_tb(error.__traceback__)
            here = self.path.resolve()
            lines = [f.lineno for f in frames if Path(f.filename).resolve() == here]
            file, line = str(self.path), lines[-1] if lines else None
        return ModelError(
            f"{file}{f':{line}' if line else ''}: {type(error).__name__}: {error}",
            expected=f"a file that can be imported and run: {self.form}",
            hint="mend the file; running it with python shows the whole traceback",
        )

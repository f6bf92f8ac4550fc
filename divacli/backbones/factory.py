"""Build the network that a user's own Python file makes: `FILE.py:FACTORY`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from divacli.backbones.checkpoint import Checkpoint, load_weights
from divacli.backbones.fingerprint import file_digest
from divacli.backbones.source import Source
from divacli.backbones.transform import imagenet_transform
from divacli.errors import ModelError, listed

_FORM = "FILE.py:FACTORY, a function without arguments that returns a module or (module, transform)"


def is_factory(model: str) -> bool:
    """Tell whether a model is given as `FILE.py:FACTORY`; a forgotten `:FACTORY` counts."""
    return ".py:" in model or model.endswith(".py")


def from_factory(model: str, checkpoint: Checkpoint | None, image_size: int | None) -> Source:
    """Import a file and call one of its functions.

    The file's folder is importable meanwhile, as it is for a script.

    Args:
        model: `FILE.py:FACTORY`.
        checkpoint: Weights to load into the module; None: it keeps those the factory gave it.
        image_size: Side of the images, where the factory gives no transform of its own.

    Raises:
        ModelError: The file is absent or fails, has no such factory, or that returns something else; or the
            checkpoint does not fit.
    """
    file, _, factory_name = model.partition(".py:")
    path = Path(file if file.endswith(".py") else f"{file}.py")
    name = f"{path.name}:{factory_name}"
    if not path.is_file():
        raise ModelError(f"no file {path}", expected=_FORM, hint="check the path after --model")
    with _importable(path.parent), _failures_explained(path):
        module = _import(path)
        made = _factory(module, factory_name, path)()
    network, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(network, nn.Module) or not (transform is None or callable(transform)):
        kinds = ", ".join(type(part).__name__ for part in (made if isinstance(made, tuple) else (made,)))
        raise ModelError(f"{name} returned {kinds}", expected="a torch.nn.Module, or (module, transform)")
    if transform is not None and image_size is not None:
        raise ModelError(
            f"--image-size {image_size} with {name}, which gives its own transform",
            expected="one of the two",
            hint="leave --image-size out, or change the size in the file",
        )
    if checkpoint is not None:
        with _failures_explained(path):  # a module may take its weights by code of its own
            load_weights(network, checkpoint, name)
    return Source(
        name=name,
        network=network,
        transform=transform or imagenet_transform(image_size or 224),
        identity={"model": name, "factory": file_digest(path)},
        notes=(f"{path} was run to build the network: use only files you trust",),
    )


def _import(path: Path) -> ModuleType:
    # The name is its own, so that a file called torch.py hides nothing.
    spec = importlib.util.spec_from_file_location(f"divacli_factory_{path.stem}", path)
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up there
    spec.loader.exec_module(module)
    return module


def _factory(module: ModuleType, name: str, path: Path) -> Callable[[], Any]:
    factory = getattr(module, name, None)
    if callable(factory):
        return factory
    defined = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and inspect.getmodule(value) is module
    ]
    raise ModelError(
        f"{path} defines no callable {name!r}" if name else f"{path} names a file without a factory",
        expected=_FORM,
        hint=f"it defines {listed(defined)}" if defined else "define one there",
    )


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@contextmanager
def _failures_explained(path: Path) -> Iterator[None]:
    """Turn whatever the user's code raises into a message with the line of their file."""
    try:
        yield
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        line: int | None
        if isinstance(error, SyntaxError) and error.lineno:
            file, line = error.filename or str(path), error.lineno
        else:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
            file, line = str(path), lines[-1] if lines else None
        raise ModelError(
            f"{file}{f':{line}' if line else ''}: {type(error).__name__}: {error}",
            expected=f"a file that can be imported and run: {_FORM}",
            hint="mend the file; running it with python shows the whole traceback",
        ) from error

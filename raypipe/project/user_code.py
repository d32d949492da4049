"""Functions of the project's own code, named by an import path such as "losses:focal"."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from raypipe.errors import ConfigurationError, TrainingError


@dataclass(frozen=True)
class Guarded:
    """The project's own function; what it raises is told as its fault."""

    function: Callable[..., Any]
    path: str

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns. Raises TrainingError."""
        try:
            return self.function(*arguments)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
            raise TrainingError(
                f"{self.path} of the project failed", where=where, got=f"{type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class UserFunction:
    """A function, the module that it comes from, and the SHA-256 of that module's source."""

    function: Guarded
    module: ModuleType
    digest: str


def load_function(folder: Path, path: str, *, where: str) -> UserFunction:
    """The function that `path` ("module:function") names: of a file in the project's folder, or of what is installed.

    Raises ConfigurationError if there is no such module or function, or if importing it fails.
    """
    name, _, function = path.partition(":")
    module = _import(folder, name, where=where)
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigurationError(f"module '{name}' has no function '{function}'", where=where, got=path)
    source = Path(str(module.__file__))
    if not source.is_file():
        raise ConfigurationError(f"the file of module '{name}' is gone", where=where, got=source.name)
    return UserFunction(Guarded(found, path), module, hashlib.sha256(source.read_bytes()).hexdigest())


def _import(folder: Path, name: str, *, where: str) -> ModuleType:
    file = folder / f"{name.replace('.', '/')}.py"
    try:
        return _from_file(file, name) if file.is_file() else importlib.import_module(name)
    except Exception as error:
        raise ConfigurationError(
            f"module '{name}' cannot be imported",
            where=where,
            got=f"{type(error).__name__}: {error}",
            hint=f"put {file.name} beside project.yaml, or name a module that is installed",
        ) from error


def _from_file(file: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

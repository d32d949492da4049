"""Read a project folder. Needs neither Ray nor XGBoost, and takes about a second."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, NoneType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from raypipe.definitions import Definitions, Source
from raypipe.definitions.views import is_category
from raypipe.errors import ConfigurationError, DefinitionError, RaypipeError, nearest
from raypipe.project.evaluation_check import check_evaluation
from raypipe.project.settings import Settings
from raypipe.project.source_settings import SourceFiles
from raypipe.project.split_check import check_split
from raypipe.project.split_settings import SPLITS
from raypipe.project.transform_settings import FeatureTransform

STORAGE_VARIABLE = "RAYPIPE_STORAGE"
_JOB_COPIES = "working_dir_files"  # where Ray unpacks what `ray job submit --working-dir` sent


@dataclass(frozen=True, eq=False)
class Project:
    """A project folder, read and checked."""

    folder: Path
    settings: Settings
    definitions: Definitions
    own_storage: Path | None = None  # in place of the storage root, for what shall share nothing with it

    @property
    def storage(self) -> Path:
        """The storage root: everything the project makes lies under it.

        `$RAYPIPE_STORAGE/<name>` where that variable is set (on a cluster: a folder that all machines share), else
        `storage` of project.yaml. Raises ConfigurationError inside a job's copy of the project, which Ray deletes.
        """
        if self.own_storage:
            return self.own_storage
        shared = os.environ.get(STORAGE_VARIABLE)
        if shared:
            return Path(shared).resolve() / self.settings.name
        storage = (self.folder / self.settings.storage).resolve()
        if _JOB_COPIES in storage.parts:
            raise ConfigurationError(
                "the storage folder would be deleted with the job's copy of the project",
                where="project.yaml: storage",
                got=self.settings.storage,
                expected="a folder that all machines of the cluster share",
                hint=f"set {STORAGE_VARIABLE} in the environment of `ray start`, or an absolute path as storage",
            )
        return storage

    def source_files(self, name: str) -> SourceFiles:
        return self.settings.sources[name]


def load_project(folder: str | Path) -> Project:
    """The project in `folder`. Raises ConfigurationError or DefinitionError for what is wrong in it."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise ConfigurationError(
            "no such project folder", got=folder, hint="name it with --project, or make one: raypipe init"
        )
    settings = read_settings(root / "project.yaml")
    definitions = Definitions.collect(_import_features(root / "features.py"))
    _check_agreement(settings, definitions)
    return Project(root, settings, definitions)


def with_settings(project: Project, document: dict[str, Any]) -> Project:
    """The project with the settings of `document`, which `Settings.model_dump` made at another time.

    Raises ConfigurationError if this version of raypipe does not know them, or if they do not suit features.py.
    """
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        raise _settings_error(error, project.folder / "project.yaml") from None
    _check_agreement(settings, project.definitions)
    return replace(project, settings=settings)


def read_settings(path: Path) -> Settings:
    """project.yaml as typed settings. Raises ConfigurationError that names the key."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            "no project.yaml", where=path.parent.name, hint="name the folder with --project, or make one: raypipe init"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError("project.yaml is no valid YAML", where=str(path), got=error) from None
    if not isinstance(document, dict):
        raise ConfigurationError("project.yaml must hold keys and values", where=str(path), got=type(document).__name__)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise _settings_error(error, path) from None


def _settings_error(error: ValidationError, path: Path) -> ConfigurationError:
    """The first complaint of pydantic in our words, with the number of further ones."""
    first, others = error.errors()[0], error.error_count() - 1
    key = ".".join(str(part) for part in first["loc"] if part not in SPLITS)
    more = f" (and {others} more)" if others else ""
    where = f"{path.name}: {key}"
    if first["type"] == "extra_forbidden":
        return ConfigurationError(
            f"unknown key '{first['loc'][-1]}'{more}",
            where=where,
            hint=nearest(str(first["loc"][-1]), _known_keys(first["loc"][:-1])),
        )
    if first["type"] == "missing":
        return ConfigurationError(f"key '{key}' is missing{more}", where=path.name)
    return ConfigurationError(f"{first['msg']}{more}", where=where, got=repr(first["input"])[:200])


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys that the section at `location` may hold."""
    section: Any = Settings
    for part in location:
        if part in SPLITS:
            section = SPLITS[str(part)]
            continue
        # Where it is no section, `part` is a name of the user's own, in a dictionary.
        section = section.model_fields[str(part)].annotation if _is_section(section) else get_args(section)[-1]
        section = next(filter(_is_section, get_args(section)), section) if NoneType in get_args(section) else section
    return list(section.model_fields) if _is_section(section) else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


class _Uncached(SourceFileLoader):
    """Compiles the file each time: a cached .pyc would miss an edit within the second."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 (the loader's signature)
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_features(path: Path) -> ModuleType:
    """features.py as a module under a name of its own, so that two projects never mix."""
    if not path.is_file():
        raise ConfigurationError(
            "no features.py",
            where=str(path.parent),
            hint="declare sources, views and a label there: raypipe init shows how",
        )
    name = f"raypipe_project_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    if spec is None or spec.loader is None:
        raise ConfigurationError("features.py cannot be imported", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except RaypipeError as error:
        error.where = f"features.py:{_line_in(error, path)} {error.where}".strip()
        raise
    except (Exception, SystemExit) as error:
        raise DefinitionError(
            f"features.py raises {type(error).__name__}", where=f"features.py:{_line_in(error, path)}", got=error
        ) from error
    return module


def _line_in(error: BaseException, path: Path) -> int | str:
    """The line of `path` that `error` came through last."""
    if isinstance(error, SyntaxError):
        return error.lineno or "?"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] or "?" if lines else "?"


def _check_agreement(settings: Settings, definitions: Definitions) -> None:
    """project.yaml and features.py must name the same sources, slices and features."""
    declared = [source.name for source in definitions.sources]
    for name in settings.sources:
        if name not in declared:
            raise ConfigurationError(
                f"features.py declares no source '{name}'",
                where=f"project.yaml: sources.{name}",
                hint=nearest(name, declared),
            )
    for name in declared:
        if name not in settings.sources:
            raise ConfigurationError(
                f"source '{name}' has no path", where="project.yaml: sources", hint=f"add '{name}: {{path: ...}}'"
            )
        _check_policy(settings.sources[name], definitions.source(name))
    check_evaluation(settings.evaluation, definitions)
    check_split(settings.split, definitions.label)
    _check_transforms(settings, definitions)


def _check_policy(files: SourceFiles, source: Source) -> None:
    """The contract's policies must speak of rules and clocks that the source has."""
    where = f"project.yaml: sources.{source.name}.contract"
    for rule in files.contract.rules:
        if rule not in source.rule_names():
            raise ConfigurationError(
                f"the contract of source '{source.name}' has no rule '{rule}'",
                where=f"{where}.rules",
                hint=nearest(rule, source.rule_names()),
            )
    if files.contract.freshness and source.static:
        raise ConfigurationError("a static source has no newest event", where=f"{where}.freshness")


def _check_transforms(settings: Settings, definitions: Definitions) -> None:
    features = definitions.features()
    for name, transform in settings.transforms.features.items():
        where = f"project.yaml: transforms.features.{name}"
        if name not in features:
            raise ConfigurationError(
                f"features.py declares no feature '{name}'", where=where, hint=nearest(name, list(features))
            )
        if transform.target_encode and definitions.label.spine.static:
            raise ConfigurationError(
                "target_encode encodes a row by labels known before it, and this spine has no time",
                where=f"{where}.target_encode",
                hint="leave it out: a category goes into the matrix as a category",
            )
        _check_transform(transform, category=is_category(features[name]), where=where)
        if transform.target_encode and definitions.label.task in ("multiclass", "ranking"):
            raise ConfigurationError(
                "a category is target-encoded by the mean of a label, which this task has none of",
                where=f"{where}.target_encode",
                got=f"task='{definitions.label.task}'",
                hint="drop target_encode: the category then goes into the matrix by its code",
            )


def _check_transform(transform: FeatureTransform, *, category: bool, where: str) -> None:
    """Numbers are clipped and imputed by numbers, categories encoded and imputed by strings."""
    by_statistic = transform.impute in ("mean", "median")
    by_number = isinstance(transform.impute, float)
    if category and transform.clip:
        raise ConfigurationError("a category cannot be clipped", where=f"{where}.clip")
    if category and (by_statistic or by_number):
        raise ConfigurationError(
            "a category cannot be imputed like a number",
            where=f"{where}.impute",
            got=transform.impute,
            expected="most_frequent, or a string (in quotes, if it looks like a number)",
        )
    if not category and transform.target_encode:
        raise ConfigurationError(
            "only a category can be target-encoded",
            where=f"{where}.target_encode",
            hint="make it a category: .cast(pl.String) where the feature is declared",
        )
    if not category and isinstance(transform.impute, str) and not (by_statistic or transform.impute == "most_frequent"):
        raise ConfigurationError(
            "a number cannot be imputed by a string",
            where=f"{where}.impute",
            got=repr(transform.impute),
            expected="mean, median, most_frequent or a number",
        )

"""What lies in the repository after an export? The ONNX file, where it was trained, and the definition of the model."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quern.onnx.errors import ExportError, need

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Place:
    """A version of a model, and where its files lie."""

    model: str
    version: str
    folder: Path
    root: Path
    """Of the repository: what paths in definitions are relative to."""

    @classmethod
    def of(cls, model: str, version: str, folder: str | os.PathLike[str]) -> Place:
        """Find the repository that the folder is in."""
        for what, name in (("name", model), ("version", version)):
            if not _NAME.fullmatch(name):
                raise ExportError(f"{what}: expected letters, digits, `_`, `-` and `.`, found {name!r}")
        absolute = Path(folder).resolve()
        for root in (absolute, *absolute.parents):
            if (root / "quern.yaml").is_file():
                check_read(root, absolute)
                return cls(model, version, absolute, root)
        told = "no quern.yaml is there or above: give a folder of the repository, as in `folder='repository/models'`"
        raise FileNotFoundError(f"{absolute}: {told}")

    @property
    def onnx(self) -> Path:
        """The file of this version."""
        return self.folder / f"{self.model}-{self.version}.onnx"

    @property
    def definition(self) -> Path:
        """The model, with its versions: where the repository declares it, or where it will."""
        return self.declared[0]

    @cached_property
    def declared(self) -> tuple[Path, list[dict[str, Any]]]:
        """Where the repository declares the model, and its versions there; none where that is still to come."""
        for path in _definitions(self.root):
            for document in _documents(path):
                if document.get("kind") == "Model" and document.get("name") == self.model:
                    return path, [known for known in document.get("versions") or () if isinstance(known, dict)]
        return self.folder / f"{self.model}.yaml", []

    @property
    def is_declared(self) -> bool:
        """Whether the repository declares this very version."""
        return any(known.get("version") == self.version for known in self.declared[1])

    def check_version(self, text: str) -> None:
        """Refuse a version that is declared already and says something else than `text`."""
        path, versions = self.declared
        if any(known.get("version") == self.version and [known] != _read(text) for known in versions):
            told = "give another `version`, or take that one out of the file"
            raise FileExistsError(f"{path} declares version `{self.version}` of the model otherwise: {told}")

    def named(self, path: Path) -> str:
        """Name a file as definitions do."""
        return path.relative_to(self.root).as_posix()


def check_read(root: Path, folder: Path) -> None:
    """Refuse a folder in which Quern reads no definitions."""
    settings = (_documents(root / "quern.yaml") or [{}])[0]
    read = (root / str(settings.get("definitions") or ".")).resolve()
    if not folder.is_relative_to(read):
        raise ExportError(f"{folder}: definitions are read below {read}, as quern.yaml says: give a folder there")
    if any(part.startswith(".") for part in folder.relative_to(root).parts):
        raise ExportError(f"{folder}: a folder whose name begins with a dot holds no definitions")


def _read(text: str) -> Any:
    """Read YAML with all that it says as texts, as `on` and `1e3` are in names."""
    yaml = need("yaml")
    return yaml.load(text, Loader=yaml.BaseLoader)


def _documents(path: Path) -> list[dict[str, Any]]:
    yaml = need("yaml")
    try:
        documents = list(yaml.load_all(path.read_text(errors="replace"), Loader=yaml.BaseLoader))
    except yaml.YAMLError:  # `quern check` says what is wrong with it
        return []
    return [document for document in documents if isinstance(document, dict)]


def _definitions(root: Path) -> Iterator[Path]:
    """Give the YAML of a repository; what is hidden holds no definitions."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if name.endswith((".yaml", ".yml")))


def version_yaml(place: Place, service: str, more: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> str:
    """Write a version, as an item of `versions`. JSON is YAML, too."""
    keys = {"version": place.version, "path": place.named(place.onnx), "service": service, **more}
    trained_on = keys.pop("trained_on", None)
    lines = [f"{key}: {_written(value)}" for key, value in keys.items()]
    lines += ["examples:", *(f"  - {_written(example)}" for example in examples)]
    if trained_on is not None:
        lines += ["trained_on:", *_lines(trained_on)]
    return "  - " + "\n    ".join(lines) + "\n"


def _lines(mapping: Mapping[str, Any]) -> Iterator[str]:
    """Write a mapping, a line for each key."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield f"  {_written(key)}:"
            yield from (f"  {line}" for line in _lines(value))
        else:
            yield f"  {_written(key)}: {_written(value)}"


def model_yaml(place: Place, version: str) -> str:
    """Write a model of one version."""
    return f"kind: Model\nname: {_written(place.model)}\nversions:\n{version}"


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def check_new(files: Mapping[Path, bytes]) -> None:
    """Refuse files that are there and have other bytes: they may be what another version is live with."""
    for path, content in files.items():
        if path.is_file() and path.read_bytes() != content:
            told = "give another `version` or `name`, or replace it by `overwrite=True`"
            raise FileExistsError(f"{path} is there and holds something else: {told}")


def write(files: Mapping[Path, bytes]) -> None:
    """Write files in their order, each whole or not at all."""
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
            Path(beside).chmod(0o644)
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

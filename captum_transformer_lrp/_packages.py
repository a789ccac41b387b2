"""Optional packages, imported where they are needed and not before."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import LRPError

_EXTRA = {
    "accelerate": "diffmask",
    "safetensors": "diffmask",
    "transformers": "transformers",
    "timm": "timm",
    "rich": "cli",
    "jinja2": "cli",
    "kronfluence": "influence",
    "panel": "insights",
    "pandas": "pandas",
    "pyarrow": "data",
}


class MissingPackageError(LRPError, ImportError):
    """An optional package is needed and not installed."""


def require(package: str) -> ModuleType:
    """Import an optional package or a module of it, or say how to install it.

    Raises:
        MissingPackageError: The package is not installed.
    """
    top = package.partition(".")[0]
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != top:
            raise
        raise MissingPackageError(
            f"this needs {top}, which is not installed; install it with:  "
            f'pip install "captum_transformer_lrp[{_EXTRA[top]}]"',
            name=top,
        ) from error

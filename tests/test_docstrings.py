"""Every public method says what it does, itself or in the class that declares it."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages

import pytest
from torch import nn

import saformer

MODULES = [module.name for module in walk_packages(saformer.__path__, "saformer.")]


def undocumented(module: str) -> Iterator[str]:
    """Public methods and properties of public classes, whose meaning nobody has written down."""
    for name, owner in vars(import_module(module)).items():
        if not inspect.isclass(owner) or owner.__module__ != module or name.startswith("_"):
            continue
        for attribute, value in vars(owner).items():
            method = inspect.isroutine(value) or isinstance(value, property | staticmethod)
            if not method or attribute.startswith("_"):
                continue
            # PyTorch's own docstring of forward has no shapes.
            own = attribute == "forward" and issubclass(owner, nn.Module)
            said = value.__doc__ if own else inspect.getdoc(getattr(owner, attribute))
            if not said:
                yield f"{name}.{attribute}"


@pytest.mark.parametrize("module", MODULES)
def test_public_methods_are_documented(module):
    """Ruff looks at modules, classes and functions; it cannot see a docstring that is inherited."""
    assert list(undocumented(module)) == []

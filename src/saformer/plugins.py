"""Find the user's own classes and modules by the dotted names in settings (docs/extend.md).

We search the current folder and the installed packages. An import runs the code of a module, so
names that come only from a checkpoint are never passed to this module (`saformer.config.restore`).
A found object is not called before its kind has been checked.

This module imports no torch, because the settings that contain the names import none either.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any

from saformer.errors import SettingError
from saformer.suggest import suggest


def locate(setting: str, dotted: str, fits: Callable[[Any], bool], expected: str) -> Any:
    """Import the object of a dotted name: `module`, `module.Class`, or deeper in a package.

    The current folder is searched last, so that a file in it cannot replace a library.

    Args:
        setting: The setting that gives the name, as the user types it.
        dotted: The name.
        fits: Tells whether an object has the required kind; it must not call the object.
        expected: Description of that kind: "a subclass of ...".

    Raises:
        SettingError: There is no such object, it cannot be imported, or it has another kind.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    typed = f"{setting}={dotted}"
    names = dotted.split(".")
    if not all(name.isidentifier() for name in names):
        shown = dotted if dotted.isprintable() else ascii(dotted)
        raise SettingError(f"{setting} must be a dotted name like module.Class, not {shown}")
    if any(name.startswith("_") for name in names):  # such as __main__, which starts a program
        raise SettingError(f"{setting} must have no part that begins with _, not {dotted}")
    found: Any = _module(typed, names[0])
    for i, name in enumerate(names[1:], start=1):
        if hasattr(found, name):
            found = getattr(found, name)
        elif hasattr(found, "__path__"):  # a package, of which `name` may be a module
            found = _module(typed, ".".join(names[: i + 1]))
        else:
            where = getattr(found, "__file__", None) or ".".join(names[:i])
            raise SettingError(f"{typed}: {where} has no '{name}'.{suggest(name, dir(found))}")
    if not fits(found):
        raise SettingError(f"{setting} must be {expected}, not {dotted}")
    return found


def _module(typed: str, name: str) -> ModuleType:
    """Import a module; if its code fails, the error names the file and line."""
    if name in sys.modules:
        return sys.modules[name]
    spec = None
    try:
        spec = find_spec(name)
        if spec is not None:
            return import_module(name)
    except BaseException as error:  # a module may raise anything, even SystemExit
        file = spec.origin if spec else None
        lines = [
            line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == file
        ]
        reason = " ".join(str(error).split())  # for a SyntaxError it contains file and line
        where = f"{file}, line {lines[-1]}: " if lines else ""
        what = f"{where}{type(error).__name__}: {reason}".removesuffix(": ")
        raise SettingError(f"{typed} cannot be imported: {what}") from error
    raise SettingError(_nowhere(typed, name))


def _nowhere(typed: str, name: str) -> str:
    """Make the message that there is no such module."""
    package, _, last = name.rpartition(".")
    if package:
        return f"{typed}: the package {package} has no '{last}'"
    near = suggest(name, (path.stem for path in Path.cwd().glob("*.py")))
    fix = f"There is no {name}.py in {Path.cwd()}, and no installed package of that name"
    return f"{typed}: no module '{name}' was found.{near} {fix}"


def require_options(
    setting: str, found: type, method: str, given: Collection[str], options: Mapping[str, Any]
) -> None:
    """Refuse options that a class does not have, and report missing ones that it needs.

    Args:
        setting: The setting that holds the options, as the user types it.
        found: The class.
        method: Name of the method that takes the options, `__init__` or another.
        given: Arguments that our code passes to the method.
        options: Keyword arguments from the setting.

    Raises:
        SettingError: An option is unknown to the class and its bases, or one is missing.
    """
    # A class with **kwargs passes them on, so also look at the arguments of its base classes.
    functions = [vars(base)[method] for base in found.__mro__ if method in vars(base)]
    parameters = inspect.signature(functions[0]).parameters
    takes_all = any(argument.kind is argument.VAR_KEYWORD for argument in parameters.values())
    if lacking := [] if takes_all else [n for n in given if n not in _by_keyword(functions[0])]:
        raise SettingError(
            f"{setting.rpartition('.')[0]}: {found.__name__}.{method} does not take "
            f"{', '.join(lacking)}, which it is given (docs/extend.md)"
        )
    first, *_ = signatures = [_by_keyword(function) for function in functions]
    known = [name for taken in signatures for name in taken if name not in (*given, "self")]
    for name in options:
        if name not in known:
            raise SettingError(
                f"{setting}.{name}: {found.__name__} has no such argument.{suggest(name, known)}"
            )
    for name, argument in first.items():
        needed = argument.default is argument.empty and name in known
        if needed and name not in options:
            raise SettingError(f"{setting}: {found.__name__} needs a value for '{name}'")


def _by_keyword(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: argument
        for name, argument in inspect.signature(function).parameters.items()
        if argument.kind in kinds
    }

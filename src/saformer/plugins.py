"""Classes and modules of your own, by the dotted name that a setting gives (docs/extend.md).

They are looked for in the current folder, and in what is installed. An import runs the module, so
names that a checkpoint alone gives do not come here (`saformer.config.restore`). Nothing that was
found is called before it is known to be of the kind that was asked for.

Imports no torch: the settings that hold the names do not either.
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
    """What a dotted name stands for: `module`, `module.Class`, or deeper in a package.

    The current folder comes behind what is installed, so that a file there replaces no library.

    Args:
        setting: The setting that gives the name, as it is typed.
        dotted: The name.
        fits: Whether something is of the kind that is asked for; it must not call it.
        expected: That kind, in words: "a subclass of ...".

    Raises:
        SettingError: There is nothing of that name, it cannot be imported, or it is of another
            kind.
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
        elif hasattr(found, "__path__"):  # a package, which may have it as a module
            found = _module(typed, ".".join(names[: i + 1]))
        else:
            where = getattr(found, "__file__", None) or ".".join(names[:i])
            raise SettingError(f"{typed}: {where} has no '{name}'.{suggest(name, dir(found))}")
    if not fits(found):
        raise SettingError(f"{setting} must be {expected}, not {dotted}")
    return found


def _module(typed: str, name: str) -> ModuleType:
    """Import a module; whatever it raises is told with the line of its file."""
    if name in sys.modules:
        return sys.modules[name]
    spec = None
    try:
        spec = find_spec(name)
        if spec is not None:
            return import_module(name)
    except BaseException as error:  # a module may raise anything, and must not end us as it likes
        file = spec.origin if spec else None
        lines = [
            line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == file
        ]
        reason = " ".join(str(error).split())  # a SyntaxError names file and line itself
        where = f"{file}, line {lines[-1]}: " if lines else ""
        what = f"{where}{type(error).__name__}: {reason}".removesuffix(": ")
        raise SettingError(f"{typed} cannot be imported: {what}") from error
    raise SettingError(_nowhere(typed, name))


def _nowhere(typed: str, name: str) -> str:
    """There is no such module."""
    package, _, last = name.rpartition(".")
    if package:
        return f"{typed}: the package {package} has no '{last}'"
    near = suggest(name, (path.stem for path in Path.cwd().glob("*.py")))
    fix = f"There is no {name}.py in {Path.cwd()}, and no installed package of that name"
    return f"{typed}: no module '{name}' was found.{near} {fix}"


def require_options(
    setting: str, found: type, method: str, given: Collection[str], options: Mapping[str, Any]
) -> None:
    """Refuse options that a class does not take, and miss those that it needs.

    Args:
        setting: The setting that holds the options, as it is typed.
        found: The class.
        method: The method that takes them, `__init__` or another.
        given: Arguments that it is given besides.
        options: Arguments by keyword.

    Raises:
        SettingError: One is unknown to it and to its bases, or missing.
    """
    # What one class takes as **kwargs, a base of it knows by name.
    each = [vars(base)[method] for base in found.__mro__ if method in vars(base)]
    parameters = inspect.signature(each[0]).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if lacking := [] if takes_all else [n for n in given if n not in _by_keyword(each[0])]:
        raise SettingError(
            f"{setting.rpartition('.')[0]}: {found.__name__}.{method} does not take "
            f"{', '.join(lacking)}, which it is given (docs/extend.md)"
        )
    own, *_ = signatures = [_by_keyword(function) for function in each]
    known = [name for taken in signatures for name in taken if name not in (*given, "self")]
    for name in options:
        if name not in known:
            raise SettingError(
                f"{setting}.{name}: {found.__name__} has no such argument.{suggest(name, known)}"
            )
    for name, argument in own.items():
        needed = argument.default is argument.empty and name in known
        if needed and name not in options:
            raise SettingError(f"{setting}: {found.__name__} needs a value for '{name}'")


def _by_keyword(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: one
        for name, one in inspect.signature(function).parameters.items()
        if one.kind in kinds
    }

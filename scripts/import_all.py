"""Import every module of the package: `python scripts/import_all.py [PACKAGE ...]`.

An install without extras must be able to. The packages that are named count as not installed.
"""

import pkgutil
import sys
from importlib import import_module

import saformer

if __name__ == "__main__":
    for absent in sys.argv[1:]:
        sys.modules[absent] = None  # type: ignore[assignment]  # an import of it fails from here on
    found = [module.name for module in pkgutil.walk_packages(saformer.__path__, "saformer.")]
    for name in found:
        import_module(name)
    print(f"{len(found)} modules imported")

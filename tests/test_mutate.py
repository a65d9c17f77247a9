"""The script that finds what tests do not notice changes one place at a time."""

import ast

from scripts.mutate import changes

SOURCE = '''
def small(size: int = 4, low=-1) -> bool:
    """Whether it is below 2."""
    if size < low:
        raise ValueError(size + 1)
    return not size or isinstance(size, int | bool)
'''


def test_each_operator_constant_and_guard_is_changed_once():
    """Types, docstrings and messages stay, and a place is put back as it was."""
    tree = ast.parse(SOURCE)
    found = set()
    for change in changes(tree):
        old = change.swap(change.new)
        found.add(ast.unparse(tree))
        change.swap(old)
    kept = ast.unparse(ast.parse(SOURCE))
    assert ast.unparse(tree) == kept
    assert found == {
        kept.replace(before, after)
        for before, after in (
            *(("int=4", "int=5"), ("low=-1", "low=1"), ("low=-1", "low=-2")),
            *(("size < low", "size <= low"), ("if size < low", "if False")),
            *(("not size or", "size or"), ("not size or", "not size and")),
        )
    }

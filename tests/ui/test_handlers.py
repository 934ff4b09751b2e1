"""What handlers answer with exists on the page."""

import ast
from pathlib import Path

ROOM = Path(__file__).parents[2] / "lib_pivotal" / "ui"


def test_every_part_that_a_handler_shows_is_made_somewhere():
    trees = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in ROOM.glob("*.py")}
    texts = {
        node.value
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    shown = [
        (name, keyword.arg)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "shown"
        for keyword in node.keywords
        if keyword.arg
    ]
    assert len(shown) > 50
    assert not [(name, part) for name, part in shown if part.removesuffix("_answered") not in texts]

"""A widget's own state has names of its own: Textual's widgets are full of private ones, and taking
one (`_running`) silently stops a widget from being painted."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
from textual.app import App
from textual.widget import Widget

import ds4_agent.tui

SOURCES = sorted(Path(ds4_agent.tui.__file__).parent.glob("*.py"))


def own_names(node: ast.ClassDef) -> set[str]:
    """The private attributes a class sets on itself, and its private methods."""
    names = {n.name for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
            names.add(each.attr)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_widget_takes_a_private_name_of_textual(source: Path):
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        found = getattr(import_module(f"ds4_agent.tui.{source.stem}"), node.name)
        if not issubclass(found, Widget | App):
            continue
        base = App() if issubclass(found, App) else Widget()
        taken = {*dir(base), *(name for kind in found.__mro__[1:] for name in vars(kind))}
        clash = own_names(node) & taken - {"_on_key", "_on_paste"}
        assert not clash, f"{node.name} takes {clash}"

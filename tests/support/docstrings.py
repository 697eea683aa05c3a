"""What public functions leave unsaid: a parameter, an error that they raise, or all of it.

A parameter counts as explained if the docstring names it, in whatever sentence. Of a method that another one
explains it is enough to say where: "As in `Walker.cut`."
"""

from __future__ import annotations

import ast
import re

ELSEWHERE = re.compile(r"\bAs in `[\w.]+`")
# A command's docstring is its help, and a property's name is its sentence; of an overload the function tells.
SPEAKS_FOR_ITSELF = re.compile(r"(?:command|group|property|overload|setter)(?:\(|$)")


def public_functions(source):
    """Yield the public functions and methods of a module, each with its name in it."""
    yield from _within(ast.parse(source), "")


def _within(node, owner):
    for one in node.body:
        if not isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if one.name.startswith("_"):
            continue
        if isinstance(one, ast.ClassDef):
            yield from _within(one, f"{owner}{one.name}.")
        elif not any(SPEAKS_FOR_ITSELF.search(ast.unparse(each)) for each in one.decorator_list):
            yield f"{owner}{one.name}", one


def unsaid(function):
    """Return what the docstring of a function lacks; nothing if it says all.

    The name of a single parameter need not be in it: the sentence is about that. Of errors, it is enough that
    some are spoken of.
    """
    text = ast.get_docstring(function) or ""
    if not text:
        return ["a docstring"]
    if ELSEWHERE.search(text):
        return []
    names = parameters(function)
    lacking = [one for one in names if not re.search(rf"\b{one}", text)] if len(names) > 1 else []
    return lacking + ([] if re.search(r"\b[Rr]aise", text) else sorted(raised(function)))


def parameters(function):
    """Return the names of a function's parameters."""
    given = function.args
    several = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [one.arg for one in several if one is not None and one.arg not in {"self", "cls"}]


def raised(function):
    """Return the names of the errors that a function makes and raises itself."""
    found = (one.exc for one in ast.walk(function) if isinstance(one, ast.Raise) and one.exc is not None)
    names = (ast.unparse(getattr(one, "func", one)).rpartition(".")[2] for one in found)
    return {one for one in names if one[:1].isupper()}

"""The page on the record format: record.schema.json as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from closeseq.report.records import schema
from command_pages import escaped, in_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

Schema = dict[str, Any]
HEAD = """\
# The record format

`closeseq analyze CAPTURE -f jsonl` prints one record a connection, `-f json` one object a capture, and
`-f csv` the fields without lists. `closeseq.record(connection)` returns the same as a dictionary. Fields are
never renamed or removed. The schema itself, for validators: `closeseq/report/record.schema.json` in the
package.
"""


def schema_page() -> str:
    """Return the page."""
    whole = schema()
    parts = [HEAD, *_object("A record", whole)]
    for name, one in whole.get("$defs", {}).items():
        parts += _object(name, one)
    return "\n\n".join(parts) + "\n"


def _object(title: str, one: Schema) -> Iterator[str]:
    yield f"## {title}"
    if "description" in one:
        yield escaped(one["description"])
    rows = list(_rows(one, ""))
    if rows:
        yield "\n".join(["| field | type | |", "|---|---|---|", *rows])
    else:
        yield f"Type: {_type(one)}"


def _rows(one: Schema, prefix: str) -> Iterator[str]:
    """Yield a row for each field, those of objects within it after it."""
    required = one.get("required", [])
    for name, field in one.get("properties", {}).items():
        there = "" if name in required else " (not always)"
        cells = (f"`{prefix}{name}`{there}", _type(field), escaped(field.get("description", "")))
        yield f"| {' | '.join(map(in_cell, cells))} |"
        inner = field.get("items", field) if isinstance(field.get("items", field), dict) else field
        yield from _rows(inner, f"{prefix}{name}{'[]' if 'items' in field else ''}.")


def _type(one: Schema) -> str:
    """Return what a field may hold, in words."""
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in one:
        return f"`{one['const']}`"
    if "enum" in one:
        return ", ".join(f"`{value}`" if value is not None else "null" for value in one["enum"])
    for several in ("anyOf", "oneOf"):
        if several in one:
            return " or ".join(_type(each) for each in one[several])
    kind = one.get("type", "any")
    kinds = kind if isinstance(kind, list) else [kind]
    if "items" in one and isinstance(one["items"], dict):
        kinds = [f"list of {_type(one['items'])}" if each == "array" else each for each in kinds]
    return " or ".join(kinds)

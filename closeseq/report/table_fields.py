"""The columns of the tables for data frames and Parquet, as `closeseq explain tables` lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.tables.fields import ABOUT, TABLES, FieldType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.report.text import Style
    from closeseq.tables.fields import Field

NAME, TYPE = 17, 14  # columns of the terminal for these


def table_fields(style: Style) -> Iterator[str]:
    """Yield what each table and column is, in lines."""
    yield from style.wrap(ABOUT)
    for table in TABLES:
        yield ""
        for line in style.wrap(f"{table.name}: {table.meaning}", then="  "):
            yield style.paint(line, "heading")
        for field in table.fields:
            yield from style.wrap(_meaning(field), first=f"  {field.name:{NAME}} {field.type:{TYPE}} ")


def _meaning(field: Field) -> str:
    text = f"{field.meaning}, in {field.unit}" if field.unit else field.meaning
    if field.missing:
        text += f" (null: {field.missing})"
    if field.type is FieldType.WORD:
        text += f": {', '.join(field.words)}"
    return text

"""The tables as Parquet files in a folder, written row group by row group: memory does not grow with them."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from closeseq.errors import TablesError
from closeseq.tables.columns import Codes, tabulated
from closeseq.tables.fields import TABLES, Field, FieldType, TableOf

if TYPE_CHECKING:
    from collections.abc import Iterable

    from closeseq.connection import Connection
    from closeseq.tables.columns import TableColumn

ROW_GROUP = 1 << 16  # rows of each but the last
INSTALL = "pip install 'closeseq[tables]'"
SUFFIX = ".parquet"


def arrow() -> Any:
    """Return pyarrow. Raises TablesError where it is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise TablesError(f"Parquet needs pyarrow, which is not installed; {INSTALL}") from error
    del pyarrow
    return pa


def arrow_tables(connections: Iterable[Connection]) -> list[Any]:
    """Return connections as tables of pyarrow, one for each of TABLES; as `tabulated` does."""
    pa = arrow()
    return [
        pa.Table.from_arrays(
            [_arrow_array(pa, field, columns[field.name]) for field in table.fields],
            schema=arrow_schema(table),
        )
        for table, columns in zip(TABLES, tabulated(connections), strict=True)
    ]


def arrow_schema(table: TableOf) -> Any:
    """Return the columns of a table as pyarrow knows them; their meanings are in the fields' metadata."""
    pa = arrow()
    return pa.schema(
        [
            pa.field(
                field.name,
                _arrow_type(pa, field),
                nullable=bool(field.missing),
                metadata={"meaning": field.meaning, **({"unit": field.unit} if field.unit else {})},
            )
            for field in table.fields
        ]
    )


def _arrow_type(pa: Any, field: Field) -> Any:
    if field.type is FieldType.WORD:
        return pa.dictionary(pa.int8(), pa.string())
    return pa.timestamp("ns", tz="UTC") if field.type is FieldType.TIME else getattr(pa, field.type.value)()


def _arrow_array(pa: Any, field: Field, column: TableColumn) -> Any:
    kind = _arrow_type(pa, field)
    if isinstance(column, Codes):
        gone = column.code < 0 if field.missing else None
        found = pa.DictionaryArray.from_arrays(
            pa.array(column.code, mask=gone), pa.array(column.words, pa.string())
        )
        return found if field.type is FieldType.WORD else found.cast(pa.string())
    if not isinstance(column, np.ndarray):
        return pa.array(column, kind)
    if field.type is FieldType.TIME:
        return pa.array(column.view(np.int64)).cast(kind)
    if not field.missing:
        return pa.array(column, kind)
    gone = np.isnan(column)
    if field.type is FieldType.NUMBER:
        return pa.array(column, kind, mask=gone)
    return pa.array(np.where(gone, 0, column).astype(np.int64), kind, mask=gone)


class ParquetFolder:
    """A folder to which the tables are written, each as one file: `connections.parquet` and so on.

    Each file has another name until all are complete: leaving the `with` block gives them their own if `keep`
    is set by then, and removes them otherwise.

    Args:
        path: the folder, which is made if there is none.
        force: whether files that an earlier run has left there may be replaced.

    Raises:
        TablesError: they may not, the folder cannot be written to, or pyarrow is not installed.
    """

    def __init__(self, path: str, *, force: bool = False) -> None:
        self.keep = False
        self._pa = arrow()
        self._folder, self._name = Path(path), path
        self._files = {table.name: self._folder / f"{table.name}{SUFFIX}" for table in TABLES}
        self._refuse(force=force)
        self._force = force
        mark = secrets.token_hex(8)
        self._temporary = {name: self._folder / f".closeseq.{mark}.{name}" for name in self._files}
        self._writers: list[Any] = []
        self._waiting: list[list[Any]] = [[] for _ in TABLES]
        self._made = not self._folder.exists()

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for table in TABLES:
                self._writers.append(
                    self._pa.parquet.ParquetWriter(
                        self._temporary[table.name],
                        arrow_schema(table),
                        compression="zstd",
                        compression_level=1,
                    )
                )
        except OSError as error:
            self._discard()
            raise self._error(error) from error
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        try:
            if failed is None and self.keep:
                self._finish()
        except OSError as error:
            raise self._error(error) from error
        finally:
            self._discard()

    def write(self, tables: list[Any]) -> None:
        """Add the rows of `arrow_tables`.

        Args:
            tables: of pyarrow, one for each of TABLES.

        Raises:
            TablesError: they cannot be written.
        """
        for place, table in enumerate(tables):
            self._waiting[place].append(table)
            if sum(map(len, self._waiting[place])) >= ROW_GROUP:
                self._put(place)

    def _put(self, place: int, least: int = ROW_GROUP) -> None:
        """Write what waits for a file, in whole row groups; with `least` 1 all of it."""
        waiting = self._pa.concat_tables(self._waiting[place])
        at = 0
        try:
            while len(waiting) - at >= least:
                group = waiting.slice(
                    at, ROW_GROUP
                ).combine_chunks()  # or the bytes would depend on the chunks
                self._writers[place].write_table(group, row_group_size=ROW_GROUP)
                at += ROW_GROUP
        except OSError as error:
            raise self._error(error) from error
        self._waiting[place] = [waiting.slice(at)]

    def _finish(self) -> None:
        for place, writer in enumerate(self._writers):
            if self._waiting[place]:
                self._put(place, 1)
            writer.close()
        self._refuse(force=self._force)
        for name, path in self._files.items():
            self._temporary[name].replace(path)

    def _discard(self) -> None:
        """Remove what is not complete."""
        for writer in self._writers:
            with contextlib.suppress(OSError):  # the disk is full, which was reported
                writer.close()
        for path in self._temporary.values():
            with contextlib.suppress(OSError):  # it has its own name by now, or there never was one
                path.unlink()
        if self._made and self._folder.is_dir():
            with contextlib.suppress(OSError):  # it is not empty
                self._folder.rmdir()

    def _refuse(self, *, force: bool) -> None:
        if self._folder.exists() and not self._folder.is_dir():
            raise TablesError(f"{self._name} is a file; name a directory")
        for path in self._files.values():
            if path.exists() and not force:
                raise TablesError(f"{path} exists already; --force overwrites it")

    def _error(self, error: OSError) -> TablesError:
        return TablesError(f"{self._name} cannot be written to: {error.strerror or error}")

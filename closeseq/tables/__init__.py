"""Connections as tables, for pandas, polars, DuckDB and whatever reads Parquet.

fields   the four tables: names, types, units and meaning of all columns; begin reading here
columns  connections as these columns
parquet  the columns as files, row group by row group
"""

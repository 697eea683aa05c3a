"""Whether records keep to their schema, which is read and compiled once."""

from __future__ import annotations

from functools import cache

import jsonschema

from closeseq.report.records import schema


@cache
def validator():
    return jsonschema.Draft202012Validator(schema())


def assert_valid(told):
    """Raise the error of a record that does not keep to the schema."""
    validator().validate(told)

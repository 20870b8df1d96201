"""The Python API: each operation as a function with keyword arguments, named and typed as its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sizeup.errors import BadInput
from sizeup.operations.table import Operation, find_operation


def as_function(name: str) -> Callable[..., msgspec.Struct]:
    """The operation as a function: `show(model, **fields)`; the positional argument comes first if it has one."""
    operation = find_operation(name)

    def function(*positional: Any, **fields: Any) -> msgspec.Struct:
        return operation.call(make_request(operation, positional, fields))

    function.__name__ = operation.name.replace(" ", "_")
    function.__doc__ = operation.help
    return function


def make_request(operation: Operation, positional: tuple[Any, ...], fields: dict[str, Any]) -> msgspec.Struct:
    """Build and check the request. Unknown fields and wrong types raise BadInput with the field's name."""
    if positional:
        if operation.argument is None or len(positional) > 1:
            raise BadInput(f"{operation.name} takes keyword arguments", hint="name each argument")
        fields = {operation.argument: positional[0], **fields}
    request_type = operation.request_type
    unknown = sorted(set(fields) - set(request_type.__struct_fields__))
    if unknown:
        raise BadInput(
            f"{operation.name} has no argument {unknown[0]!r}",
            hint=f"it has: {', '.join(request_type.__struct_fields__)}",
        )
    try:
        return msgspec.convert(fields, request_type, strict=True)
    except msgspec.ValidationError as error:
        raise BadInput(f"{operation.name}: {error}", hint=f"see `sizeup {operation.name} --help`") from error

"""From a request type to the options of a command: every field becomes one, with its help from the field's `Meta`."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import msgspec

#: Options that every command has, beside those of its request.
SHARED = ("json", "explain", "debug")


def parameters(request: type[msgspec.Struct], argument: str | None) -> list[click.Parameter]:
    """The click parameters of a request type; `argument` names the field that is positional."""
    hints = get_type_hints(request, include_extras=True)
    return [
        _argument(field) if field.name == argument else _option(field, hints[field.name])
        for field in msgspec.structs.fields(request)
    ]


def _argument(field: msgspec.structs.FieldInfo) -> click.Argument:
    required = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
    return click.Argument([field.name], required=required, metavar=field.name.upper())


def _option(field: msgspec.structs.FieldInfo, hint: Any) -> click.Option:
    help_, hint = _described(hint)
    flag = f"--{field.name.rstrip('_').replace('_', '-')}"
    kind = _kind(hint)
    default = None if field.default is msgspec.NODEFAULT else field.default
    if kind is bool:
        both = flag if default is False else f"{flag}/--no-{flag.removeprefix('--')}"
        return click.Option([both, field.name], is_flag=True, default=default, help=help_)
    if get_origin(kind) is Literal and default is False:
        choices = list(get_args(kind))
        return click.Option(
            [flag, field.name], type=click.Choice(choices), is_flag=False, flag_value=choices[0], default=None,
            help=help_, callback=lambda _ctx, _option, value: value or False,
        )  # fmt: skip
    if get_origin(kind) is Literal:
        return click.Option([flag, field.name], type=click.Choice(list(get_args(kind))), default=default, help=help_)
    if get_origin(kind) is tuple:
        return click.Option([flag, field.name], type=_scalar(get_args(kind)[0]), multiple=True, help=help_)
    shown = default is not None and default != ""
    return click.Option([flag, field.name], type=_scalar(kind), default=default, show_default=shown, help=help_)


def _described(hint: Any) -> tuple[str, Any]:
    """The description in a hint's `Meta`, and the hint without it."""
    if get_origin(hint) is Annotated:
        inner, *metas = get_args(hint)
        return next((m.description for m in metas if isinstance(m, msgspec.Meta) and m.description), ""), inner
    return "", hint


def _kind(hint: Any) -> Any:
    """The one kind a command line can give: `int | None` → int, `str | dict` → str."""
    if get_origin(hint) in {Union, types.UnionType}:
        kinds = [_described(kind)[1] for kind in get_args(hint) if kind is not type(None)]
        return next((kind for kind in kinds if kind is str or get_origin(kind) is Literal), kinds[0])
    return hint


def _scalar(kind: Any) -> Any:
    return kind if kind in {int, float, str} else str

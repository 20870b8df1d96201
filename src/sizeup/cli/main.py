"""The command line: parse, call the operation, render. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import click
import msgspec

from sizeup import __version__
from sizeup.cli.options import parameters
from sizeup.cli.progress import shown_progress
from sizeup.errors import BadInput, SizeupError
from sizeup.operations.table import OPERATIONS, Operation


class Commands(click.Group):
    """The operations as commands; each is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """First words of the names, in the order of the table."""
        return list(dict.fromkeys(operation.name.partition(" ")[0] for operation in OPERATIONS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of that name; the group of commands whose names begin with it (`engine list`)."""
        operation = next((o for o in OPERATIONS if o.name == cmd_name), None)
        members = [o for o in OPERATIONS if o.name.startswith(f"{cmd_name} ")]
        if members:
            return _group(cmd_name, members, operation)
        return None if operation is None else command_of(operation)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(operation.name, operation.help) for operation in OPERATIONS])


def _group(word: str, members: Sequence[Operation], operation: Operation | None) -> click.Group:
    """Commands of one first word; the operation of that very name, if there is one, runs when no other is asked for."""
    commands = {member.name.partition(" ")[2]: command_of(member) for member in members}
    help_ = "\n\n".join(f"{o.name}: {o.help}" for o in members)
    if operation is None:
        return click.Group(word, commands=commands, help=help_)
    alone = command_of(operation)

    def run(ctx: click.Context, **options: Any) -> Any:
        if ctx.invoked_subcommand is None and alone.callback is not None:
            return alone.callback(**options)
        return None

    return click.Group(
        word, commands=commands, params=alone.params, callback=click.pass_context(run), invoke_without_command=True,
        help=f"{alone.help}\n\n{help_}", short_help=operation.help,
    )  # fmt: skip


def command_of(operation: Operation) -> click.Command:
    """The command of an operation: its request's fields as options, and those that all commands share."""
    shared = [
        click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON, with a versioned schema."),
        click.Option(["--explain"], is_flag=True, help="Print how every number came about."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    ]
    return click.Command(
        operation.name.rpartition(" ")[2],
        params=[*parameters(operation.request_type, operation.argument), *shared],
        callback=lambda **options: _perform(operation, **options),
        help=(import_module(operation.module).__doc__ or operation.help).strip(),
        short_help=operation.help,
    )


def _perform(operation: Operation, *, as_json: bool, explain: bool, debug: bool, **fields: Any) -> int:
    try:
        given = {name: value for name, value in fields.items() if value is not None}
        if explain and "itemise" in given:
            given["itemise"] = True
        request = msgspec.convert(given, operation.request_type, strict=False)
        with shown_progress():
            result = operation.call(request)
    except SizeupError as error:
        return 1 if debug and _reraise(error) else report(error, as_json=as_json)
    except msgspec.ValidationError as error:
        return report(BadInput(str(error), hint=f"see `sizeup {operation.name} --help`"), as_json=as_json)
    except Exception as error:  # a defect of sizeup itself: said in a line, never as a traceback
        if debug:
            raise
        shown = f"{type(error).__name__}: {error}"
        return report(
            SizeupError(f"unexpected {shown}", hint="run it again with --debug and report it"), as_json=as_json
        )
    face = import_module(f"sizeup.cli.render_{operation.name.replace(' ', '_')}")
    follow_json = getattr(face, "follow_json", None) if as_json else None
    if follow_json is not None:
        return _followed(follow_json, result, as_json=True)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        click.echo("\n".join(face.render(result, explain=explain)))
    follow = getattr(face, "follow", None)
    if follow is not None:
        return _followed(follow, result, as_json=as_json)
    return int(getattr(result, "exit_code", 0))


def _followed(follow: Callable[[Any], int], result: msgspec.Struct, *, as_json: bool) -> int:
    """What goes on after the answer: a server that runs, a chat. The exit code."""
    try:
        return follow(result)
    except SizeupError as error:
        return report(error, as_json=as_json)


def _reraise(error: SizeupError) -> bool:
    raise error


def report(error: SizeupError, *, as_json: bool = False) -> int:
    """Print an error and its hint to stderr (and as JSON to stdout when JSON was asked for); return its exit code."""
    if as_json:
        body = {"schema": "sizeup.error/1", "error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        click.echo(msgspec.json.encode(body).decode())
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
    if error.hint:
        click.echo(f"\n{click.style('hint:', fg='cyan', bold=True)} {error.hint}", err=True)
    return error.exit_code


def _root(ctx: click.Context) -> int | None:
    """Without a command, `sizeup` advises on this machine."""
    if ctx.invoked_subcommand is not None:
        return None
    command = command_of(OPERATIONS[0])
    with command.make_context("sizeup", [], parent=ctx) as child:
        return int(command.invoke(child))


ROOT = Commands(
    "sizeup",
    callback=click.pass_context(_root),
    invoke_without_command=True,
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=lambda c, _, v: _version(c, v)
        )
    ],
    help="What a language model will weigh, how fast it will run and how good it will be, on your hardware.",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": None},
)


def _version(ctx: click.Context, wanted: bool) -> None:
    if wanted:
        click.echo(f"sizeup {__version__}")
        ctx.exit(0)


def _colour() -> bool | None:
    """NO_COLOR forbids colours, FORCE_COLOR asks for them; otherwise a terminal decides."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code: 0 yes, 1 failure, 2 usage, 3 no, 4 not found, 5 network, 6 missing part."""
    try:
        result = ROOT.main(list(arguments), prog_name="sizeup", standalone_mode=False, color=_colour())
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0

"""The `triparty` command: finds the role, loads it, turns errors into exit codes.

A role's commands are imported when one of them is used, so that `triparty --help` answers at
once and a device needs nothing of a cloud.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, NamedTuple, NoReturn

import click
import typer
from typer.core import TyperGroup

from triparty.common.errors import SettingsError, TripartyError

EXIT_FAILURE = 1
EXIT_USAGE = 2


class _Lazy(NamedTuple):
    module: str
    help: str


_LAZY = {
    "demo": _Lazy("triparty.common.demo", "All three roles on this machine, real sockets."),
    "developer": _Lazy(
        "triparty.developer.cli", "Re-key a model, publish it, invite devices (P1)."
    ),
    "cloud": _Lazy("triparty.cloud.cli", "Serve re-keyed models (P2)."),
    "device": _Lazy("triparty.device.cli", "Ask with keyed rows, un-key the answers (P3)."),
}
# Which extra brings a module that only some commands of the device need.
_DEVICE_EXTRAS = {"av": "camera", "onnxruntime": "camera", "torch": "train"}


class _LazyGroup(TyperGroup):
    """A group that imports a role's commands when the role is used, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_LAZY)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = _LAZY.get(cmd_name)
        return lazy and click.Command(cmd_name, help=lazy.help)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        lazy = _LAZY.get(args[0])
        if lazy is None:
            return super().resolve_command(ctx, args)
        app = importlib.import_module(lazy.module).app
        command = typer.main.get_command(app)
        command.name = args[0]
        return args[0], command, args[1:]


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"triparty {version('triparty')}")
        raise typer.Exit


@app.callback()
def triparty(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Three parties that do not trust each other with everything run AI models together.

    The developer re-keys a model, the cloud serves it, the device reads the answers.

    This is re-keying, not encryption; see `triparty developer audit`.
    """


def main() -> NoReturn:
    """Runs the command line; exit code 0, 1 for a failure, 2 for a usage error."""
    if not all(map(_is_text, sys.argv[1:])):
        _fail("an argument is not valid UTF-8", EXIT_USAGE)
    try:
        code = app(prog_name="triparty", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        typer.echo(error.format_message(), err=True)
        sys.exit(EXIT_USAGE)
    except click.UsageError as error:
        where = f"; see '{error.ctx.command_path} --help'" if error.ctx else ""
        _fail(error.format_message().rstrip(".") + where, EXIT_USAGE)
    except SettingsError as error:
        _fail(error.message, EXIT_USAGE)
    except TripartyError as error:
        _fail(error.message, EXIT_FAILURE)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("triparty"):
            raise
        _fail(_not_installed(missing.name or "a module"), EXIT_FAILURE)
    except (click.Abort, KeyboardInterrupt):
        _fail("stopped", 130)
    except BrokenPipeError:
        sys.stderr.close()
        code = EXIT_FAILURE
    except OSError as error:  # a full disk, a folder of somebody else's
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", EXIT_FAILURE)
    sys.exit(code if isinstance(code, int) else 0)


def _is_text(argument: str) -> bool:
    """Whether an argument was UTF-8; Python carries other bytes as lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in argument)


def _not_installed(module: str) -> str:
    """What to install when a role's library is absent."""
    role = next((word for word in sys.argv[1:] if word in _LAZY), "all")
    extra = "developer,cloud,device" if role == "demo" else role
    if module.partition(".")[0] == "flwr":
        extra = "federation"
    elif role == "device":
        extra = _DEVICE_EXTRAS.get(module.partition(".")[0], role)
    return f"'triparty {role}' needs {module}: pip install 'triparty[{extra}]'"


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"triparty: {' '.join(message.split())}", err=True)
    sys.exit(code)

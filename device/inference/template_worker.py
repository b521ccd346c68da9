"""The process that renders chat templates: `chat_template` starts it and bounds it.

It reads a request a line, `{"template": ..., "variables": {...}}`, and answers a line:
`{"text": ...}`, or `{"refused": ..., "why": ...}`; `refused` if the template itself raised the
error. CPU time, memory and output are bounded, and it can open no further files.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

CPU_S = 3.0
MEMORY_BYTES = 512 << 20
MAX_TEXT_CHARACTERS = 8 << 20
_WARMING = (
    "{{ 'a\\n' | wordwrap(1) }}{{ strftime_now('%B') }}",
    "{{ messages | tojson | pprint | urlize }}",
    "{{ raise_exception('') }}",
    "{{ messages[0].content }}",
    "{% broken",
)


class Refused(Exception):  # noqa: N818 says what happened, is no failure of ours
    """What a template raises with `raise_exception`."""


def main() -> None:
    """Answers requests until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    compiled: dict[str, Template] = {}
    for source in _WARMING:  # whatever is imported late is imported now
        _answered({"template": source, "variables": {"messages": []}}, compiled)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, CPU_S)  # its signal ends the process
        answer = _answered(json.loads(line), compiled)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _answered(request: dict[str, Any], compiled: dict[str, Template]) -> dict[str, Any]:
    from jinja2 import TemplateError

    try:
        template = _compiled(request["template"], compiled)
        text = template.render(request["variables"])
    except Refused as error:
        return {"refused": True, "why": str(error)[:500]}
    except TemplateError as error:
        return {"refused": False, "why": f"{type(error).__name__}: {error}"[:500]}
    except MemoryError:
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 a template can raise whatever it likes
        return {"refused": False, "why": f"{type(error).__name__}: {error}"[:500]}
    if len(text) > MAX_TEXT_CHARACTERS:
        sys.exit(1)
    return {"text": text}


def _compiled(source: str, compiled: dict[str, Template]) -> Template:
    if source not in compiled:
        compiled[source] = _environment().from_string(source)
    return compiled[source]


def _environment() -> Any:
    """Jinja as `transformers` sets it up for chat templates."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}`: marks an answer for training; its text stays."""

        tags = {"generation"}  # noqa: RUF012 as Jinja wants it

        def parse(self, parser: Parser) -> nodes.Node:
            next(parser.stream)
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body)

    class PlainNamespace(Namespace):
        """`namespace()` without names that begin with an underscore."""

        def __init__(*args: Any, **members: Any) -> None:
            self, *given = args
            attributes = dict(*given, **members)
            for name in attributes:
                _check_name(name)
            Namespace.__init__(self, attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            _check_name(name)
            super().__setitem__(name, value)

    def _check_name(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a name in a namespace begins with an underscore: {name!r}")

    class PlainDict:
        """`dict()` without the class behind it."""

        def __call__(self, *args: Any, **members: Any) -> dict[Any, Any]:
            return dict(*args, **members)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": _now,
        "dict": PlainDict(),
        "namespace": PlainNamespace,
    }
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML's escapes."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    raise Refused(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


if __name__ == "__main__":
    main()

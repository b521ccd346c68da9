"""Chat templates: the text of `transformers`, and no harm from hostile ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from triparty.common.errors import CheckpointError, RequestError
from triparty.device.inference import chat_template
from triparty.device.inference.chat_template import ChatTemplate

# In the ways in which published templates are written.
TEMPLATES = {
    "marked turns": (
        "{% for message in messages %}"
        "{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>' + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
    ),
    "instructions in brackets": """{{ bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system is defined %}
            {{- ' [INST] <<' + system + '>> ' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}""",
    "headers and a date": """{{- bos_token }}
{%- if not date is defined %}
    {%- if strftime_now is defined %}{% set date = strftime_now("%Y-%m") %}{% else %}
    {% set date = "2024" %}{% endif %}
{%- endif %}
{%- set ns = namespace(seen=0, roles=[]) %}
{{- "<head>system</head>\n\nToday: " + date + "\n" }}
{%- for message in messages if message.role != 'system' %}
    {%- set ns.seen = ns.seen + message.content | length %}
    {%- if loop.index > 10 %}{% break %}{% endif %}
    {{- '<head>' + message['role'] + '</head>\n\n' + message['content'] | trim + '<eot>' }}
{%- endfor %}
{{- ns.seen ~ "|" ~ (tools is none) ~ "|" ~ messages | tojson(indent=2) }}
{%- if add_generation_prompt %}{{ '<head>assistant</head>\n\n' }}{% endif %}""",
    "macros, filters and tools": """{% macro show(message) -%}
<{{ message.role | upper }}{% if message.name is defined %} {{ message.name }}{% endif %}>
{{- message.content | replace('\n', ' ') }}
{%- endmacro %}
{% for message in messages %}
    {% generation %}
{{ show(message) }}
    {% endgeneration %}
{% endfor %}
{% if tools %}{{ tools | map(attribute='name') | join(', ') }}{% endif %}
{{ dict(a=1, b=[1, 2]) | tojson }} {{ messages | map(attribute='role') | unique | list }}
{% for key, value in messages[0].items() | sort %}{{ key }}={{ value }};{% endfor %}
{%- if add_generation_prompt %}<ASSISTANT>{% endif %}""",
}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [{"role": "user", "content": '  Hello, "world" <b>&\u00fc\U0001f642  \n'}],
    "with a system": [
        {"role": "system", "content": " Be short. "},
        {"role": "user", "content": "Who?", "name": None},
        {"role": "assistant", "content": "Me."},
        {"role": "user", "content": "{{ 7 * 7 }} {% raw %}"},
    ],
    "with a name": [
        {"role": "user", "content": "a\nb", "name": "Zoe"},
        {"role": "assistant", "content": ""},
    ],
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture
def rendered() -> Iterator[Any]:
    made: list[ChatTemplate] = []

    def render(source: str, messages: list[dict[str, Any]], **options: bool) -> str:
        made.append(ChatTemplate(source, SPECIAL))
        return made[-1].render(messages, **options)

    yield render
    for template in made:
        template.close()


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_text_is_that_of_transformers(
    name: str, conversation: str, prompted: bool, rendered: Any, stories_model: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories_model)
    messages = CONVERSATIONS[conversation]
    expected = tokenizer.apply_chat_template(
        messages,
        chat_template=TEMPLATES[name],
        tokenize=False,
        add_generation_prompt=prompted,
    )
    assert rendered(TEMPLATES[name], messages, add_generation_prompt=prompted) == expected
    assert messages[0]["content"].strip()[:5] in expected


def test_what_a_template_refuses_is_told(rendered: Any) -> None:
    twice = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(RequestError, match="roles must alternate"):
        rendered(TEMPLATES["instructions in brackets"], twice)
    with pytest.raises(RequestError, match="at least one message"):
        rendered(TEMPLATES["marked turns"], [])
    with pytest.raises(RequestError, match="plain JSON"):
        rendered(TEMPLATES["marked turns"], [{"role": "user", "content": object()}])


ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__.items() }}",
    "attr filter": "{{ ''|attr('__class__') }}{{ (''|attr('__class__')).__mro__ }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "mutation": "{% set _ = messages.append(1) %}",
    "namespace": "{% set n = namespace(__class__=1) %}",
    "namespace item": "{% set n = namespace() %}{% set n.__init__ = 1 %}",
    "dict class": "{{ dict.__class__.__mro__[1].__subclasses__() }}",
    "syntax": "{% for %}",
    "unknown": "{{ open('/etc/passwd').read() }}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
}


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES)
def test_a_template_that_reaches_out_is_broken(source: str, rendered: Any) -> None:
    with pytest.raises(CheckpointError, match="chat template is broken"):
        rendered(source, CONVERSATIONS["one turn"])


BOMBS = {
    "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "one operation": "{{ (9 ** 99999) ** 99999 }}",
    "memory": "{{ 'a' * 9999999999 }}",
    "doubling": "{% set n = namespace(a='x') %}{% for i in range(60) %}"
    "{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a | length }}",
    "output": "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "width": "{{ '%9999999999d' % 1 }}",
}


# Seconds of CPU; one operation, which no look at a clock interrupts, shows the same bound.
SLOW_BOMBS = ("time",)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, id=name, marks=[pytest.mark.slow] if name in SLOW_BOMBS else [])
        for name, source in BOMBS.items()
    ],
)
def test_a_template_without_measure_ends_in_an_error(source: str, rendered: Any) -> None:
    with pytest.raises(CheckpointError, match="chat template"):
        rendered(source, CONVERSATIONS["one turn"])


def test_after_a_bomb_the_next_conversation_is_rendered() -> None:
    template = ChatTemplate(
        "{% if messages[0].content == 'bomb' %}{{ 'a' * 99999999 }}{% else %}ok{% endif %}", {}
    )
    assert template.render([{"role": "user", "content": "hello"}]) == "ok"
    with pytest.raises(CheckpointError, match="hostile"):
        template.render([{"role": "user", "content": "bomb"}])
    assert template.render([{"role": "user", "content": "hello"}]) == "ok"
    template.close()


def test_the_process_ends_with_its_template() -> None:
    template = ChatTemplate("ok", {})
    template.render(CONVERSATIONS["one turn"])
    assert template._worker is not None
    pid = template._worker.pid
    os.kill(pid, 0)
    del template
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_process_has_no_secrets_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPARTY_DEVICE_PASSPHRASE", "open sesame")
    template = ChatTemplate("ok", {})
    template.render(CONVERSATIONS["one turn"])
    assert template._worker is not None
    environment = Path(f"/proc/{template._worker.pid}/environ").read_bytes()
    template.close()
    assert b"PATH=" in environment
    assert b"sesame" not in environment


def test_special_tokens_come_from_the_tokenizers_configuration(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer_config.json"
    written = {"bos_token": {"content": "<b>", "lstrip": False}, "eos_token": "<e>"}
    file.write_text(json.dumps(written | {"add_bos_token": True, "pad_token": None}))
    assert chat_template._special_tokens(file) == {"bos_token": "<b>", "eos_token": "<e>"}
    assert chat_template._special_tokens(tmp_path / "absent") == {}
    file.write_text("[]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        chat_template._special_tokens(file)

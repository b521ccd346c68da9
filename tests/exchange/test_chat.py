"""`triparty device chat` as somebody sits there, and through a pipe."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from terminal import CTRL_C, CTRL_D, on_a_terminal

from triparty.common.errors import RequestError
from triparty.developer.protect import protect
from triparty.device import Device, GenerationOptions
from triparty.device.chat.dialogue import Dialogue
from triparty.device.inference.generation import Generation
from triparty.device.inference.kept import Kept
from triparty.device.inference.shields import Shields
from triparty.device.inference.traffic import Traffic

TEMPLATE = (
    "{% for m in messages %}{{ bos_token if loop.first }}{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Stage:
    """A cloud with a model that knows conversations, and a device that has it."""

    cloud: LiveCloud
    device: Device

    @property
    def home(self) -> Path:
        return self.device._home.folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("chat")
    source = folder / "source"
    source.mkdir()
    for file in stories_model.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "chat_template.jinja").write_text(TEMPLATE)
    protect(str(source), folder / "talk")
    protect(str(stories_model), folder / "plain")
    with running_cloud(folder / "cloud") as cloud:
        developer = Developer.new(cloud, folder / "acme")
        developer.enroll()
        device, _ = developer.device("phone")
        for name in ("talk", "plain"):
            developer.publish(folder / name, name)
            developer.grant("phone", name)
        device.pull()
        device.generate("talk", "a", max_tokens=1)  # the cloud loads the model
        yield Stage(cloud, device)


def expected(stage: Stage, *turns: str, tokens: int = 12) -> list[str]:
    """The answers to turns, each asked with everything before it."""
    messages: list[dict[str, str]] = []
    answers = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        answers.append(stage.device.generate("talk", messages, max_tokens=tokens).text)
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers


def piped(stage: Stage, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "triparty.common", "device", "chat", "talk"),
            *("--home", str(stage.home), "--temperature", "0", *options),
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_through_a_pipe_only_answers_are_written(stage: Stage) -> None:
    first, second = expected(stage, "Tell a story", "Go\non")
    done = piped(stage, 'Tell a story\n\n"""Go\non"""\n', "--max-tokens", "12")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{first.lstrip()}\n{second.lstrip()}\n"
    document = json.loads(piped(stage, "Tell a story\n", "--max-tokens", "12", "--json").stdout)
    assert document["model"] == "talk"
    assert [turn["answer"] for turn in document["turns"]] == [first]


def test_in_a_pipe_an_error_is_the_end(stage: Stage) -> None:
    done = piped(stage, f"{'long ' * 600}\nnever asked\n")
    assert done.returncode == 1
    assert "512 positions" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_conversation_at_the_terminal(stage: Stage, tmp_path: Path) -> None:
    first, second = expected(stage, "Tell a story", "Go\non")
    saved = tmp_path / "talk.json"
    words = ("device", "chat", "talk", "--home", stage.home, "--temperature", "0")
    with on_a_terminal(*words, "--max-tokens", "12") as terminal:
        terminal.until("/help lists what you can do\n> ")
        terminal.type("Tell a story")
        assert first.strip().split("\n")[-1] in terminal.until("\n> ")
        terminal.type("/privacy")
        told = terminal.until("\n> ")
        assert re.search(r"got \d+ keyed rows of 64 numbers", told)
        assert "not encryption" in told
        terminal.type("Go\\")
        terminal.until(r"\n\. ")
        terminal.type("on")
        assert second.strip().split("\n")[-1] in terminal.until("\n> ")
        terminal.type("/nonsense")
        assert "was not sent" in terminal.until("\n> ")
        terminal.type("/help")
        assert "/privacy" in terminal.until("\n> ")
        terminal.type(f"/save {saved}")
        terminal.until(r"written to .*\n> ")
        terminal.type(f"/save {saved}")
        terminal.until(r"is there already.*\n> ")
        terminal.type("/clear")
        terminal.until("new conversation.*\n> ")
        terminal.type("/privacy")
        assert "Nothing was sent" in terminal.until("\n> ")
        terminal.type("Tell a story")
        assert first.strip().split("\n")[-1] in terminal.until("\n> ")
        terminal.type(CTRL_D)
    document = json.loads(saved.read_text())
    assert [one["content"] for one in document["messages"]] == [
        "Tell a story",
        first,
        "Go\non",
        second,
    ]
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


def test_ctrl_c_stops_the_answer_and_not_the_program(stage: Stage) -> None:
    serving = stage.cloud.app.state.serving
    # No end of its own: no stop is drawn before the model's last position.
    words = ("device", "chat", "talk", "--home", stage.home, "--temperature", "9")
    with on_a_terminal(*words) as terminal:
        terminal.until("\n> ")
        terminal.type("Tell a story")
        terminal.until(r"Tell a story\n[^\n]")
        terminal.type(CTRL_C)
        terminal.until(r"\(stopped\)\n> ")
        terminal.type("/privacy")
        assert "keyed rows" in terminal.until("\n> ")
        terminal.type(b"half a line")
        terminal.until("half a line")
        terminal.until(r"Ctrl-D leaves\)\n> ", again=CTRL_C)
        terminal.type("/exit")
    while serving.session_count():  # bounded by the test's own limit
        time.sleep(0.01)


def test_an_error_at_the_terminal_ends_the_turn_alone(stage: Stage) -> None:
    words = ("device", "chat", "talk", "--home", stage.home, "--max-tokens", "4")
    with on_a_terminal(*words) as terminal:
        terminal.until("\n> ")
        terminal.type("\\\n".join(["long " * 60] * 12))
        terminal.until(r"512 positions[^>]*\n> ")
        terminal.type("Tell a story")
        terminal.until("\n> ")
        terminal.type("/exit")


def test_a_model_without_a_template_is_refused(stage: Stage) -> None:
    with pytest.raises(RequestError, match="triparty device generate"):
        Dialogue(stage.device, "plain", GenerationOptions())


def test_the_oldest_turns_are_left_out_when_there_is_no_room(stage: Stage) -> None:
    dialogue = Dialogue(stage.device, "talk", GenerationOptions(max_tokens=4), system="Be kind")
    for number in range(12):
        list(dialogue.ask(f"Question {number} about a little dog and a big red ball"))
    assert dialogue.forgotten
    assert len(dialogue.turns) == 24
    told = dialogue.messages
    assert [one["role"] for one in told[:2]] == ["system", "user"]
    assert told[0]["content"] == "Be kind"
    assert told[-2]["content"].startswith("Question 11")
    assert len(told) == 1 + 24 - 2 * dialogue.forgotten
    dialogue.clear()
    assert dialogue.messages == [{"role": "system", "content": "Be kind"}]


def test_a_turn_that_fails_was_not_asked(stage: Stage) -> None:
    dialogue = Dialogue(stage.device, "talk", GenerationOptions(max_tokens=4))
    list(dialogue.ask("Hello"))
    before = list(dialogue.turns)
    with pytest.raises(RequestError, match="512 positions"):
        list(dialogue.ask("long " * 600))
    assert dialogue.messages == dialogue.turns == before
    dialogue.close()


def told(dialogue: Dialogue, *turns: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The answers to turns, and of each the sessions that it opened and the rows it sent."""
    answers, sent = [], []
    for turn in turns:
        (*_, said) = dialogue.ask(turn)
        assert isinstance(said, Generation)
        answers.append(said.text)
        sent.append((said.traffic.sessions, said.traffic.rows))
    return answers, sent


TURNS = ("Tell a story", "Go on", "And then?")


def test_a_turn_sends_what_is_new(stage: Stage) -> None:
    serving = stage.cloud.app.state.serving
    dialogue = Dialogue(stage.device, "talk", GenerationOptions(max_tokens=12))
    answers, sent = told(dialogue, *TURNS)
    assert answers == expected(stage, *TURNS)
    assert [sessions for sessions, _ in sent] == [1, 0, 0]
    assert serving.session_count() == 1
    whole = stage.device.generate("talk", dialogue.turns[:5], max_tokens=12).traffic.rows
    assert sum(rows for _, rows in sent) < whole * 1.3
    assert sent[2][1] < whole / 2
    dialogue.clear()
    assert serving.session_count() == 0
    answers, sent = told(dialogue, TURNS[0])
    assert (answers, sent[0][0]) == (expected(stage, TURNS[0]), 1)
    dialogue.close()
    assert serving.session_count() == 0


def test_a_session_that_was_lost_between_turns_is_replayed(stage: Stage) -> None:
    dialogue = Dialogue(stage.device, "talk", GenerationOptions(max_tokens=12))
    with closing(dialogue):
        first, _ = told(dialogue, TURNS[0])
        stage.cloud.app.state.serving.close_sessions_of(stage.device._home.access().principal)
        others, sent = told(dialogue, *TURNS[1:])
    assert [*first, *others] == expected(stage, *TURNS)
    assert [sessions for sessions, _ in sent] == [1, 0]


@pytest.mark.parametrize("changed", [0, 1])
def test_what_was_sent_and_is_not_said_is_taken_back(stage: Stage, changed: int) -> None:
    """Something else was said before: nothing of the old rows may show in the answer."""
    dialogue = Dialogue(stage.device, "talk", GenerationOptions(max_tokens=12))
    with closing(dialogue):
        told(dialogue, TURNS[0])
        dialogue.turns[changed]["content"] = "No."
        answers, sent = told(dialogue, TURNS[1])
        assert stage.cloud.app.state.serving.session_count() == 1
    assert sent[0][0] == 0
    alone = stage.device.generate("talk", dialogue.turns[:3], max_tokens=12)
    assert answers == [alone.text]
    assert sent[0][1] < alone.traffic.rows


@pytest.mark.parametrize("shields", [{"noise": 0.01}, {"block": 4}, {"to_bfloat16": True}])
def test_shields_stay_in_a_kept_session(stage: Stage, shields: dict[str, float]) -> None:
    """Blocks fill a session up behind an answer, so that the next turn cannot go on in it."""
    device = Device(stage.home, shields=Shields(**shields))
    with closing(Dialogue(device, "talk", GenerationOptions(max_tokens=6))) as dialogue:
        _, sent = told(dialogue, *TURNS[:2])
    assert sent[1][0] == (1 if "block" in shields else 0)


def test_a_guessed_answer_is_gone_on_from(stage: Stage) -> None:
    options = GenerationOptions(max_tokens=12, speculate=4)
    with closing(Dialogue(stage.device, "talk", options)) as dialogue:
        answers, sent = told(dialogue, *TURNS)
    assert answers == expected(stage, *TURNS)
    assert [sessions for sessions, _ in sent] == [1, 0, 0]


def test_a_bundle_of_another_version_begins_anew(stage: Stage) -> None:
    kept, turns = Kept(), [{"role": "user", "content": TURNS[0]}]
    stage.device.generate("talk", turns, max_tokens=2)
    list(stage.device.stream("talk", turns, max_tokens=2, kept=kept))
    session, turns = kept.session, [*turns, {"role": "user", "content": "Go on"}]
    assert session is not None
    assert kept.key is not None
    kept.key = (kept.key[0] + 1, kept.key[1])
    traffic = Traffic()
    list(stage.device.stream("talk", turns, max_tokens=2, kept=kept, traffic=traffic))
    assert traffic.sessions == 1
    assert kept.session is not None
    assert kept.session.id != session.id
    stage.device.end("talk", kept)
    assert stage.cloud.app.state.serving.session_count() == 0

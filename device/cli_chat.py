"""`triparty device chat`: a conversation at the terminal, or line by line through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console, JsonOption

if TYPE_CHECKING:
    from triparty.device.chat.dialogue import Dialogue
    from triparty.device.client import Device
    from triparty.device.inference.draft_model import DraftModel
    from triparty.device.inference.generation import Generation
    from triparty.device.inference.shields import Shields

HELP = """\
/help      this list                     /privacy   what the cloud saw of the last turn
/clear     begin a new conversation      /save FILE write it down, readable by you alone
/exit      leave (also Ctrl-D)           Ctrl-C     stop the answer, or drop what is typed
Several lines: end a line with \\, or type \"\"\" before the first and after the last."""
PROMPT, MORE = "> ", ". "


def chat(
    model: Annotated[str, typer.Argument(help="Name of a model with a chat template.")],
    system: Annotated[
        str | None, typer.Option(help="What the model is told before everything else.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of an answer (default: as many as fit).")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.7,
    top_k: Annotated[int, typer.Option(help="Draw among the k likeliest; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest with this sum.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="Draw among those with this share of the likeliest's.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1: tokens that were there before are less likely.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Repeats the draws.")] = None,
    speculate: Annotated[
        int, typer.Option(help="Guess up to this many tokens ahead in a step.")
    ] = 0,
    draft: Annotated[
        Path | None,
        typer.Option(help="Folder of a small model that guesses; needs triparty\\[draft]."),
    ] = None,
    home: Annotated[Path | None, typer.Option("--home", help="This device's folder.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Talk with a protected model; the cloud gets no word of it.

    In a pipe every line is a turn, and only the answers are written.
    """
    from triparty.device.chat.dialogue import Dialogue
    from triparty.device.inference.options import GenerationOptions
    from triparty.device.settings import DeviceSettings

    settings = DeviceSettings.load(config, home=home)
    shields = settings.shields()
    device = settings.device()
    options = GenerationOptions(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        max_tokens=max_tokens,
        speculate=speculate,
        draft=chosen_draft(device, model, draft),
    )
    dialogue = Dialogue(device, model, options, system=system)
    talk = Chat(dialogue, shields, Console(as_json=as_json), is_terminal=sys.stdin.isatty())
    with closing(dialogue):
        talk.run()


def chosen_draft(device: Device, model: str, folder: Path | None) -> DraftModel | None:
    """The draft model of a folder, for the answers of a model; None for no folder.

    Raises:
        SettingsError: no draft model, or not one of this model's tokens.
    """
    from triparty.device.inference.draft_model import DraftModel

    if folder is None:
        return None
    return DraftModel.load(folder, tokenizer=device.open(model).tokenizer)


class Chat:
    """The loop of a conversation.

    Args:
        dialogue: what is said.
        shields: what is added to the keys.
        console: where answers are written.
        is_terminal: whether somebody sits there: prompts are shown, an error ends the turn
            and not the program.
    """

    def __init__(
        self, dialogue: Dialogue, shields: Shields, console: Console, *, is_terminal: bool
    ) -> None:
        """Nothing is said yet."""
        self._dialogue, self._shields, self._console = dialogue, shields, console
        self._is_terminal = is_terminal
        self._told: list[dict[str, Any]] = []

    def run(self) -> None:
        """Talks until the input ends."""
        if self._is_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401 gives `input` editing and the lines before
            self._console.say(f"{self._dialogue.model}: /help lists what you can do")
        for text in self._messages():
            if text.startswith("/"):
                if self._is_over(text):
                    break
            elif text.strip():
                self._turn(text)
        self._console.report({"model": self._dialogue.model, "turns": self._told})

    def _messages(self) -> Any:
        """What is typed, message by message."""
        from triparty.device.chat.input import Message

        message = Message()
        while True:
            try:
                whole = message.add(self._line(MORE if message.is_begun else PROMPT))
            except EOFError:
                if message.is_begun:
                    yield message.whole()
                if self._is_terminal:
                    self._console.say("")
                return
            except KeyboardInterrupt:
                if not self._is_terminal:
                    raise
                message.whole()
                self._console.say("\n(/exit or Ctrl-D leaves)")
                continue
            if whole is not None:
                yield whole

    def _line(self, prompt: str) -> str:
        if self._is_terminal:
            return input(prompt)
        line = sys.stdin.buffer.readline()
        if not line:
            raise EOFError
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _turn(self, text: str) -> None:
        from triparty.common.errors import TripartyError
        from triparty.device.chat.stopping import stoppable
        from triparty.device.inference.generation import Generation

        parts = self._dialogue.ask(text)
        forgotten = self._dialogue.forgotten
        is_begun = False
        try:
            with stoppable() as is_stopped:
                for part in parts:
                    if isinstance(part, Generation):
                        self._told.append(_turn(text, part))
                    else:
                        # Templates end where an answer begins; models begin with a space.
                        shown = part.text if is_begun else part.text.lstrip()
                        is_begun = is_begun or bool(shown)
                        self._console.write(shown)
                    if is_stopped():
                        raise KeyboardInterrupt
            self._console.say("")
        except KeyboardInterrupt:
            if not self._is_terminal:
                raise
            parts.close()
            self._console.say("\n(stopped)")
        except TripartyError as error:
            if not self._is_terminal:
                raise
            typer.echo(f"\n{error.message}", err=True)
        if self._dialogue.forgotten > forgotten and self._is_terminal:
            self._console.say(
                f"(the model has no room for the first {self._dialogue.forgotten} turns any "
                "more: it is not told them; /clear begins anew)"
            )

    def _is_over(self, command: str) -> bool:
        """Does what a command says; whether the conversation is over."""
        name, _, rest = command.partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: self._console.say(HELP),
            "/clear": self._clear,
            "/privacy": self._privacy,
            "/save": self._save,
        }
        if name in ("/exit", "/quit", "/bye"):
            return True
        if name in commands:
            commands[name](rest.strip())
        else:
            self._console.say(f"{name} is no command, and was not sent; /help lists them")
        return False

    def _clear(self, _: str) -> None:
        self._dialogue.clear()
        self._console.say("(a new conversation)")

    def _privacy(self, _: str) -> None:
        from triparty.device.chat.privacy import account

        info = self._dialogue.opened.bundle.info
        for line in account(self._dialogue.traffic, info, self._shields):
            self._console.say(line)

    def _save(self, name: str) -> None:
        from triparty.common.errors import SettingsError

        if not name:
            self._console.say("/save FILE: name the file")
            return
        try:
            self._dialogue.save(Path(name).expanduser())
        except SettingsError as error:
            if not self._is_terminal:
                raise
            self._console.say(error.message)
        else:
            self._console.say(f"(written to {name})")


def _turn(question: str, said: Generation) -> dict[str, Any]:
    return {
        "question": question,
        "answer": said.text,
        "finish_reason": said.finish_reason,
        "tokens": len(said.token_ids),
        "seconds": said.seconds,
    }

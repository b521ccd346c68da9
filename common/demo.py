"""`triparty demo`: all three roles on this machine, as separate processes on real sockets.

The demo does nothing that a user could not type: it spawns role commands, each with a folder
of its own, and prints them. It knows no role's code.

1. developer: a trained model (its own small one, unless `--model` names one), re-keyed
2. cloud: starts on a free port of the loopback, with TLS
3. developer enrols with the cloud, publishes the model, invites the device
4. device enrols, gets its bundle, asks, and reads the answer as it arrives
5. the same question to the unprotected model: the answer must be the same, token for token
6. a gateway watches generated films, and answers a question about them (`demo_site.py`)
7. what the cloud saw of the chat, and what the first attack makes of it
"""

from __future__ import annotations

import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from triparty.common.console import Console, JsonOption
from triparty.common.demo_site import ask_a_building, missing
from triparty.common.demo_stage import Background, Stage, command, made_once
from triparty.common.errors import StateError, UnavailableError
from triparty.common.wire import decode_frames

app = typer.Typer(add_completion=False)

PROMPT = "When a function is called,"
START_LIMIT_S = 120
STEP_LIMIT_S = 1800


@app.command()
def demo(
    workdir: Annotated[
        Path | None,
        typer.Option(help="Keep every party's files here; default: a folder that is removed."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint folder or hub id; default: a small model made here."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What the device asks.")] = PROMPT,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of the answer.")] = 48,
    cameras: Annotated[
        bool, typer.Option(help="Watch generated films as well, and ask about them.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Run all three roles on this machine: a private chat, and cameras that can be asked."""
    console = Console(as_json=as_json)
    with _folder(workdir) as folder:
        stage = Stage(folder, console)
        source = model or str(_example_model(stage))
        outcome = _play(stage, source, prompt, max_tokens, cameras=cameras)
        seconds = round(time.monotonic() - stage.started, 2)
    console.report({**outcome, "seconds": seconds})
    console.say(f"Done in {seconds:.0f} s.")
    if not outcome["identical"]:
        raise StateError("the protected answer differs from the unprotected model's")


def _example_model(stage: Stage) -> Path:
    """The demo's own trained model."""
    stage.console.say("The first run trains small models (about two minutes) ...")
    return made_once(stage, "example-model", "example-model")


def _play(
    stage: Stage, source: str, prompt: str, max_tokens: int, *, cameras: bool
) -> dict[str, Any]:
    protected = stage.home("developer") / "protected"
    trace = stage.home("cloud") / "trace.bin"
    stage.run("developer", "protect", source, protected)
    url = f"https://127.0.0.1:{_free_port()}"
    data = stage.home("cloud") / "data"
    verifying = (
        "verify", source, protected, "--samples", "20",
        "--prompt", prompt, "--max-tokens", str(max_tokens),
    )  # fmt: skip
    with Background(stage, "developer", *verifying) as reference:
        stage.run("cloud", "init", "--data", data, "--url", url, "--self-signed")
        answer, building = _converse(
            stage, url, protected, prompt, max_tokens, trace, cameras=cameras
        )
        attacking = (
            "audit",
            source,
            protected,
            "--attacks",
            "sorted-rows",
            "--traffic",
            _of_chat(trace),
        )
        attack = stage.run("developer", *attacking)
        original = reference.document()
    outcome = {
        "identical": answer["token_ids"] == original["reference_token_ids"],
        "tokens": len(answer["token_ids"]),
        "device_saw": {"prompt": prompt, "answer": answer["text"]},
        "cloud_saw": _cloud_saw(_of_chat(trace)),
        "attacks": attack["attacks"],
        "building": building,
    }
    _show(stage.console, outcome, original)
    return outcome


def _converse(
    stage: Stage,
    url: str,
    protected: Path,
    prompt: str,
    max_tokens: int,
    trace: Path,
    *,
    cameras: bool,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """From the developer's keys to the device's answers, while the cloud serves."""
    device, data = stage.home("device"), stage.home("cloud") / "data"
    at_home = ("--home", stage.home("developer") / "home")
    with _serving(stage, data, trace):
        stage.run("developer", "init", *at_home)
        code = stage.run("cloud", "invite", "--data", data)["invite"]
        enroll = ("enroll", "--cloud", url, "--invite", "-")
        stage.run("developer", *enroll, *at_home, stdin=code)
        stage.run("developer", "publish", protected, "--name", "assistant", *at_home)
        code = stage.run("developer", "invite", "--name", "phone", *at_home)["invite"]
        stage.run("device", *enroll, "--home", device, stdin=code)
        stage.run("developer", "grant", "phone", *at_home)
        stage.run("device", "pull", "--home", device)
        answer = stage.run(
            "device", "generate", "assistant", prompt,
            "--max-tokens", str(max_tokens), "--home", device,
        )  # fmt: skip
        shutil.copyfile(trace, _of_chat(trace))  # what comes after is of another model
        return answer, _building(stage, device) if cameras else None


def _of_chat(trace: Path) -> Path:
    """What the cloud saw of the chat alone."""
    return trace.with_name("chat.bin")


def _building(stage: Stage, device: Path) -> dict[str, Any] | None:
    """The second half, where what it needs is installed."""
    absent = missing()
    if absent:
        stage.console.say(
            f"Without cameras: {', '.join(absent)} not installed (pip install "
            "'triparty[gateway]')."
        )
        return None
    return ask_a_building(stage, stage.home("developer") / "home", device)


@contextmanager
def _serving(stage: Stage, data: Path, trace: Path) -> Iterator[None]:
    """Runs the cloud as a process of its own until the block ends."""
    words = ("serve", "--data", data, "--trace", trace)
    stage.announce("cloud", *words)
    log = (stage.home("cloud") / "log.jsonl").open("w", encoding="utf-8")
    cloud = subprocess.Popen(
        command("cloud", *words), stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        _await_line(cloud, log.name)
        yield
    finally:
        cloud.send_signal(signal.SIGTERM)
        try:
            cloud.wait(timeout=30)
        except subprocess.TimeoutExpired:
            cloud.kill()
            cloud.wait()
        if cloud.stdout:
            cloud.stdout.close()
        log.close()


def _await_line(cloud: subprocess.Popen[str], log: str) -> None:
    """Returns when the cloud has said that it serves."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in cloud.stdout or ():
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        if lines.get(timeout=START_LIMIT_S):
            return
    except queue.Empty:
        pass
    tail = Path(log).read_text(encoding="utf-8").strip().rpartition("\n")[2]
    raise UnavailableError(f"the cloud did not start. {tail}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _folder(workdir: Path | None) -> Iterator[Path]:
    if workdir is None:
        with tempfile.TemporaryDirectory(prefix="triparty-demo-") as made:
            yield Path(made)
        return
    if workdir.exists() and any(workdir.iterdir()):
        raise StateError(f"{workdir} is not empty: name a new folder for --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    yield workdir.resolve()


def _cloud_saw(trace: Path) -> dict[str, Any]:
    data = trace.read_bytes()
    frames = decode_frames(data, limit_bytes=len(data), max_frames=1 << 20)
    rows = [row for frame in frames for row in frame.as_float32()]
    return {
        "requests": len(frames),
        "rows": len(rows),
        "width": len(rows[0]),
        "first_values": [[round(float(value), 3) for value in row[:6]] for row in rows[:8]],
    }


def _show(console: Console, outcome: dict[str, Any], original: dict[str, Any]) -> None:
    """Prints both views side by side, the comparison, and what the attack recovered."""
    if console.as_json:
        return
    from rich.console import Console as RichConsole
    from rich.table import Table

    seen, cloud = outcome["device_saw"], outcome["cloud_saw"]
    table = Table(title="One conversation, seen from two sides", expand=True)
    table.add_column("the device saw", ratio=1)
    table.add_column("the cloud saw", ratio=1)
    rows = "\n".join(
        "  ".join(f"{value:7.3f}" for value in row[:3]) + "  ..."
        for row in cloud["first_values"]
    )
    table.add_row(
        f"[bold]{_escaped(seen['prompt'])}[/bold]{_escaped(seen['answer'])}",
        f"{cloud['requests']} requests, {cloud['rows']} rows of {cloud['width']} numbers:\n"
        + rows,
    )
    rich = RichConsole()
    rich.print(table)
    verdict = "IDENTICAL to" if outcome["identical"] else "DIFFERENT from"
    rich.print(
        f"The answer's {outcome['tokens']} tokens are {verdict} the unprotected model's "
        f"(top-1 agreement on {original['samples']} random inputs: "
        f"{original['top1_agreement']:.0%})."
    )
    for attack in outcome["attacks"]:
        rich.print(
            f"What the cloud could learn: attack '{attack['name']}' (level {attack['level']}) "
            f"recovered {attack['recovered']:.0%} of the {attack['target']} "
            f"in {attack['seconds']:.1f} s."
        )
    building = outcome["building"]
    if building is not None:
        rich.print(
            f"[bold]{_escaped(building['question'])}[/bold] {_escaped(building['answer'])}\n"
            f"From {building['evidence']} of {building['events']} events that a gateway saw in "
            f"generated films; it decoded {building['decoded_share']:.0%} of the packets. The "
            f"cloud got keyed rows of {building['sent'][0]} parts of the question, and once of "
            f"{building['sent'][1]} names and stock questions; no event and no picture."
        )
    rich.print(
        "Level K2 means that the cloud got hold of the embedding table, which is in every "
        "registered user's bundle. This is re-keying, not encryption: README, 'What it does "
        "not protect'.",
        highlight=False,
    )


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)

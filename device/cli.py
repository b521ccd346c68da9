"""`triparty device`: enroll, trust, keys, models, pull, generate, embed, classify.

`ask`, `chat`, `describe`, `example-site`, `serve`, `watch`, `gate`, `filter`, `federate`
and `page` have files of their own.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triparty.common.console import Console, JsonOption
from triparty.device import cli_federate, cli_filter, cli_gate, cli_page
from triparty.device.cli_ask import ask
from triparty.device.cli_chat import chat, chosen_draft
from triparty.device.cli_describe import describe
from triparty.device.cli_example import example_site
from triparty.device.cli_serve import serve
from triparty.device.cli_shields import (
    DecoyKind,
    Decoys,
    DecoyTexts,
    LengthBlock,
    Noise,
    Rounding,
)
from triparty.device.cli_watch import watch

if TYPE_CHECKING:
    from triparty.device.client import Device
    from triparty.device.home import HeldModel
    from triparty.device.inference.completions import StockEngine

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Ask with keyed rows, un-key the answers (P3).",
)
app.add_typer(cli_gate.app, name="gate")
app.add_typer(cli_filter.app, name="filter")
app.add_typer(cli_page.app, name="page")
app.add_typer(cli_federate.app, name="federate")
app.command()(watch)
app.command()(ask)
app.command()(chat)
app.command()(describe)
app.command()(serve)
app.command()(example_site)

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="This device's folder (default: ~/.local/share/triparty/device)."
    ),
]
AccountOption = Annotated[
    str | None,
    typer.Option("--account", help="A further account of this device, by its name."),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings as a TOML file.")]


@app.command()
def enroll(
    cloud: Annotated[str, typer.Option(help="URL of the cloud; must be the invite's.")],
    invite: Annotated[
        str, typer.Option(help="The developer's code; '-' reads it from standard input.")
    ],
    name: Annotated[
        str | None,
        typer.Option(help="What developer and cloud see (default: the host's name)."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="This home is enrolled and its token expired or is lost: get a new one for "
            "the same account, with a new invite.",
        ),
    ] = False,
    account: AccountOption = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a developer's invite into this device's account."""
    from triparty.common.access import read_code

    device = _device(home, config)
    access = device.enroll(
        read_code(invite), cloud=cloud, name=name, again=again, account=account
    )
    console = Console(as_json=as_json)
    console.say(f"enrolled with {access.url} as {access.principal}")
    kind = _say_where_keys_are(device, account, console)
    console.say("next, on the developer's machine: triparty developer grant, then here: pull")
    console.report(
        {
            "device": access.principal,
            "developer": access.developer,
            "url": access.url,
            "keys": kind,
        }
    )


@app.command()
def trust(
    pin: Annotated[
        str,
        typer.Option(help="SHA-256 of the cloud's new certificate, told by its operator."),
    ],
    account: AccountOption = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trust the new certificate of your cloud, after its operator told you the fingerprint.

    Ask the operator (mail, telephone), not the cloud: the fingerprint is all that tells the
    cloud from somebody in its place.
    """
    _device(home, config).trust(pin, account=account)
    console = Console(as_json=as_json)
    console.say("the new certificate is trusted from now on")
    console.report({"pin": pin.lower()})


@app.command()
def keys(
    to: Annotated[
        str | None, typer.Option("--to", help="Move them: keyring or file (default: stay).")
    ] = None,
    account: AccountOption = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where this device's private keys are, or move them.

    The system's keyring (triparty[keyring]) keeps them under your login; files have mode 0600.
    """
    from triparty.common.errors import SettingsError
    from triparty.device.keystore import Keys

    if to is not None:
        if to not in (Keys.KEYRING, Keys.FILE):
            raise SettingsError(f"--to is keyring or file, got {to!r}")
        _device(home, config).move_keys(Keys(to), account=account)
    console = Console(as_json=as_json)
    # Where they are now counts, whatever the setting says about where they should be.
    place = _say_where_keys_are(_device(home, config, keys=to or "auto"), account, console)
    console.report({"keys": place})


def _say_where_keys_are(device: Device, account: str | None, console: Console) -> str:
    kind, why_not = device.key_place(account=account)
    console.say(f"private keys: {kind}" + (f" ({why_not})" if why_not else ""))
    return kind.value


@app.command()
def models(
    home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the models that this device can use."""
    held = _device(home, config).models()
    console = Console(as_json=as_json)
    for model in held:
        console.say(_line(model))
    if not held:
        console.say("none yet: ask the developer for a grant, then run 'triparty device pull'")
    console.report({"models": [asdict(model) for model in held]})


@app.command()
def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One model, gate, filter, plan, links, or ACCOUNT/NAME (default: all)."
        ),
    ] = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Get granted bundles, published gates, filters, links, plans; verified before use.

    Of a plan's models exactly those come that it chose.
    """
    pulled = _device(home, config).pull(name)
    console = Console(as_json=as_json)
    for model in pulled.taken:
        console.say(f"got {_line(model)}")
    for model in pulled.kept:
        console.say(f"current: {_line(model)}")
    for gate in pulled.taken_gates:
        console.say(f"got gate {gate.name}  version {gate.version}")
    for gate in pulled.kept_gates:
        console.say(f"current: gate {gate.name}  version {gate.version}")
    for one in pulled.taken_filters:
        console.say(f"got filter {one.name}  version {one.version}")
    for one in pulled.kept_filters:
        console.say(f"current: filter {one.name}  version {one.version}")
    for plan in pulled.taken_plans:
        console.say(f"got plan {plan.name}  version {plan.version}: {', '.join(plan.active)}")
    for plan in pulled.kept_plans:
        console.say(f"current: plan {plan.name}  version {plan.version}")
    for links in pulled.taken_links:
        console.say(f"got links {links.name}  version {links.version}")
    for links in pulled.kept_links:
        console.say(f"current: links {links.name}  version {links.version}")
    console.report(
        {
            "taken": [asdict(model) for model in pulled.taken],
            "kept": [asdict(model) for model in pulled.kept],
            "taken_gates": [asdict(gate) for gate in pulled.taken_gates],
            "kept_gates": [asdict(gate) for gate in pulled.kept_gates],
            "taken_filters": [asdict(one) for one in pulled.taken_filters],
            "kept_filters": [asdict(one) for one in pulled.kept_filters],
            "taken_plans": [asdict(plan) for plan in pulled.taken_plans],
            "kept_plans": [asdict(plan) for plan in pulled.kept_plans],
            "taken_links": [asdict(links) for links in pulled.taken_links],
            "kept_links": [asdict(links) for links in pulled.kept_links],
        }
    )


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="Name of a model that this device holds.")],
    prompt: Annotated[
        str,
        typer.Argument(
            help="Plain text, not sent as such; '-' reads it from standard input, out of the "
            "list of processes."
        ),
    ],
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw among the k likeliest; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest with this sum.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="Draw among those with this share of the likeliest's.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1: tokens that were there before are less likely.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Repeats the draws.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; may be given again.")
    ] = None,
    logprobs: Annotated[
        int | None, typer.Option(help="With --json: log-probabilities of the tokens.")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            help="Seconds in which the whole answer has to be there; ending its session may "
            "take 2 more."
        ),
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Go on after an end token, for measurements.")
    ] = False,
    speculate: Annotated[
        int,
        typer.Option(
            help="Guess up to this many tokens ahead in a step: the same answer in fewer "
            "round trips."
        ),
    ] = 0,
    draft: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a small model with the same tokenizer that guesses; otherwise the "
            "text is looked up in itself. Needs triparty\\[draft]."
        ),
    ] = None,
    engine_url: Annotated[
        str | None,
        typer.Option(
            help="A stock engine that serves the hosted folder, in place of the cloud; for "
            "models of the interface tokens. Its key: TRIPARTY_DEVICE_ENGINE_KEY."
        ),
    ] = None,
    engine_model: Annotated[
        str | None, typer.Option(help="What that engine calls the model.")
    ] = None,
    noise: Noise = None,
    bfloat16_rows: Rounding = None,
    length_block: LengthBlock = None,
    decoys: Decoys = None,
    decoy_texts: DecoyTexts = None,
    decoy_kind: DecoyKind = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a text with a protected model; the answer streams as it comes."""
    from triparty.device.inference.generation import Generation
    from triparty.device.inference.options import GenerationOptions

    console = Console(as_json=as_json)
    shields = {
        "noise": noise,
        "bfloat16_rows": bfloat16_rows,
        "length_block": length_block,
        "decoys": decoys,
        "decoy_texts": decoy_texts,
        "decoy_kind": decoy_kind,
    }
    device = _device(home, config, **shields)
    options = GenerationOptions(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        max_tokens=max_tokens,
        stop=stop or (),
        logprobs=logprobs,
        ignore_eos=ignore_eos,
        deadline_s=deadline,
        speculate=speculate,
        draft=chosen_draft(device, model, draft),
    )
    engine = _engine(engine_url, engine_model, config)
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\n")
    for part in device.stream(model, prompt, options=options, engine=engine):
        if isinstance(part, Generation):
            console.say("")
            console.report(asdict(part))
        else:
            console.write(part.text)


DeadlineOption = Annotated[
    float | None, typer.Option(help="Seconds in which all answers have to be there.")
]


@app.command()
def embed(
    model: Annotated[str, typer.Argument(help="Name of an encoder that this device holds.")],
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT...",
            help="Plain texts, not sent as such; '-' reads one a line from standard input, out "
            "of the list of processes.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Write the vectors to this NumPy file, float32 (N, D)."),
    ] = None,
    deadline: DeadlineOption = None,
    noise: Noise = None,
    bfloat16_rows: Rounding = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn texts into vectors with a protected encoder."""
    import numpy as np

    from triparty.common.files import write_atomic

    console = Console(as_json=as_json)
    given = _lines(texts)
    device = _device(home, config, noise=noise, bfloat16_rows=bfloat16_rows)
    vectors = device.embed(model, given, on_shortened=_to_stderr, deadline_s=deadline)
    document: dict[str, object] = {"texts": len(vectors), "width": vectors.shape[1]}
    if output is None:
        for vector in vectors:
            console.say(" ".join(f"{value:.6g}" for value in vector))
        document["embeddings"] = vectors.tolist()
    else:
        packed = BytesIO()
        np.save(packed, vectors, allow_pickle=False)
        write_atomic(output, packed.getvalue())
        console.say(f"wrote {len(vectors)} vectors of {vectors.shape[1]} numbers to {output}")
        document["output"] = str(output)
    console.report(document)


@app.command()
def classify(
    model: Annotated[str, typer.Argument(help="Name of a classifier that this device holds.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT|IMAGE...",
            help="Plain texts, or files of images, as the model takes them; '-' reads one a "
            "line from standard input.",
        ),
    ],
    deadline: DeadlineOption = None,
    noise: Noise = None,
    bfloat16_rows: Rounding = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a protected classifier name texts or images."""
    console = Console(as_json=as_json)
    given = _lines(inputs)
    device = _device(home, config, noise=noise, bfloat16_rows=bfloat16_rows)
    found = device.classify(model, given, on_shortened=_to_stderr, deadline_s=deadline)
    for text, one in zip(given, found, strict=True):
        console.write(f"{one.label}  {one.score:.4f}  {text}\n")
    answers = [{"input": text, **asdict(one)} for text, one in zip(given, found, strict=True)]
    console.report({"answers": answers})


def _lines(words: list[str]) -> list[str]:
    """The texts of a command; a lone '-' means the lines of standard input."""
    if words != ["-"]:
        return words
    lines = sys.stdin.buffer.read().decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.strip()]


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)


def _device(home: Path | None, config: Path | None, **shields: object) -> Device:
    from triparty.device.settings import DeviceSettings

    return DeviceSettings.load(config, home=home, **shields).device()


def _engine(url: str | None, model: str | None, config: Path | None) -> StockEngine | None:
    from triparty.common.errors import SettingsError
    from triparty.device.inference.completions import StockEngine
    from triparty.device.settings import DeviceSettings

    if url is None:
        if model is not None:
            raise SettingsError("--engine-model needs --engine-url")
        return None
    return StockEngine(url, model, DeviceSettings.load(config).engine_key)


def _line(model: HeldModel) -> str:
    from triparty.device.home import MAIN

    whose = "" if model.account == MAIN else f"  (account {model.account})"
    return f"{model.name}  version {model.version}, epoch {model.epoch}{whose}"

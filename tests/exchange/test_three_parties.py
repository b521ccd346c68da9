"""The product's claim, on trained models, over HTTPS, with three kinds of processes."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from three_parties import CommandError, Parties, new_cloud, triparty

from triparty.common.invites import Invite

PROMPTS = {
    "stories": "Once upon a time, Zyxwolf met a quizzical brontosaurus",
    "capp": "<SOS> geometry_prismatic batch_size_mass",
}
TOKENS = 200


def stock_answer(folder: Path, prompt: str) -> list[int]:
    """What `transformers` itself generates greedily from the original checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None  # as `--ignore-eos`: always all tokens
    given = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        whole = model.generate(**given, do_sample=False, max_new_tokens=TOKENS)
    new: list[int] = whole[0, given["input_ids"].shape[1] :].tolist()
    return new


@pytest.fixture(scope="module")
def answers(parties: Parties) -> dict[str, dict[str, Any]]:
    return {
        name: parties.ask("phone", name, prompt, "--max-tokens", str(TOKENS), "--ignore-eos")
        for name, prompt in PROMPTS.items()
    }


@pytest.mark.parametrize("name", ["stories", "capp"])
def test_protected_generation_equals_stock_generation(
    name: str, answers: dict[str, dict[str, Any]], stories_model: Path, capp_model: Path
) -> None:
    source = {"stories": stories_model, "capp": capp_model}[name]
    expected = stock_answer(source, PROMPTS[name])
    assert answers[name]["token_ids"] == expected
    assert len(expected) == TOKENS


def secrets_of(parties: Parties, answers: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    """What must never be on the cloud's side, by name."""
    found = {
        "prompt": PROMPTS["stories"].encode(),
        "prompt as text in UTF-16": PROMPTS["stories"].encode("utf-16-le"),
        "answer": answers["stories"]["text"].strip()[:40].encode(),
    }
    for name in ("stories", "capp"):
        out = parties.folder / "protected" / name
        found[f"{name}: master key"] = (out / "secrets" / "master.key").read_bytes()
        head = (out / "device" / "head.safetensors").read_bytes()
        found[f"{name}: head key"] = head[-128:]  # the last 32 entries of `order`
    for key in parties.folder.glob("devices/*/*.key"):
        body = re.sub(rb"-----[^-]+-----|\n", b"", key.read_bytes())
        found[f"private key {key.name}"] = body[-40:]
    return found


def original_rows(*folders: Path) -> np.ndarray:
    """Every row of the original embedding (and position) tables, (N, 64) uint32."""
    from safetensors.numpy import load_file

    tables = [
        tensor
        for folder in folders
        for key, tensor in load_file(folder / "model.safetensors").items()
        if re.search(r"embed_tokens|wte|wpe", key)
    ]
    rows = np.concatenate(tables)
    assert rows.shape[1] == 64
    return np.ascontiguousarray(rows).view(np.uint32)


def rows_found(data: bytes, rows: np.ndarray) -> int:
    """How many 4-byte aligned places of `data` begin with the first 8 values of a row."""
    words = np.frombuffer(data, np.uint32, len(data) // 4)
    if words.size < 8:
        return 0
    heads = {row[:8].tobytes() for row in rows}
    likely = np.zeros(1 << 16, np.bool_)  # by half of the first value; sorting is far slower
    likely[rows[:, 0] & 0xFFFF] = True
    at = np.flatnonzero(likely[words[:-7].astype(np.uint16)])
    at = at[np.isin(words[at], rows[:, 0])]
    return sum(words[i : i + 8].tobytes() in heads for i in at)


def memory_of(pid: int) -> list[bytes]:
    """The private and heap memory of a process, region by region, as far as it is in use."""
    regions = []
    listed = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8")
    each = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", listed, flags=re.MULTILINE)
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for region in each:
            place = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", region)
            if not place or not re.search(r"^(Rss|Swap): +[1-9]", region, re.MULTILINE):
                continue
            start, end = (int(part, 16) for part in place.groups())
            try:
                memory.seek(start)
                regions.append(memory.read(end - start))
            except (OSError, ValueError, OverflowError):
                continue  # the kernel's own pages cannot be read
    return regions


def test_the_cloud_holds_no_row_no_text_and_no_key(
    parties: Parties,
    answers: dict[str, dict[str, Any]],
    stories_model: Path,
    capp_model: Path,
) -> None:
    try:
        memory = memory_of(parties.cloud.pid)
    except PermissionError as error:
        pytest.skip(f"this system does not let a parent read its child's memory: {error}")
    disk = [path.read_bytes() for path in parties.cloud.folder.rglob("*") if path.is_file()]
    places = {"memory": memory, "disk and logs": disk}
    secrets = secrets_of(parties, answers)
    rows = original_rows(stories_model, capp_model)

    for where, pieces in places.items():
        for what, value in secrets.items():
            assert not any(value in piece for piece in pieces), f"{what} found in {where}"
        assert sum(rows_found(piece, rows) for piece in pieces) == 0, where

    # Control: the scan finds what the cloud does hold, in each of the places.
    from safetensors.numpy import load_file

    hosted = load_file(parties.folder / "protected" / "stories" / "model" / "model.safetensors")
    head = np.ascontiguousarray(hosted["lm_head.weight"]).view(np.uint32)
    assert sum(rows_found(piece, head) for piece in memory) >= len(head) // 2
    assert sum(rows_found(piece, head) for piece in disk) >= len(head) // 2
    assert any(b"stories" in piece for piece in disk)


def test_the_log_is_json_lines_without_tokens(
    parties: Parties, answers: dict[str, dict[str, Any]]
) -> None:
    lines = parties.cloud.log.read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert any("step" in str(event.get("route")) for event in events)
    homes = [parties.developer, parties.device("phone")]
    for home in homes:
        token = json.loads((home / "cloud.json").read_text(encoding="utf-8"))["token"]
        assert not any(token in line for line in lines)


def test_two_devices_get_equal_answers_at_the_same_time(parties: Parties) -> None:
    from concurrent.futures import ThreadPoolExecutor

    parties.enroll_device("tablet")
    parties.grant("tablet")
    parties.pull("tablet")
    prompt = "Lily and Tom"
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(parties.ask, name, "stories", prompt, "--max-tokens", "60")
            for name in ("phone", "tablet")
        ]
    first, second = (future.result() for future in both)
    assert first["token_ids"] == second["token_ids"]


def test_a_revoked_device_is_refused_at_once(parties: Parties) -> None:
    parties.enroll_device("lost")
    parties.grant("lost")
    parties.pull("lost")
    assert parties.ask("lost", "stories", "One day", "--max-tokens", "2")["token_ids"]
    triparty("developer", "revoke", "lost", "--home", parties.developer)
    with pytest.raises(CommandError, match="revoked"):
        parties.ask("lost", "stories", "One day", "--max-tokens", "2")
    assert parties.ask("phone", "stories", "One day", "--max-tokens", "2")["token_ids"]


def test_a_cloud_that_swaps_a_devices_keys_gets_nothing(parties: Parties) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    victim = parties.enroll_device("victim")["device"]
    database = parties.cloud.data / "cloud.db"
    with sqlite3.connect(database, timeout=30) as connection:
        table, column = sealing_column(connection)
        (stored,) = connection.execute(
            f"SELECT {column} FROM {table} WHERE id = ?", (victim,)
        ).fetchone()
        forged = X25519PrivateKey.generate().public_key().public_bytes_raw()
        swapped = forged if isinstance(stored, bytes) else text_key(forged)
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (swapped, victim))
    with pytest.raises(CommandError, match="swapped"):
        parties.grant("victim")
    with pytest.raises(CommandError):
        parties.ask("victim", "stories", "One day")


def sealing_column(connection: sqlite3.Connection) -> tuple[str, str]:
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table'"
    ).fetchall()
    for (table,) in tables:
        for column in connection.execute(f"PRAGMA table_info({table})").fetchall():
            if "sealing" in column[1]:
                return table, column[1]
    raise AssertionError("the database has no sealing keys")


def text_key(raw: bytes) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_another_cloud_with_another_certificate_is_refused(
    parties: Parties, tmp_path: Path
) -> None:
    impostor = new_cloud(tmp_path / "impostor")
    genuine = triparty("cloud", "invite", "--data", parties.cloud.data)["invite"]
    code = replace(Invite.from_code(genuine), url=impostor.url).to_code()
    home = tmp_path / "developer"
    triparty("developer", "init", "--home", home)
    try:
        with pytest.raises(CommandError, match="certificate"):
            triparty(
                "developer", "enroll", "--cloud", impostor.url, "--invite", "-", "--home", home,
                stdin=code,
            )  # fmt: skip
        assert not (home / "cloud.json").exists()
    finally:
        impostor.stop()


def test_rotation_begins_an_epoch_that_devices_follow_by_themselves(parties: Parties) -> None:
    before = parties.ask("phone", "capp", PROMPTS["capp"], "--max-tokens", "4")["token_ids"]
    home = parties.device("phone") / "held" / "capp.json"
    epoch = json.loads(home.read_text())["epoch"]
    words = ("rotate", "capp", "--drain", "5m", "--home", parties.developer)
    assert triparty("developer", *words)["epoch"] == epoch + 1
    with pytest.raises(CommandError, match="expected a time as 90s, 30m or 2h"):
        triparty("developer", "rotate", "capp", "--drain", "5", "--home", parties.developer)
    after = parties.ask("phone", "capp", PROMPTS["capp"], "--max-tokens", "4")["token_ids"]
    assert after == before
    assert json.loads(home.read_text())["epoch"] == epoch + 1


def test_everything_survives_a_restart_of_the_cloud(parties: Parties) -> None:
    import signal

    before = parties.ask("phone", "stories", "The sun", "--max-tokens", "12")["token_ids"]
    parties.cloud.stop(signal.SIGKILL)
    parties.cloud.start()
    again = parties.ask("phone", "stories", "The sun", "--max-tokens", "12")["token_ids"]
    assert again == before

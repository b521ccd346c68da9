"""The commands on models, as a person types them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from triparty.common.errors import (
    CheckpointError,
    SettingsError,
    StateError,
    TripartyError,
)
from triparty.developer.cli_models import add_commands

APP = typer.Typer()
add_commands(APP)


def run(*words: str | Path) -> Any:
    """The result of a command; its error is raised."""
    result = CliRunner().invoke(APP, [str(word) for word in words])
    if isinstance(result.exception, TripartyError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def source(make_model: Any) -> Path:
    folder: Path = make_model("llama", tie_word_embeddings=True)
    return folder


def test_protect_verify_audit_in_json(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = json.loads(run("protect", source, out, "--json").stdout)
    assert made["written"]
    assert made["untied"]
    assert made["tensors"] == 20
    found = json.loads(run("verify", source, out, "--samples", "200", "--json").stdout)
    assert found["samples"] >= 200
    assert found["top1_agreement"] == 1.0
    assert found["max_relative_error"] <= 1e-5
    assert found["greedy_identical"] is True
    assert found["dtype"] == "float32"
    assert "reference_text" not in found
    words = ("--attacks", "sorted-rows", "--json")
    attacks = json.loads(run("audit", source, out, *words).stdout)
    assert attacks["public_base"] is None
    assert [one["name"] for one in attacks["attacks"]] == ["sorted-rows"]
    assert attacks["attacks"][0]["recovered"] == 1.0
    assert attacks["subject"]["source"] == str(source)


def test_protect_verify_audit_for_people(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "never publish it" in run("protect", source, out).stdout
    said = run("verify", source, out, "--prompt", "w3 w4", "--max-tokens", "3").stdout
    assert "100.00%" in said
    assert "identical" in said
    assert "The original answers: w" in said
    assert "not encryption" in run("audit", source, out).stdout


def test_audit_writes_a_page_and_compares_bases(
    source: Path, make_model: Any, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", tmp_path / "page.html"
    run("protect", source, out)
    other = make_model("llama", hidden_size=32, head_dim=8)
    bases = ("--base", source, "--base", other, "--levels", "K2", "--html", file)
    said = run("audit", source, out, *bases).stdout
    assert "PUBLIC BASE RECOGNISED" in said
    assert "TABLE IS PUBLIC: 100.0 %" in said
    assert f"Written: {file}" in said
    assert "sorted-rows recovered 100.0 %" in file.read_text(encoding="utf-8")
    quiet = run("audit", source, out, "--base", other, "--attacks", "sorted-rows").stdout
    assert "PUBLIC" not in quiet


def test_audit_compares_mitigations_on_the_page_too(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triparty.developer.audit import compare, stage
    from triparty.developer.audit.mitigations import MITIGATIONS

    out, file = tmp_path / "out", tmp_path / "page.html"
    run("protect", source, out)
    few = replace(stage.QUICK, rows=64, most=64, judged=2, length=16, timed=1)
    short = partial(compare.compare, mitigations=MITIGATIONS[:3], effort=few)
    monkeypatch.setattr(compare, "compare", short)
    words = ("--compare", "--html", file, "--attacks", "sorted-rows")
    told = run("audit", source, out, *words)
    found = json.loads(run("audit", source, out, *words, "--json").stdout)
    names = [line["name"] for line in found["comparison"]["measured"]]
    assert names == [mitigation.name for mitigation in MITIGATIONS[:3]]
    for text in (told.stdout, file.read_text(encoding="utf-8")):
        assert all(name in text for name in names)
        assert "MB/instance" in text


def test_audit_takes_a_second_instance(source: Path, tmp_path: Path) -> None:
    run("protect", source, tmp_path / "out")
    run("protect", source, tmp_path / "other")
    words = ("--other", tmp_path / "other", "--json")
    found = json.loads(run("audit", source, tmp_path / "out", *words).stdout)
    assert found["subject"]["other"] == str(tmp_path / "other")
    with pytest.raises(SettingsError, match="same key"):
        run("audit", source, tmp_path / "out", "--other", tmp_path / "out")


def test_verify_fails_on_another_model(source: Path, tmp_path: Path) -> None:
    run("protect", source, tmp_path / "out")
    run("verify", source, tmp_path / "out", "--samples", "50")
    with pytest.raises(CheckpointError, match="was it made from it"):
        run("verify", tmp_path / "out" / "model", tmp_path / "out", "--samples", "50")


def test_verify_answers_a_prompt_as_generate_does(source: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run("protect", source, tmp_path / "out")
    words = ("--samples", "1", "--prompt", "w3 w4", "--max-tokens", "9", "--json")
    found = json.loads(run("verify", source, tmp_path / "out", *words).stdout)
    given = AutoTokenizer.from_pretrained(source)("w3 w4", return_tensors="pt")
    model: Any = AutoModelForCausalLM.from_pretrained(source)
    with torch.inference_mode():
        whole = model.generate(
            given["input_ids"],
            attention_mask=given["attention_mask"],
            do_sample=False,
            max_new_tokens=9,
            pad_token_id=1,
        )
    assert found["reference_token_ids"] == whole[0, 2:].tolist()
    stopped = found["reference_token_ids"][-1] == 1
    assert found["reference_finish_reason"] == ("stop" if stopped else "length")


def test_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    said = run("protect", source, tmp_path / "out", "--dry-run").stdout
    assert "gate.{l} x residual" in said
    assert "an estimate" in said
    assert "Nothing was written" in said
    found = json.loads(run("protect", source, tmp_path / "out", "--dry-run", "--json").stdout)
    assert found["written"] is False
    assert found["size_bytes"] > 0
    made = json.loads(run("protect", source, tmp_path / "made", "--json").stdout)
    tensors = [*(tmp_path / "made" / "model").glob("*.safetensors")]
    tensors.append(tmp_path / "made" / "device" / "embedding.safetensors")
    headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in tensors)
    assert found["written_bytes"] == sum(path.stat().st_size for path in tensors) - headers
    assert 0 < found["estimated_seconds"] < 60
    assert made["size_bytes"] == found["size_bytes"]
    shutil.rmtree(tmp_path / "made")
    assert sorted(tmp_path.iterdir()) == before


def test_seed_is_warned_about(source: Path, tmp_path: Path) -> None:
    result = run("protect", source, tmp_path / "out", "--seed", "1", "--json")
    assert "reproducible tests" in result.stderr
    assert json.loads(result.stdout)["written"]
    assert run("protect", source, tmp_path / "other").stderr == ""


def test_what_does_not_exist_is_named(source: Path, tmp_path: Path) -> None:
    for words, named in (
        (("protect", source, tmp_path / "out", "--scheme", "diagonal"), "orthogonal"),
        (("protect", source, tmp_path / "out", "--interface", "rows"), "embeddings, tokens"),
        (("audit", source, tmp_path, "--levels", "K7"), "K0 to K4"),
        (("audit", source, tmp_path, "--attacks", "guessing"), "there is: .*sorted-rows"),
        (
            ("audit", source, tmp_path, "--attacks", "sorted-rows", "--levels", "K0"),
            "none of these attacks is of level K0",
        ),
        (("audit", source, tmp_path, "--html", tmp_path / "no" / "page.html"), "is no folder"),
    ):
        with pytest.raises(SettingsError, match=named):
            run(*words)
    with pytest.raises(StateError, match="triparty developer protect"):
        run("verify", source, tmp_path)

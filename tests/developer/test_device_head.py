"""A head on the device: what is chosen, written, said, refused and found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from triparty.common.errors import SettingsError, UnsupportedModelError
from triparty.common.keying import HEAD_FILE, Bundle
from triparty.common.tensorfile import TensorFile
from triparty.developer.audit.views import ModelView
from triparty.developer.cli_models import add_commands
from triparty.developer.inspection.report import inspect
from triparty.developer.inspection.tensors import differences
from triparty.developer.protect import Choices, estimate, protect, survey
from triparty.developer.protect.description import head_bytes, lines, summary
from triparty.developer.protect.modelkey import ModelKey
from triparty.developer.protect.secret import Secret
from triparty.developer.verify import Comparison

APP = typer.Typer()
add_commands(APP)
ON_DEVICE = Choices.of(head="device")
ROTATED = Choices.of(head="device", scheme="orthogonal")


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def head_of(out: Path) -> TensorFile:
    return TensorFile.open(out / "device" / HEAD_FILE)


# --- what is chosen


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"head": "nowhere"}, "cloud, device"),
        ({"head": "device", "interface": "tokens"}, "embeddings"),
        ({"head": "device", "head_scales": True}, "either"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(
    words: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        Choices.of(**words)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BertForMaskedLM", {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2}),
        ("BertModel", {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2}),
        ("ViTForImageClassification", {"hidden_size": 16, "num_attention_heads": 2}),
        (
            "T5ForConditionalGeneration",
            {"vocab_size": 40, "d_model": 16, "d_kv": 8, "decoder_start_token_id": 0},
        ),
    ],
)
def test_models_that_write_no_text_step_by_step_are_refused(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    import transformers
    from family_law import write_tokenizer

    made: Any = getattr(transformers, name)
    small = {"num_hidden_layers": 1, "num_layers": 1, "intermediate_size": 20, "d_ff": 20}
    made(made.config_class(**options, **small)).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, 40)
    assert survey(str(tmp_path), Choices()).plan.device_head is None
    with pytest.raises(UnsupportedModelError, match="--head cloud"):
        survey(str(tmp_path), ON_DEVICE)


# --- what is written


def test_a_tied_head_that_trades_places_is_the_devices_rows(
    make_model: Any, tmp_path: Path
) -> None:
    source = make_model("gpt2")
    sizes = {}
    for name, choices in (("cloud", Choices()), ("device", ON_DEVICE), ("rotated", ROTATED)):
        found = protect(str(source), tmp_path / name, choices=choices)
        sizes[name] = sum(map(len, files(tmp_path / name / "device").values()))
        if choices.head == "device":
            entries = head_of(tmp_path / name).entries
            stored = sum(entry.size_bytes for entry in entries.values())
            assert head_bytes(found) == stored
            assert set(entries) == ({"gain"} if name == "device" else {"weight"})
    vocabulary, width = found.info.vocabulary, found.info.width
    assert sizes["rotated"] - sizes["device"] >= 4 * vocabulary * width - 8 * width - 200
    assert sizes["device"] - sizes["cloud"] < 8 * width


def test_an_untied_head_has_the_checkpoints_dtype_and_the_plain_order(
    make_model: Any, bits_of: Any, tmp_path: Path
) -> None:
    source = make_model("llama", dtype="bfloat16")
    protect(str(source), tmp_path / "out", choices=Choices.of(head="device", norms="keep"))
    entry = head_of(tmp_path / "out").entries["weight"]
    assert (entry.dtype, entry.shape) == ("BF16", (53, 24))
    plain = bits_of(source)["lm_head.weight"]
    keyed = np.array(head_of(tmp_path / "out").bits("weight"))
    assert (np.sort(plain, axis=1) == np.sort(keyed, axis=1)).all()  # row i is row i, keyed
    assert (plain != keyed).any(axis=1).all()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("choices", [ON_DEVICE, ROTATED], ids=["permutation", "orthogonal"])
def test_no_key_and_no_original_row_is_in_a_bundle(
    family: str, choices: Choices, make_model: Any, bits_of: Any, tmp_path: Path
) -> None:
    source, out = make_model(family), tmp_path / "out"
    protect(str(source), out, choices=choices)
    public = b"".join([*files(out / "model").values(), *files(out / "device").values()])
    assert (out / "secrets" / "master.key").read_bytes() not in public
    for name, bits in bits_of(source).items():
        if bits.ndim == 2:
            assert not [row for row in bits if row.tobytes() in public], name


def test_the_choice_is_kept_for_later_epochs(make_model: Any, tmp_path: Path) -> None:
    protect(str(make_model("llama")), tmp_path / "out", choices=ON_DEVICE)
    assert Secret.read(tmp_path / "out" / "secrets").choices == ON_DEVICE
    file = tmp_path / "out" / "secrets" / "key.json"
    written = json.loads(file.read_text())
    del written["head"]  # as versions before wrote it
    file.write_text(json.dumps(written))
    assert Secret.read(tmp_path / "out" / "secrets").choices == Choices()


# --- what is said


def test_a_dry_run_says_where_the_head_is_and_what_it_costs(
    make_model: Any, tmp_path: Path
) -> None:
    for family, choices, said in (
        ("llama", ON_DEVICE, "takes 0.0 MB on each device"),
        ("gpt2", ON_DEVICE, "one table"),
        ("gpt2", ROTATED, "up to the order and the signs"),
    ):
        source = make_model(family)
        found = survey(str(source), choices)
        text = "\n".join(lines(found))
        assert "24 numbers in place of" in text
        assert said in text
        assert "key of its own" not in text
        assert summary(found)["head"] == "device"
        assert summary(found)["head_bytes"] == head_bytes(found) > 0
        out = tmp_path / f"{family} {choices.scheme}"
        options = ["--head", "device", "--scheme", choices.scheme, "--dry-run", "--json"]
        words = ["protect", str(source), str(out), *options]
        report = json.loads(CliRunner().invoke(APP, words).stdout)
        protect(str(source), out, choices=choices)
        written = sum(
            entry.size_bytes
            for path in out.rglob("*.safetensors")
            for entry in TensorFile.open(path).entries.values()
        )
        assert report["written_bytes"] == written
    assert summary(survey(str(make_model("gpt2")), Choices()))["head_bytes"] == 0


@pytest.mark.parametrize(("tied", "shown"), [(True, 24), (False, 0)])
def test_both_rotated_tables_of_a_tied_model_show_a_device_its_key(
    tied: bool, shown: int, make_model: Any, tmp_path: Path
) -> None:
    """What the note and docs/privacy.md say: the key, up to order and signs."""
    source = make_model("llama", dtype="float64", tie_word_embeddings=tied)
    protect(str(source), tmp_path / "out", choices=ROTATED)
    bundle = Bundle.open(tmp_path / "out" / "device")
    assert bundle.head is not None
    count = bundle.info.vocabulary
    rows, head = bundle.values(np.arange(count), start=0), bundle.head.rows(count)
    between = np.linalg.lstsq(rows, head, rcond=None)[0]
    _, axes = np.linalg.eigh(between + between.T)
    key = ModelKey.open(tmp_path / "out").weights.matrix_of("residual")
    assert (np.abs(key @ axes).max(axis=1) > 0.999).sum() == shown
    said = "\n".join(lines(survey(str(source), ROTATED)))
    assert ("up to the order and the signs" in said) == tied


def test_the_estimate_counts_the_head(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte a second, so that seconds are bytes of tensors that are made."""
    monkeypatch.setattr(estimate, "_bytes_per_second", lambda decided: 1.0)
    source = str(make_model("llama"))
    for choices in (Choices(), ON_DEVICE):
        found = survey(source, choices)
        assert estimate.estimated_seconds(found) == found.size_bytes


# --- what is found


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_verify_runs_both_and_finds_nothing_or_the_head(
    family: str, scheme: str, make_model: Any, tmp_path: Path
) -> None:
    source, out = make_model(family), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(head="device", scheme=scheme))
    comparison = Comparison(str(source), out)
    found = comparison.agreement(40, rng=np.random.default_rng(1))
    assert found.top1_agreement == 1.0
    assert found.greedy_identical
    assert found.max_relative_error < 1e-5
    key = ModelKey.open(out)
    assert not list(differences(key, out))
    rng = np.random.default_rng(2)
    inspected = inspect(comparison, str(source), out, rng=rng, layers=True, tensors=True)
    assert inspected.layers is not None
    assert (inspected.fault, inspected.differences) == (None, ())
    assert [layer.layer for layer in inspected.layers][-1] == "lm_head"
    assert not any("lm_head" in limit for limit in inspected.limits)

    (name,) = head_of(out).entries
    entry = head_of(out).entries[name]
    file = out / "device" / HEAD_FILE
    bits = np.memmap(file, entry.bits, "r+", entry.offset, entry.shape)
    bits[:4] = bits[:4][::-1].copy()
    bits.flush()
    assert [(odd.folder, odd.name) for odd in differences(key, out)] == [("device", name)]
    wrong = Comparison(str(source), out).agreement(40, rng=np.random.default_rng(1))
    assert wrong.max_relative_error > 1e-3


def test_an_attacker_on_the_cloud_sees_no_head(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    for name, choices in (("device", ON_DEVICE), ("cloud", Choices())):
        protect(str(source), tmp_path / name, choices=choices)
        view = ModelView.open(tmp_path / name / "model")
        assert (view.head() is None) == (name == "device")
        assert view.embedding() is None
    bundle = Bundle.open(tmp_path / "device" / "device")
    assert bundle.info.replies == ("hidden",)

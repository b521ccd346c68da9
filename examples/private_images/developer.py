"""The developer's part.

1. Train a small vision transformer that tells three shapes apart (once; some seconds).
2. Make keys and enrol with the operator's code (once).
3. Re-key the model, compare it with the original, publish it.
4. Invite a device; when it has enrolled, grant it the model.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from shapes import LABELS, SIZE, drawn
from transformers import ViTConfig, ViTForImageClassification

from triparty.developer import Developer

STEPS, BATCH = 400, 48


def samples(dice: random.Random, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (B, 1, S, S) from -1 to 1, and the numbers of their labels (B,)."""
    wanted = [dice.randrange(len(LABELS)) for _ in range(count)]
    grey = np.stack([np.asarray(drawn(LABELS[n], dice), np.float32) for n in wanted])
    return torch.from_numpy(grey[:, None] / 127.5 - 1), torch.tensor(wanted)


def train(folder: Path) -> None:
    """Writes a checkpoint as the hub has them, with what says how images become pixels."""
    torch.manual_seed(0)
    dice, names = random.Random(0), dict(enumerate(LABELS))
    model = ViTForImageClassification(
        ViTConfig(
            image_size=SIZE,
            patch_size=6,
            num_channels=1,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            id2label=names,
            label2id={name: number for number, name in names.items()},
        )
    )
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    for _ in range(STEPS):
        pixels, labels = samples(dice, BATCH)
        loss = model(pixel_values=pixels, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        pixels, labels = samples(dice, 300)
        right = (model(pixel_values=pixels).logits.argmax(dim=1) == labels).float().mean()
    print(f"trained: {right:.0%} of new pictures right")
    model.save_pretrained(folder)
    described = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIZE, "width": SIZE},
        "image_mean": [0.5],
        "image_std": [0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(described))


def main(home: Path, model: Path) -> None:
    """Publishes the classifier and grants it to one device."""
    if not model.exists():
        train(model)
    developer = Developer(home)
    if not home.exists():
        developer.init()
        developer.enroll(input("the operator's code: "))

    protected = home / "protected"
    developer.protect(model, protected)
    agreement = developer.verify(model, protected, samples=200)
    print(f"same label as the original: {agreement.top1_agreement:.0%}")

    published = developer.publish(protected, name="shapes").model
    print(f"published {published.name} version {published.version}")

    code, _ = developer.invite(name="camera")
    print(code, flush=True)
    input("press Enter when the device has enrolled: ")
    developer.grant("camera")
    print("granted")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

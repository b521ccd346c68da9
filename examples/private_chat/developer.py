"""The developer's part.

1. Give the model a chat template, if it has none.
2. Make keys and enrol with the operator's code (once).
3. Re-key the model, and compare it with the original.
4. Publish it.
5. Invite a device; when it has enrolled, grant it the model.
"""

import shutil
import sys
from pathlib import Path

from transformers import AutoTokenizer

from triparty.developer import Developer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ ' ' if message.role == 'user' and not loop.first }}{{ message.content }}"
    "{% endfor %}"
)
"""For a model that knows no roles: one text, which both sides go on with in turn."""


def with_template(model: Path, folder: Path) -> Path:
    """The model if it knows conversations, else a copy that takes them as one text."""
    if AutoTokenizer.from_pretrained(model).chat_template is not None:
        return model
    if not folder.exists():
        shutil.copytree(model, folder, copy_function=shutil.copyfile)
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def main(home: Path, model: Path) -> None:
    """Publishes a model and grants it to one device."""
    developer = Developer(home)
    if not home.exists():
        developer.init()
        developer.enroll(input("the operator's code: "))

    source, protected = with_template(model, home / "model"), home / "protected"
    developer.protect(source, protected)
    agreement = developer.verify(source, protected, samples=200)
    print(f"same prediction as the original: {agreement.top1_agreement:.0%}")

    published = developer.publish(protected, name="assistant").model
    print(f"published {published.name} version {published.version}")

    code, _ = developer.invite(name="phone")
    print(code, flush=True)
    input("press Enter when the device has enrolled: ")
    developer.grant("phone")
    print("granted")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

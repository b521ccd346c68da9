"""The developer's part.

1. Make keys and enrol with the operator's code (once).
2. Re-key the model, and compare it with the original.
3. Publish it.
4. Invite a device; when it has enrolled, grant it the model.
"""

import sys
from pathlib import Path

from triparty.developer import Developer


def main(home: Path, model: Path) -> None:
    """Publishes a model and grants it to one device."""
    developer = Developer(home)
    if not home.exists():
        developer.init()
        developer.enroll(input("the operator's code: "))

    protected = home / "protected"
    developer.protect(model, protected)
    agreement = developer.verify(model, protected, samples=200)
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

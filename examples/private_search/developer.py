"""The developer's part.

1. Make keys and enrol with the operator's code (once).
2. Re-key a sentence encoder, and compare it with the original.
3. Publish it.
4. Invite a device; when it has enrolled, grant it the encoder.
"""

import sys
from pathlib import Path

from triparty.developer import Developer


def main(home: Path, encoder: Path) -> None:
    """Publishes an encoder and grants it to one device."""
    developer = Developer(home)
    if not home.exists():
        developer.init()
        developer.enroll(input("the operator's code: "))

    protected = home / "protected"
    developer.protect(encoder, protected)
    agreement = developer.verify(encoder, protected, samples=20)
    print(
        f"largest difference from the original: {agreement.max_relative_error:.1e} of a number"
    )

    published = developer.publish(protected, name="sentences").model
    print(f"published {published.name} version {published.version}")

    code, _ = developer.invite(name="laptop")
    print(code, flush=True)
    input("press Enter when the device has enrolled: ")
    developer.grant("laptop")
    print("granted")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

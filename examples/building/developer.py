"""The developer's part.

1. Make keys and enrol with the operator's code (once).
2. Re-key a sentence encoder, and publish it.
3. Invite a gateway; when it has enrolled, grant it the encoder.
"""

import sys
from pathlib import Path

from triparty.developer import Developer


def main(home: Path, encoder: Path) -> None:
    """Publishes an encoder and grants it to one gateway."""
    developer = Developer(home)
    if not home.exists():
        developer.init()
        developer.enroll(input("the operator's code: "))

    protected = home / "protected"
    developer.protect(encoder, protected)
    published = developer.publish(protected, name="sentences").model
    print(f"published {published.name} version {published.version}")

    code, _ = developer.invite(name="gateway")
    print(code, flush=True)
    input("press Enter when the gateway has enrolled: ")
    developer.grant("gateway")
    print("granted")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

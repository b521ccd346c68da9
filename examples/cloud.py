"""The cloud's part in every story here; one cloud can serve them all.

1. Make a data folder with a certificate (once).
2. Start the server, as a process of its own.
3. Print an invite for a developer.
4. Serve until interrupted.
"""

import subprocess
import sys
from pathlib import Path

PORT = 8443


def triparty(*words: str) -> str:
    """Runs a role command and returns what it printed."""
    command = [sys.executable, "-m", "triparty.common", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(data: Path, port: int = PORT) -> None:
    """Serves from a data folder."""
    url = f"https://127.0.0.1:{port}"
    if not data.exists():
        triparty("cloud", "init", "--data", str(data), "--url", url, "--self-signed")
    serve = [sys.executable, "-m", "triparty.common", "cloud", "serve", "--data", str(data)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            print(server.stdout.readline() if server.stdout else "", end="", flush=True)
            print(triparty("cloud", "invite", "--data", str(data)), end="", flush=True)
            server.wait()
        except KeyboardInterrupt:
            server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

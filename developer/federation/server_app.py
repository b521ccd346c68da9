"""What Flower runs on the developer's machine, by the name that the signed app says."""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from triparty.developer.federation.federation import Federation
from triparty.developer.federation.running import run

FOLDER_VARIABLE = "TRIPARTY_FEDERATION_FOLDER"
"""In the environment of the SuperLink: what a run is told over Flower, its sites see too."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the rounds that are left."""
    run(Federation(Path(os.environ[FOLDER_VARIABLE])), grid, context)

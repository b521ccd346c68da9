"""Units of the handbooks, checked by systemd's own checker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VERIFY_LIMIT_S = 60
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")

needs_systemd = pytest.mark.skipif(
    SYSTEMD_ANALYZE is None and not os.environ.get("CI"),
    reason="systemd-analyze is not installed (apt-get install systemd)",
)
faults = pytest.mark.parametrize(
    ("line", "is_good"),
    [("", True), ("RestartSec=soon", False), ("ProtectSystm=strict", False)],
    ids=["as it is", "a wrong value", "a wrong name"],
)


def unit_in(handbook: str) -> str:
    """The one unit of a handbook."""
    (found,) = re.findall(r"```ini\n(.*?)```", handbook, re.DOTALL)
    return str(found)


def check_unit(text: str, name: str, folder: Path, *, line: str, is_good: bool) -> None:
    """Fails unless systemd says of a unit with one more line what is expected."""
    text = text.replace("/opt/triparty/bin/triparty", sys.executable)
    text = text.replace("[Install]", f"{line}\n[Install]").replace("triparty\n", "root\n", 2)
    file = folder / name
    file.write_text(text)
    assert SYSTEMD_ANALYZE is not None, "not installed (apt-get install systemd)"
    done = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", "--man=no", "--recursive-errors=no", str(file)],
        capture_output=True,
        text=True,
        timeout=VERIFY_LIMIT_S,
        check=False,
    )
    about_it = [said for said in done.stderr.splitlines() if file.name in said]
    assert (done.returncode == 0 and not about_it) == is_good, done.stderr

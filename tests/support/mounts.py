"""What is mounted below a folder, which has to go before the folder is removed."""

from __future__ import annotations

import subprocess
from pathlib import Path


def unmount_below(folder: Path) -> None:
    """Take away every mount below a folder, the innermost first; what is in use goes when it is not any more."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted((item for item in mounts if item.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", place], check=False, timeout=60, capture_output=True)

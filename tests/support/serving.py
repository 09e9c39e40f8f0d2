"""A site that is served by ``airlift serve``, as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.cli import environment


@contextmanager
def serving(root: Path, *, listen: str = "127.0.0.1:0", prefix: Sequence[str] = ()) -> Iterator[str]:
    """Serve a site and yield its address; it has to end well when it is asked to."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "airlift", "serve", "--site", str(root), "--listen", listen],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(root.parent),
    )
    assert process.stderr is not None
    seen = []
    try:
        for line in process.stderr:
            seen.append(line)
            if found := re.search(r"serving .* at (http://\S+)", line):
                yield found[1]
                break
        else:
            raise AssertionError("".join(seen))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            _, rest = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, "".join(seen) + rest
    assert "Traceback" not in rest, rest

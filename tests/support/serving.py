"""A site that is served by ``airlift serve``, as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from tests.support.cli import environment


@contextmanager
def serving(
    root: Path, *, listen: str = "127.0.0.1:0", prefix: Sequence[str] = (), heard: list[str] | None = None
) -> Iterator[str]:
    """Serve a site and yield its address; it has to end well when it is asked to. `heard` gets each line it says."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "airlift", "serve", "--site", str(root), "--listen", listen],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(root.parent),
    )
    assert process.stderr is not None
    seen: list[str] = [] if heard is None else heard
    address: SimpleQueue[str] = SimpleQueue()

    def listen_to(stream: IO[str]) -> None:
        # To the end: a pipe that nobody reads fills up, and then the server waits.
        for line in stream:
            seen.append(line)
            if found := re.search(r"serving .* at (https?://\S+)", line):
                address.put(found[1])
        address.put("")

    reader = threading.Thread(target=listen_to, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        url = address.get(timeout=60)
        assert url, "".join(seen)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        reader.join(60)
        process.stderr.close()
    assert process.returncode == 0, "".join(seen)
    assert "Traceback" not in "".join(seen), "".join(seen)

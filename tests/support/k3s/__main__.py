"""Runs a K3s put together from its parts: ``python -m tests.support.k3s HOME``, from this repository's directory.

It prints what the tests of a real node ask for, one variable a line, when the node is ready. SIGHUP restarts it (the
command that it prints waits for that), SIGTERM ends it.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path

from tests.support.k3s.server import k3s

_PASS_S = 1.0


class _EndError(Exception):
    pass


def main(home: Path) -> None:
    """Run until SIGTERM."""
    restarts = {"asked": 0, "done": 0}

    def end(*_: object) -> None:
        raise _EndError

    def restart(*_: object) -> None:
        restarts["asked"] += 1

    signal.signal(signal.SIGHUP, restart)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        with k3s(home) as server:
            print(f"AIRLIFT_TEST_KUBECONFIG={server.maker.identities.outside}")
            print(f"AIRLIFT_TEST_K3S_ROOT={server.agent.root}")
            print(f"AIRLIFT_TEST_K3S_RESTART={shlex.quote(f'kill -HUP {os.getpid()}')}", flush=True)
            while True:
                if restarts["asked"] > restarts["done"]:
                    restarts["done"] = restarts["asked"]
                    server.stop()
                    server.start()
                server.turn()
                server.refuse_ended()
                for line in server.said:
                    print(line, file=sys.stderr, flush=True)
                server.said.clear()
                time.sleep(_PASS_S)
    except _EndError:
        return


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Measure the main job on one drop, and its parts in the same run; machines are noisy, ratios are not.

The ratio is (time of the parts one after the other on one core) / (time of the command). More than 1 means
that the command used more than one core well. Peak memory is the command's own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from airlift.limits import MIB

PIECE = 4 * MIB


def seconds(action: Callable[[], None]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def parts(source: Path, target: Path) -> dict[str, float]:
    """Return seconds per byte of each part, on one core, over one file."""
    size = source.stat().st_size
    buffer = bytearray(PIECE)
    sealed = bytearray(PIECE + 16)
    cipher = AESGCM(bytes(32))
    count = size // PIECE

    def read() -> None:
        with source.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass

    def sha256() -> None:
        state = hashlib.sha256()
        for _ in range(count):
            state.update(buffer)

    def gcm() -> None:
        for number in range(count):
            cipher.encrypt_into(number.to_bytes(12, "big"), buffer, None, sealed)

    def write() -> None:
        with target.open("wb", buffering=0) as stream:
            for _ in range(count):
                stream.write(buffer)
            os.fsync(stream.fileno())

    read()
    return {name.__name__: seconds(name) / size for name in (read, sha256, gcm, write)}


def run(*arguments: str) -> tuple[float, int]:
    """Run airlift; return seconds and its own peak memory in bytes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "airlift", *arguments]
    with tempfile.TemporaryFile() as talk:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=talk)
        _, status, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            talk.seek(0)
            sys.exit(f"{' '.join(command)} ended with {process.returncode}\n{talk.read().decode()}")
    return taken, usage.ru_maxrss * 1024


def main() -> None:
    """Make the drop, run the job, print the table."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=Path(".cache").resolve() if Path(".cache").is_dir() else None))
    try:
        table(folder, megabytes)
    finally:
        shutil.rmtree(folder)


def table(folder: Path, megabytes: int) -> None:
    """Print one line a step."""
    files = 4
    for number in range(files):
        with (folder / f"file{number}").open("wb") as stream:
            for _ in range(megabytes // files):
                stream.write(os.urandom(1_000_000))
    entries = "".join(f"  - {{path: file{number}, name: file{number}}}\n" for number in range(files))
    (folder / "drop.yaml").write_text(
        f"apiVersion: airlift/v1\nkind: Drop\nmetadata: {{name: bench, channel: stable}}\nfiles:\n{entries}"
    )
    size = sum((folder / f"file{number}").stat().st_size for number in range(files))
    keys = str(folder)
    run("keys", "generate", "signer", "--kind", "signer", "--out", keys, "--no-passphrase")
    run("keys", "generate", "site", "--kind", "identity", "--out", keys, "--no-passphrase")
    trust, bundle, site = str(folder / "trust.json"), str(folder / "bench.airlift"), str(folder / "site")
    signer, identity = str(folder / "signer.key"), str(folder / "site.key")
    run("trust", "init", "-o", trust, "--channel", "stable", "--signer", f"alice={folder}/signer.pub")
    run("resolve", str(folder / "drop.yaml"), "-o", str(folder / "lock.json"), "--no-cache")
    cost = parts(folder / "file0", folder / "written")
    (folder / "written").unlink()
    seal = ["build", str(folder / "lock.json"), "-o", bundle, "--sequence", "1", "--signer", signer]
    steps = {
        "seal": (
            [*seal, "--recipient", str(folder / "site.pub"), "--no-cache"],
            ("read", "sha256", "gcm", "sha256", "write"),
        ),
        "verify": (["verify", bundle, "--trust", trust], ("read", "sha256")),
        "open": (
            ["open", bundle, "--trust", trust, "--identity", identity, "-o", str(folder / "out.tar")],
            ("read", "sha256", "gcm", "sha256", "write"),
        ),
        "import": (["import", bundle, "--site", site], ("read", "sha256", "gcm", "sha256", "write")),
    }
    run("site", "init", site, "--trust", trust, "--url", "http://127.0.0.1:1", "--identity", identity)
    print(f"drop of {size / 1e6:.0f} MB, {os.cpu_count()} cores; parts on one core in MB/s:")
    print("  " + ", ".join(f"{name} {1e-6 / each:.0f}" for name, each in cost.items()))
    print(f"{'step':8} {'MB/s':>8} {'of the sum of its parts':>25} {'peak memory, MB':>17}")
    for name, (arguments, needs) in steps.items():
        taken, memory = run(*arguments)
        ratio = sum(cost[need] for need in needs) * size / taken
        print(f"{name:8} {size / taken / 1e6:8.0f} {ratio:25.2f} {memory / 1e6:17.0f}")


if __name__ == "__main__":
    main()

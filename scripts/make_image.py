"""Make a one-layer image from a static program: make_image.py PROGRAM LAYOUT TAG; prints its digest.

The layout is an OCI image layout directory. No docker, no root, and the same input gives the same digest everywhere.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

from airlift import canonical, digest, oci
from airlift.store import Store


def layer(program: Path) -> bytes:
    """Return a tar with the program under /bin."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folder = tarfile.TarInfo("bin")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        entry = tarfile.TarInfo(f"bin/{program.name}")
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as stream:
            archive.addfile(entry, stream)
    return buffer.getvalue()


def main() -> None:
    """Write the layout."""
    program, root, tag = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    store = Store(root).create()
    content = layer(program)
    config = canonical.encode(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/bin/{program.name}"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest.of(content)]},
            "history": [{"created_by": f"COPY {program.name} /bin/"}],
        }
    )
    manifest = canonical.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": oci.describe(config, oci.CONFIG).to_json(),
            "layers": [oci.describe(content, oci.LAYER).to_json()],
        }
    )
    for data in (content, config, manifest):
        store.put_bytes(data)
    entry = oci.describe(manifest, oci.MANIFEST).to_json()
    entry["annotations"] = {oci.REF_NAME: tag}
    index = canonical.encode({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]})
    (root / "index.json").write_bytes(index)
    print(digest.of(manifest))


if __name__ == "__main__":
    main()

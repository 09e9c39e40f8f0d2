"""A published model, from the directory it was unpacked into to a client of the site's hub."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from airlift.connected.sources.models import ModelSource
from airlift.errors import PolicyError
from airlift.kinds import weights
from airlift.manifest import ModelWeights
from airlift.site.mirrors.models import listing
from airlift.site.server import models as hub_server
from tests.support.catalog import Shelf, carry, served
from tests.support.hub import HubModel, running_hub
from tests.support.sources import settings
from tests.support.weights import real_weights


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return real_weights()


def test_published_safetensors_and_onnx_are_whole_and_harmless(files: dict[str, bytes]) -> None:
    for path in ("model.safetensors", "onnx/model_half.onnx", "LICENSE"):
        inspector = weights.Inspector(path, len(files[path]), subject=path)
        inspector.update(files[path])
        inspector.finish()
        assert inspector.danger is None
    (length,) = struct.unpack_from("<Q", files["model.safetensors"])
    assert 0 < length < 100_000


def test_published_torchscript_is_refused_by_name_and_by_content(files: dict[str, bytes]) -> None:
    assert weights.danger("silero_vad.jit", b"") == "is of a kind that holds a pickle"
    assert weights.danger("silero_vad", files["silero_vad.jit"]) == ("is a zip archive, the form of PyTorch's pickles")


@pytest.mark.parametrize("origin", ["directory", "hub"])
def test_a_published_model_arrives_as_it_was(tmp_path: Path, files: dict[str, bytes], origin: str) -> None:
    for path, data in files.items():
        place = tmp_path / "silero" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    model = HubModel(dict(files), lfs={path for path in files if path != "LICENSE"}, licence="mit")
    with running_hub({"snakers4/silero-vad": model}) as upstream:
        where = (
            {"repo": "snakers4/silero-vad"} if origin == "hub" else {"path": "silero", "name": "snakers4/silero-vad"}
        )
        source = ModelSource(settings(tmp_path, environment={"HF_ENDPOINT": upstream.url}))
        with pytest.raises(PolicyError, match=r"silero_vad\.jit: is of a kind that holds a pickle"):
            source.resolve(ModelWeights.model_validate(where), None)
        entry = source.resolve(ModelWeights.model_validate({**where, "exclude": ["*.jit"]}), None)
        shelf = Shelf(tmp_path)
        carry(entry, shelf.store, source.fetch)
    shelf.publish(listing(entry.artifacts[0].artifact, shelf.store))
    with served(shelf.catalog, hub_server.routes) as url:
        folder = Path(snapshot_download("snakers4/silero-vad", endpoint=f"{url}/hf", cache_dir=tmp_path / "hub"))
    shelf.catalog.close()
    got = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert got == {path: data for path, data in files.items() if path != "silero_vad.jit"}

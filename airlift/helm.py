"""Drives the ``helm`` program: what a chart would install, as YAML.

* helm gets a home of its own in the work directory and a proxy that does not exist: no plugin, repository, cluster or
  schema on the network takes part in what a chart shows.
* It runs with a time-out and bounds on memory and output.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess  # noqa: TID251 - this file drives helm
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.errors import ResolveError
from airlift.kinds import semver
from airlift.kinds.chart_metadata import Chart

_TIMEOUT_S: Final = 120
_OUTPUT: Final = 64 * limits.MIB
_MEMORY: Final = 2 * limits.GIB
_RELEASE: Final = "release"

# A lock must not depend on the version that a helm was built with, so the version is always given: first that of the
# K3s that we deploy to, then others from new to old.
_KUBE_VERSIONS: Final = (
    "1.36.3",
    *(f"1.{minor}.{patch}" for minor in range(40, 9, -1) for patch in range(20, -1, -1)),
)


class Helm:
    """A helm program.

    Attributes:
        program: where it is.
    """

    def __init__(self, program: str, work: Path, path: str) -> None:
        self.program = program
        self._work = work
        self._path = path

    def render(
        self,
        chart: Chart,
        archive: bytes,
        values: Mapping[str, bytes],
        *,
        release: str = _RELEASE,
        namespace: str | None = None,
    ) -> bytes:
        """Return what ``helm template`` prints for a chart: with its CRDs, hooks and tests.

        Args:
            chart: the chart, read from `archive`.
            archive: the .tgz.
            values: content of values files by the name that the user gave them; later ones win.
            release: its name in the cluster.
            namespace: where its objects go; None is helm's own default.

        Raises:
            ResolveError: helm refuses, in its own words; or it takes too long or prints too much.
            StoreError: the work directory cannot be written.
        """
        subject = f"chart {chart.name} {chart.version}"
        with fs.work_directory(self._work, "helm") as home:
            # Relative names: helm splits a values file's name at commas, and a directory may have one.
            fs.write(home / chart.file_name, archive)
            arguments = [
                self.program,
                "template",
                release,
                f"./{chart.file_name}",
                "--include-crds",
                "--kube-version",
                kube_version(chart.kube_version, subject=subject),
            ]
            if namespace is not None:
                arguments += ["--namespace", namespace]
            names: dict[str, str] = {}
            for number, (name, content) in enumerate(values.items()):
                names[f"values-{number}.yaml"] = name
                fs.write(home / f"values-{number}.yaml", content)
                arguments += ["--values", f"values-{number}.yaml"]
            code, output, said = self._run(arguments, home, subject)
            if code:
                for ours, theirs in names.items():
                    said = said.replace(ours, theirs)
                raise _refusal(subject, said.replace(f"{home}/", ""), code)
            return output

    def _run(self, arguments: list[str], home: Path, subject: str) -> tuple[int, bytes, str]:
        talk = home / "stderr"
        with fs.guarded("writing"), talk.open("wb") as err:
            # A pipe, because helm does not notice when a file could not take all that it prints.
            process = subprocess.Popen(  # noqa: S603 - a program that the user named by PATH, no shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                cwd=home,
                env=_environment(home, self._path),
                start_new_session=True,
            )
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(_TIMEOUT_S, stop)
        timer.start()
        try:
            _bound(process.pid)
            output = process.stdout.read(_OUTPUT + 1) if process.stdout else b""
            if len(output) > _OUTPUT:
                raise ResolveError(f"{subject}: helm prints more than {_OUTPUT} bytes for it")
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.communicate()
        if late.is_set():
            raise ResolveError(f"{subject}: helm did not finish in {_TIMEOUT_S} s")
        with fs.guarded("reading"), talk.open("rb") as stream:
            return code, output, stream.read(limits.ERROR_BODY).decode("utf-8", "replace")


def _environment(home: Path, path: str) -> dict[str, str]:
    nowhere = "http://127.0.0.1:9"  # the discard port: nothing answers
    return {
        "PATH": path,
        "HOME": str(home),
        "TMPDIR": str(home),
        "HELM_CACHE_HOME": str(home / "cache"),
        "HELM_CONFIG_HOME": str(home / "config"),
        "HELM_DATA_HOME": str(home / "data"),
        "HELM_PLUGINS": str(home / "plugins"),
        "KUBECONFIG": str(home / "kubeconfig"),
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def _bound(pid: int) -> None:
    """Bound what a process that has just started may take; it may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (_OUTPUT, _OUTPUT))


def _refusal(subject: str, said: str, code: int) -> ResolveError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if line.startswith("Error: ")), None)
    if start is None:
        return ResolveError(f"{subject}: helm ended with {code}: {' '.join(lines[-3:])[:2000] or 'without a word'}")
    sentence = " ".join(line for line in lines[start:] if not line.startswith("Use --debug flag"))
    return ResolveError(
        f"{subject} cannot be rendered: {sentence.removeprefix('Error: ')[:2000]}",
        hint="give the values that it needs in a file, and name that file under `values:` of this chart",
    )


def find(environment: Mapping[str, str], work: Path) -> Helm | None:
    """Return the helm of the environment's PATH, or None."""
    path = environment.get("PATH", "")
    program = shutil.which("helm", path=path) if path else None
    return Helm(program, work, path) if program else None


def at(program: Path, work: Path) -> Helm:
    """Return the helm that lies in a file, such as one that a drop carries."""
    return Helm(str(program), work, str(program.parent))


def kube_version(wanted: str, *, subject: str) -> str:
    """Return the Kubernetes version to render for: one inside the chart's range.

    Raises:
        ResolveError: the range is none, or nothing known is inside it.
    """
    if not wanted:
        return _KUBE_VERSIONS[0]
    try:
        allowed = semver.parse_range(wanted)
    except ValueError as error:
        raise ResolveError(f"{subject}: kubeVersion: {error}") from None
    for text in _KUBE_VERSIONS:
        if semver.parse_version(text) in allowed:
            return text
    raise ResolveError(f"{subject}: kubeVersion {wanted!r}: no Kubernetes version that airlift knows is inside it")

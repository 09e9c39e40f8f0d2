"""The isolated process in which pip and pip-tools run; `airlift.connected.pip_process` starts it.

One JSON object comes in on stdin, one goes out on stdout; what pip says goes to stderr. Three tasks:

- ``configuration``: what the user's pip configuration says about indexes, certificates, proxies.
- ``resolve``: pins for one target. One process per target, since pip's and packaging's globals are the process's.
- ``build``: one wheel from a source distribution of an index.

This is the only module that imports pip and piptools; nothing imports it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pip._internal.cli import cmdoptions
from pip._internal.cli.main import main as pip_main
from pip._internal.commands import create_command
from pip._internal.exceptions import PipError
from pip._internal.models.link import Link
from pip._internal.req.constructors import install_req_from_line
from pip._internal.req.req_install import InstallRequirement
from pip._internal.resolution.resolvelib.factory import Factory
from pip._internal.resolution.resolvelib.requirements import RequiresPythonRequirement
from pip._vendor.packaging import markers as pip_markers
from pip._vendor.resolvelib.resolvers import ResolutionImpossible
from piptools.exceptions import PipToolsError
from piptools.repositories import PyPIRepository
from piptools.resolver import BacktrackingResolver
from piptools.utils import key_from_ireq

Task = Mapping[str, Any]
Answer = dict[str, Any]


class TargetRepository(PyPIRepository):
    """pip-tools' view of the indexes, with the finder and the Requires-Python check of a target.

    pip-tools itself builds the finder for the host and drops the Python version on the way to the resolver (pip-tools
    PR #1380, issues #585 and #1124).
    """

    def __init__(self, pip_args: list[str], cache_dir: str, version: tuple[int, ...]) -> None:
        super().__init__(pip_args, cache_dir)
        self._finder = self.command._build_package_finder(  # noqa: SLF001 - there is no public way
            options=self.options,
            session=self.session,
            target_python=cmdoptions.make_target_python(self.options),
        )
        original = self.command.make_resolver

        def make_resolver(**arguments: Any) -> Any:
            return original(**{**arguments, "py_version_info": version})

        self._command.make_resolver = make_resolver  # type: ignore[method-assign, assignment]


@contextlib.contextmanager
def marker_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Let pip evaluate markers for the target; it would do so for the host."""
    saved = pip_markers.default_environment
    pip_markers.default_environment = lambda: cast("pip_markers.Environment", dict(environment))
    try:
        yield
    finally:
        pip_markers.default_environment = saved


@contextlib.contextmanager
def names_only() -> Iterator[None]:
    """Refuse requirements by address, which only METADATA can bring here.

    pip would fetch from anywhere, and ``--only-binary`` does not hold for them: a source distribution would be built,
    that is, its code would run.
    """
    saved = Factory._make_requirements_from_install_req  # noqa: SLF001 - there is no public way

    def checked(self: Factory, ireq: InstallRequirement, requested_extras: Iterable[str]) -> Iterator[Any]:
        if ireq.link is not None and ireq.match_markers(requested_extras):
            raise PipError(f"{ireq.name} is asked for by address ({ireq.link.redacted_url}), by {_asker(ireq)}")
        return saved(self, ireq, requested_extras)

    Factory._make_requirements_from_install_req = checked  # type: ignore[method-assign] # noqa: SLF001
    try:
        yield
    finally:
        Factory._make_requirements_from_install_req = saved  # type: ignore[method-assign] # noqa: SLF001


def _asker(ireq: InstallRequirement) -> str:
    asker = ireq.comes_from
    return str(asker.name if isinstance(asker, InstallRequirement) else asker)


def configuration() -> Answer:
    """Return what pip's configuration files and ``PIP_*`` variables say, as pip itself merges them."""
    options, _ = create_command("install").parse_args([])
    return {
        "index_url": None if options.no_index else options.index_url,
        "extra_index_urls": [] if options.no_index else list(options.extra_index_urls),
        "find_links": list(options.find_links),
        "cert": options.cert,
        "client_cert": options.client_cert,
        "trusted_hosts": list(options.trusted_hosts),
        "proxy": options.proxy or None,
        "timeout": float(options.timeout),
    }


def _index_args(task: Task) -> list[str]:
    """Return pip's arguments for the indexes; they stay inside this process."""
    where = task["indexes"]
    args = ["--isolated", "--disable-pip-version-check", "--no-input", "--keyring-provider", "disabled"]
    args += ["--index-url", where["index_url"], "--timeout", str(where["timeout"])]
    args += ["--retries", str(where["retries"])]
    for url in where["extra_index_urls"]:
        args += ["--extra-index-url", url]
    for host in where["trusted_hosts"]:
        args += ["--trusted-host", host]
    for option, key in (("--cert", "cert"), ("--client-cert", "client_cert"), ("--proxy", "proxy")):
        if where[key]:
            args += [option, where[key]]
    if task.get("built"):
        args += ["--find-links", task["built"]]
    return args


def resolve(task: Task) -> Answer:
    """Pin a set of requirements for one target."""
    target = task["target"]
    args = [*_index_args(task), "--cache-dir", task["cache"], "--only-binary", ":all:", "--implementation", "cp"]
    # No --abi: with an implementation and a version pip adds cpXY, abi3 and none itself.
    args += ["--python-version", ".".join(str(part) for part in target["version"])]
    for platform in target["platforms"]:
        args += ["--platform", platform]
    if task["pre"]:
        args.append("--pre")
    with marker_environment(target["markers"]), names_only():
        repository = TargetRepository(args, task["cache"], tuple(target["version"]))
        wanted = [item for item in map(_requirement, task["lines"]) if item.match_markers()]
        if all(item.constraint for item in wanted):
            return {"pins": []}
        resolver = BacktrackingResolver(
            constraints=wanted, existing_constraints={}, repository=repository, allow_unsafe=True
        )
        found = resolver.resolve()
    return {"pins": [_pin(item) for item in sorted(found, key=key_from_ireq)]}


def _requirement(line: Mapping[str, Any]) -> InstallRequirement:
    hashes = [value.partition(":")[2] for value in line["hashes"]]
    return install_req_from_line(
        line["text"],
        comes_from=line["place"],
        hash_options={"sha256": hashes} if hashes else {},
        constraint=line["constraint"],
        line_source=line["place"],
    )


def _pin(item: InstallRequirement) -> Answer:
    link: Link | None = item.link
    if link is None:
        raise PipError(f"no file was chosen for {item.name}")
    return {
        "project": key_from_ireq(item),
        "filename": link.filename,
        "url": link.url_without_fragment,
        "sha256": link.hash if link.hash_name == "sha256" else None,
        "local": link.is_file,
    }


def build(task: Task) -> Answer:
    """Build one wheel from a source distribution that lies on this disk."""
    out = Path(task["out"])
    args = ["wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", str(out), *_index_args(task), task["sdist"]]
    status = pip_main(args)
    wheels = sorted(path.name for path in out.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise PipError(f"pip built {len(wheels)} wheels and ended with status {status}")
    return {"wheel": wheels[0]}


def _failure(error: BaseException) -> Answer:
    """Return an error with the requirements that pip could not satisfy together."""
    cause = error.__cause__
    projects = []
    if isinstance(cause, ResolutionImpossible):
        for requirement, parent in cause.causes:
            projects.append(
                {
                    "project": requirement.project_name,
                    "specifier": _specifier(requirement),
                    "wanted": requirement.format_for_error(),
                    "by": None if parent is None else f"{parent.name} {parent.version}",
                    "is_python": isinstance(requirement, RequiresPythonRequirement),
                }
            )
    return {"message": str(error), "projects": projects}


def _specifier(requirement: Any) -> str:
    _, item = requirement.get_candidate_lookup()
    return "" if item is None else str(item.specifier)


_TASKS = {"resolve": resolve, "build": build}


def main() -> int:
    """Do one task; the answer has either ``result`` or ``error``."""
    # pip prints to stdout; only our answer belongs there.
    answers, sys.stdout = sys.stdout, sys.stderr
    task = json.load(sys.stdin)
    answer: Answer
    try:
        answer = {"result": configuration() if task["task"] == "configuration" else _TASKS[task["task"]](task)}
    except (PipError, PipToolsError, RuntimeError, OSError, ValueError) as error:
        answer = {"error": _failure(error)}
    json.dump(answer, answers)
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The defaults of a chart as Helm mixes them: with those of the charts inside it, and what it imports from them.

Helm does that before it installs a chart whose Chart.yaml names dependencies, and its record has the result:

* What a chart says of the charts inside it wins over what they say themselves, mapping by mapping.
* What is imported by ``import-values`` fills what is left out.
* A chart whose Chart.yaml names no dependency keeps its own defaults, whatever is inside it.

Not everything follows from the chart alone, and then nothing is concluded: a chart deeper inside that values can switch
off, two of one name, a null (Helms differ in what becomes of it), and globals, which charts above set for those inside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airlift.site.deploy import helm_values

GLOBAL: Final = "global"
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A dependency as Chart.yaml names it.

    Attributes:
        chart: name of the chart.
        key: its alias, else its name: where its values are.
        may_be_off: whether values can switch it off.
        imports: paths in its values, and where in those of the chart they go.
    """

    chart: str
    key: str
    may_be_off: bool
    imports: tuple[tuple[Path, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """A chart with the charts inside it.

    Attributes:
        name: of the chart.
        values: its own defaults.
        named: its dependencies.
        inside: the charts in its ``charts/``.
    """

    name: str
    values: Mapping[str, Any]
    named: tuple[Named, ...] = ()
    inside: tuple[Tree, ...] = ()


@dataclass(frozen=True, slots=True)
class Mixed:
    """What Helm makes of a chart's defaults.

    Attributes:
        values: the defaults.
        charts: the charts inside, each with its key.
        unknown: paths below which there may be more than is known.
        imports: whether anything in it is imported from a chart inside another.
    """

    values: Mapping[str, Any]
    charts: tuple[tuple[str, Mixed], ...] = ()
    unknown: frozenset[Path] = frozenset()
    imports: bool = False

    def differing(self, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield the paths at which a record of Helm's has something else."""
        keys = {key for key, _ in self.charts} | {path[0] for path in self.unknown if path}
        yield from _Comparison(self.unknown, keys, self.imports).differing(self.values, record, ())


def mix(tree: Tree, enabled: Collection[str]) -> Mixed:
    """Return the defaults of a chart that is installed.

    Args:
        tree: the chart.
        enabled: keys of the dependencies that were not switched off.
    """
    return _mix(tree, enabled)


def _mix(tree: Tree, enabled: Collection[str] | None) -> Mixed:
    """Mix a chart; of one that lies inside another nobody says which of its dependencies are on."""
    if not tree.named or (enabled is not None and not enabled):
        # Without a dependency that is on, Helm mixes nothing: its templates get what they have of it later.
        return Mixed(tree.values, tuple((inner.name, _mix(inner, None)) for inner in tree.inside if not tree.named))
    names = {item.chart for item in tree.named}
    charts = [(inner.name, _mix(inner, None)) for inner in tree.inside if inner.name not in names]
    unknown: set[Path] = set()
    known: list[Named] = []
    for item in tree.named:
        if enabled is not None and item.key not in enabled:
            continue
        found = [inner for inner in tree.inside if inner.name == item.chart]
        if len(found) == 1 and (enabled is not None or not item.may_be_off):
            charts.append((item.key, _mix(found[0], None)))
            known.append(item)
        elif found:
            unknown |= {(item.key,), *([()] if item.imports else [])}
    imports = any(item.imports for item in tree.named) or any(inner.imports for _, inner in charts)
    own = Mixed(tree.values, tuple(charts), frozenset(unknown), imports)
    values, deeper = _filled({}, own)
    imported: Mapping[str, Any] = {}
    for item in known:
        for source, target in item.imports:
            found_there = _at(values, (item.key, *source))
            if isinstance(found_there, Mapping):
                imported = helm_values.merged(_below(target, found_there), imported)
            if GLOBAL in source or any(path[:1] == (item.key,) for path in deeper):
                unknown.add(())
    return Mixed(helm_values.merged(imported, values), own.charts, frozenset(unknown | deeper), imports)


def _filled(over: Mapping[str, Any], chart: Mixed) -> tuple[dict[str, Any], set[Path]]:
    """Return values with the defaults of a chart, and of those inside it, where they are silent."""
    found, unknown = helm_values.merged(chart.values, over), set(chart.unknown)
    for key, inner in chart.charts:
        below = found.get(key, {})
        if not isinstance(below, Mapping):
            unknown.add((key,))
            continue
        found[key], deeper = _filled(below, inner)
        unknown |= {(key, *path) for path in deeper}
    return found, unknown


def _at(values: Mapping[str, Any], path: Path) -> Any:
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _below(path: Path, value: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


@dataclass(frozen=True, slots=True)
class _Comparison:
    unknown: Collection[Path]
    keys: Collection[str]
    imports: bool

    def differing(self, mine: object, theirs: object, path: Path) -> Iterator[str]:
        if not isinstance(mine, Mapping) or not isinstance(theirs, Mapping):
            yield from helm_values.differing(mine, theirs, ".".join(path))
            return
        for key in sorted({*mine, *theirs}):
            below = (*path, key)
            if key == GLOBAL and path and path[0] in self.keys:
                continue
            if key not in mine:
                is_other = theirs[key] is not None and not self._may_be_more(below)
            elif mine[key] is None:
                continue  # the record has the null, or lacks it, or has what it was to take away
            elif key not in theirs:
                is_other = not _is_nothing(mine[key])
            elif theirs[key] is None:
                # Helm lets a null that is imported loose on the values that it is imported from.
                is_other = not self.imports and not _is_nothing(mine[key])
            else:
                yield from self.differing(mine[key], theirs[key], below)
                continue
            if is_other:
                yield ".".join(below)

    def _may_be_more(self, path: Path) -> bool:
        return any(path[: len(start)] == start for start in self.unknown)


def _is_nothing(value: object) -> bool:
    """Say whether a value is a mapping that has only nulls in it."""
    return isinstance(value, Mapping) and all(item is None or _is_nothing(item) for item in value.values())

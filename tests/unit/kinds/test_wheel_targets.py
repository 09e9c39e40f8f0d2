from __future__ import annotations

import pytest
from packaging.tags import parse_tag

from airlift.errors import ResolveError
from airlift.kinds.wheel_targets import Chosen, WheelTarget, check_closure
from airlift.kinds.wheels import parse_filename, parse_metadata
from tests.support.indexes import metadata_of

GLIBC = WheelTarget("3.12", "linux/amd64", "glibc-2.28")
MUSL = WheelTarget("3.11.4", "linux/arm64", "musl-1.2")


def chosen(project: str, version: str, *, tags: str = "py3-none-any", **said: object) -> Chosen:
    name = parse_filename(f"{project}-{version}-{tags}.whl")
    return Chosen(name, parse_metadata(metadata_of(project, version, **said), wheel=name))  # type: ignore[arg-type]


def test_platforms_are_written_out_with_their_aliases_newest_first() -> None:
    assert WheelTarget("3.12", "linux/amd64", "glibc-2.17").platforms() == [
        "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_16_x86_64", "manylinux_2_15_x86_64",
        "manylinux_2_14_x86_64", "manylinux_2_13_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64",
        "manylinux_2_11_x86_64", "manylinux_2_10_x86_64", "manylinux_2_9_x86_64", "manylinux_2_8_x86_64",
        "manylinux_2_7_x86_64", "manylinux_2_6_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64",
    ]  # fmt: skip
    arm = WheelTarget("3.12", "linux/arm64", "glibc-2.18").platforms()
    assert arm == ["manylinux_2_18_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"]
    assert MUSL.platforms() == ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64", "musllinux_1_0_aarch64",
                                "linux_aarch64"]  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "runs"),
    [
        ("cp312-cp312-manylinux_2_28_x86_64", True),
        ("cp310-abi3-manylinux2014_x86_64", True),
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp312-none-any", True),
        ("cp312-cp312-manylinux_2_31_x86_64", False),
        ("cp313-cp313-manylinux_2_28_x86_64", False),
        ("cp313-abi3-manylinux_2_28_x86_64", False),
        ("cp312-cp312-musllinux_1_2_x86_64", False),
        ("cp312-cp312-manylinux_2_28_aarch64", False),
        ("cp312-cp312-macosx_11_0_arm64", False),
        ("cp312-cp312t-manylinux_2_28_x86_64", False),
    ],
)
def test_tags_are_those_of_the_target(tag: str, runs: bool) -> None:
    assert bool(parse_tag(tag) & set(GLIBC.tags())) is runs


def test_markers_are_those_of_the_target() -> None:
    markers = MUSL.markers()
    assert markers["python_version"] == "3.11"
    assert markers["python_full_version"] == "3.11.4"
    assert markers["platform_machine"] == "aarch64"
    assert markers["sys_platform"] == "linux"


def test_without_a_patch_number_the_newest_is_meant() -> None:
    assert GLIBC.full_version == "3.12.99"


@pytest.mark.parametrize("platform", ["windows/amd64", "darwin/arm64", "linux/mips64le", "linux/arm64/v9"])
def test_a_platform_without_wheel_tags_is_refused(platform: str) -> None:
    with pytest.raises(ResolveError, match=f"no wheel tags are known for the platform {platform}"):
        WheelTarget("3.12", platform, "glibc-2.28").tags()


def test_a_complete_set_gives_its_edges() -> None:
    wheels = {
        "app": chosen("app", "1", requires=["lib[fast]>=2", "winonly; sys_platform == 'win32'", "old; python_version < '3.12'"]),
        "lib": chosen("lib", "2.1", requires=["speed; extra == 'fast'", "slow; extra == 'slow'"]),
        "speed": chosen("speed", "0.1", tags="cp312-cp312-manylinux_2_17_x86_64", requires=["app"]),
    }  # fmt: skip
    assert check_closure(GLIBC, ["app"], wheels) == {"app": ("lib",), "lib": ("speed",), "speed": ("app",)}


def test_markers_of_the_target_decide_what_is_missing() -> None:
    wheels = {"app": chosen("app", "1", requires=["arm-only; platform_machine == 'aarch64'"])}
    check_closure(GLIBC, ["app"], wheels)
    with pytest.raises(ResolveError, match=r"app asks for arm-only; .*, which was not chosen"):
        check_closure(MUSL, ["app"], wheels)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wheels = {
        "app": chosen("app", "1", requires=["lib>=2", "gone", "web @ https://example.com/web.whl"], python=">=3.13"),
        "lib": chosen("lib", "1", tags="cp312-cp312-win_amd64"),
        "extra": chosen("extra", "1"),
    }
    with pytest.raises(ResolveError) as caught:
        check_closure(GLIBC, ["app", "never; python_version < '3'"], wheels)
    assert caught.value.message.splitlines() == [
        "the wheels for target 3.12-linux-amd64-glibc-2.28 are not a complete set:",
        "  app asks for lib>=2, and 1 was chosen",
        "  app asks for gone, which was not chosen",
        "  app asks for web by address (https://example.com/web.whl)",
        "  app-1-py3-none-any.whl wants Python >=3.13",
        "  lib-1-cp312-cp312-win_amd64.whl does not run there",
        "  extra was chosen and nothing asks for it",
    ]

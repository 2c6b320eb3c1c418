"""The packages of an environment beside those that requirements.lock pins."""

import platform
import re
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version

from facet.base.names import PACKAGES_FILE
from facet.errors import InputError


def read_pins(text: str, python: str = "") -> dict[str, str]:
    """The version of each package in a requirements.lock, by its name as indexes compare it.

    Packages whose marker does not hold for the version `python` (3.12.1; this one if empty) are
    left out.
    """
    python = python or platform.python_version()
    versions = {
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
    }
    found: dict[str, str] = {}
    # Besides requirements there are options like --hash, indented or not, and comments.
    for line in re.findall(r"^[A-Za-z0-9].*", text, re.MULTILINE):
        try:
            pin = Requirement(line.partition(" #")[0].strip().removesuffix("\\"))
            (version,) = [s.version for s in pin.specifier if s.operator == "=="]
        except (InvalidRequirement, ValueError):
            what = "pins no version of a package; `make lock` and commit it"
            raise InputError(f"{PACKAGES_FILE}: {line.strip()}: {what}") from None
        if pin.marker is None or pin.marker.evaluate(versions):
            found[canonicalize_name(pin.name)] = version
    return found


def installed_versions() -> dict[str, str]:
    """The version of each package of this environment, by its name as indexes compare it."""
    found: dict[str, str] = {}
    for one in metadata.distributions():
        if one.name:  # the first is the one that is imported
            found.setdefault(canonicalize_name(one.name), one.version)
    return found


def find_other_versions(installed: dict[str, str], pins: dict[str, str]) -> dict[str, str]:
    """What is installed of each package that is not as pinned: its version, or `none`."""
    return {
        name: installed.get(name, "none")
        for name, version in pins.items()
        if canonicalize_version(installed.get(name, "none")) != canonicalize_version(version)
    }

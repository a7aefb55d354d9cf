"""Debian packages that tests need: who has which program, and installing what is missing where that is allowed.

As root on Debian the package is installed; otherwise the caller learns in one sentence what is missing. Services that packages
start are kept from starting, so that they occupy no port.
"""

import functools
import os
import shutil
import subprocess
from pathlib import Path

PROGRAM = {
    "docker-registry": "docker-registry",
    "nginx-light": "nginx",
    "mariadb-server": "mariadbd",
    "postgresql": "psql",
    "apache2-utils": "htpasswd",
    "rsyslog": "rsyslogd",
}
_POLICY = Path("/usr/sbin/policy-rc.d")
_SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
_TIMEOUT_S = 600


class MissingPackageError(Exception):
    """A package is not installed and cannot be; the message is one line."""


def has(package: str) -> bool:
    """Whether the program of this package can be run. Packages that are not in PROGRAM carry the name of their program."""
    program = PROGRAM.get(package, package)
    if program == "psql":  # the server's programs lie outside every path
        return any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SBIN}") is not None


def ensure(*packages: str) -> None:
    """Install what is missing. Raises MissingPackageError naming the packages if that is not possible here."""
    missing = [package for package in packages if not has(package)]
    if not missing:
        return
    wanted = " ".join(missing)
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        message = f"needs the Debian package(s) {wanted}: run as root on Debian, or `apt-get install {wanted}`"
        raise MissingPackageError(message)
    _update()
    done = _apt("install", "--yes", "--no-install-recommends", *missing)
    still = [package for package in missing if not has(package)]
    if done.returncode or still:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        message = f"could not install the Debian package(s) {' '.join(still or missing)}: {reason}"
        raise MissingPackageError(message)


@functools.cache
def _update() -> None:
    _apt("update")


def _apt(*args: str) -> subprocess.CompletedProcess[str]:
    """apt-get without questions; a policy that forbids starting services stands while it runs, unless one is there already."""
    made = not _POLICY.exists()
    if made:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(
            ["apt-get", "-q", *args], capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S, check=False
        )
    finally:
        if made:
            _POLICY.unlink(missing_ok=True)

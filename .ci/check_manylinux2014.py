"""Check that pip finds, for every package of envs/cuda11.lock, a wheel for glibc 2.17 whose hash the lock has.

Only metadata is fetched, not the gigabytes: pip reads it out of the wheels by range requests. mmcv and connection_pool,
pure Python sdists, are in sdists.lock instead.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "envs" / "cuda11.lock"


def read_hashes(lock: str) -> dict[str, set[str]]:
    """Return `name==version` to the sha256 sums that the lock allows."""
    packages: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in lock.splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+==[^\s;\\]+)", line):
            current = packages.setdefault(match[1], set())
        elif match := re.match(r"\s+--hash=sha256:([0-9a-f]{64})", line):
            current.add(match[1])
    return packages


def main() -> None:
    """Let pip plan the installation on manylinux2014 and compare the hashes of what it would take."""
    packages = read_hashes(LOCK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        # Without the hashes: pip reads metadata alone only when it need not hash whole wheels.
        pins = Path(folder, "pins.txt")
        pins.write_text("\n".join(packages), encoding="utf-8")
        report = Path(folder, "report.json")
        where = ["--platform", "manylinux2014_x86_64", "--python-version", "3.11", "--implementation", "cp"]
        # Without fast-deps, pip fetches whole wheels from an index that has no metadata files beside them: 2.7 GB here.
        plan = ["--dry-run", "--use-feature", "fast-deps", "--ignore-installed", "--no-deps", "--only-binary", ":all:"]
        files = ["--target", folder, "--report", str(report), "-r", str(pins)]
        command = [sys.executable, "-m", "pip", "install", "-qq", *plan, *where, *files]
        if subprocess.run(command, check=False).returncode:
            sys.exit("cuda11.lock has a package without a manylinux2014 wheel (see above)")
        planned = json.loads(report.read_text(encoding="utf-8"))["install"]

    allowed = set().union(*packages.values())
    sums = {item["metadata"]["name"]: item["download_info"]["archive_info"]["hashes"]["sha256"] for item in planned}
    if unknown := sorted(name for name, digest in sums.items() if digest not in allowed):
        sys.exit(f"cuda11.lock lacks the hash of the manylinux2014 wheel of {', '.join(unknown)}")
    if len(planned) != len(packages):
        sys.exit(f"pip plans {len(planned)} packages, the lock has {len(packages)}")
    print(f"manylinux2014: {len(planned)} packages of cuda11.lock have a wheel for glibc 2.17")


if __name__ == "__main__":
    main()

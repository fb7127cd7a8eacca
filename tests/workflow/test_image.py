"""What an image for Apptainer would hold: the sections of its definition file, run in a bare Debian in their order.

Apptainer is not in Debian 12. debootstrap makes the system that `From: debian:bookworm-slim` names; a root directory of
its own stands for the container.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dag import archive_bytes, settings
from set_up import commit_working_tree, run, shell_of_a_user

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("debootstrap") is None, reason="needs root and debootstrap"),
]


def sections_of(definition: str) -> dict[str, str]:
    """Return the sections of a definition file by name; "" is its header."""
    _, *rest = re.split(r"^%(\w+)\n", "%header\n" + definition, flags=re.MULTILINE)
    return dict(zip(rest[::2], rest[1::2], strict=True))


class Container:
    """A root directory in which lines are run as in a container of its image, with this machine's network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        sites = run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"], root.parent,
                    shell_of_a_user()).splitlines()  # fmt: skip
        mirror = [line.split()[0] for line in sites if line.endswith(" bookworm")][:1]  # else the program's own
        run(["debootstrap", "--variant=minbase", "bookworm", str(root), *mirror], root.parent, shell_of_a_user())
        # A network that has certificates of its own names them in such variables.
        self.variables = {"HOME": "/root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            if file := os.environ.get(name):
                shutil.copy(file, root / "opt" / name)
                self.variables[name] = f"/opt/{name}"
        for file in ("/etc/resolv.conf", "/etc/hosts"):
            shutil.copy(file, root / file[1:])
        # Wheels that the machine has anyway: PyPI's torch is of several GB.
        if os.path.isdir(wheels := os.environ.get("PIP_FIND_LINKS", "")):
            self.variables["PIP_FIND_LINKS"] = "/opt/PIP_FIND_LINKS"
            shutil.copytree(wheels, root / "opt" / "PIP_FIND_LINKS")

    def run(self, lines: str) -> str:
        """Return what the lines of a section print."""
        command = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={self.root}/proc"]
        command += ["chroot", str(self.root), "sh", "-ec", lines]
        result = subprocess.run(
            command, env=self.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200
        )
        assert result.returncode == 0, result.stdout
        return result.stdout


def test_the_sections_of_the_definition_file_make_what_takes_images_to_a_report(tmp_path: Path) -> None:
    names = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    commit_working_tree(clone := tmp_path / "mimflow", shell_of_a_user() | names)
    sections = sections_of((clone / "envs" / "cpu.def").read_text(encoding="utf-8"))
    assert "From: debian:bookworm-slim" in sections["header"]
    container = Container(tmp_path / "root")
    for source, target in map(str.split, sections["files"].strip().splitlines()):
        copy = shutil.copytree if (clone / source).is_dir() else shutil.copy
        (container.root / target[1:]).parent.mkdir(parents=True, exist_ok=True)
        copy(clone / source, container.root / target[1:])
    container.run(sections["post"])
    container.run(sections["test"])

    folder = container.root / "home" / "data"
    folder.mkdir()
    (folder / "photos.zip").write_bytes(archive_bytes(["a", "b", "c"]))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings({"path": "photos.zip"})), encoding="utf-8")
    runscript = sections["runscript"].replace('"$@"', "--cores 2 --configfile config.yaml")
    lines = f"cd /home/data\n{sections['environment']}\n{runscript}"
    assert "report: results/small/report.html" in container.run(lines)
    assert (folder / "results/small/report.html").is_file()

"""Write envs/<environment>.def, from which Apptainer builds an image with mimflow and one of its locked environments.

`python3 envs/apptainer.py`, and `make locks` at its end. Standard library only.
"""

import hashlib
import sys
from pathlib import Path
from string import Template

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I leaves out the folder of the script

import install

#: What the image holds of the repository: all that a run needs.
CONTENT = ("LICENSE", "Makefile", "Snakefile", "configs", "envs", "mimflow.py", "profiles", "pyproject.toml", "rules",
           "scripts")  # fmt: skip
DEFINITION = Template("""\
# Made by envs/apptainer.py from the locks; docs/snakemake.md. Build it in the root of a clone:
# apptainer build mimflow.sif envs/$env.def
Bootstrap: docker
From: debian:bookworm-slim

%labels
    mimflow.environment $env
    mimflow.lock.sha256 $sha256

%files
$files

%post
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install -y --no-install-recommends ca-certificates make python3.11 python3.11-venv
    cd /opt/mimflow
    # The locks for which this file was made.
    sha256sum --check --quiet <<'END'
$sums
END
    sh envs/setup.sh --env $env
    rm -rf /root/.cache .venvs/uv /var/lib/apt/lists/*
    chmod -R a+rX .

%environment
    export PATH="/opt/mimflow/.venv/bin:$$PATH"

%runscript
    exec /opt/mimflow/.venv/bin/snakemake --snakefile /opt/mimflow/Snakefile --profile /opt/mimflow/profiles/local "$$@"

%test
    cd /tmp && /opt/mimflow/.venv/bin/python -I -c "import mmcls, scripts, snakemake, torch"

%help
    Snakemake with mimflow's workflow: apptainer run mimflow.sif --configfile config.yaml
""")


def sha256_of(file: Path) -> str:
    """Return the hash of a file, as the program sha256sum prints it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def definition(env: str) -> str:
    """Return the definition file of the image of an environment."""
    return DEFINITION.substitute(
        env=env,
        sha256=sha256_of(install.ENVS / f"{env}.lock"),
        files="\n".join(f"    {name} /opt/mimflow/{name}" for name in CONTENT),
        sums="\n".join(f"{sha256_of(file)}  envs/{file.name}" for file in install.inputs_of(env)),
    )


if __name__ == "__main__":
    for name in install.GLIBC:
        (install.ENVS / f"{name}.def").write_text(definition(name), encoding="utf-8")

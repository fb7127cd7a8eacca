"""Run `snakemake --lint` and fail on every finding but one: that a rule has no conda environment or container.

There is no software deployment by pip and venv in Snakemake; the whole workflow runs in .venv, from hashed locks.
"""

import re
import subprocess
import sys

ACCEPTED = "Specify a conda environment or container for each rule."


def remaining_findings(text: str) -> list[str]:
    """Return what `snakemake --lint` found, less the accepted finding, each with what it is about."""
    findings = []
    for block in re.split(r"^(?=Lints for )", text, flags=re.MULTILINE):
        subject, _, rest = block.partition("\n")
        if not subject.startswith("Lints for "):
            continue
        for finding in re.split(r"^    \* ", rest, flags=re.MULTILINE)[1:]:
            if not finding.startswith(ACCEPTED):
                findings.append(f"{subject.removeprefix('Lints for ').rstrip(':')}: {finding.strip()}")
    return findings


def main() -> None:
    """Exit with 1 on findings, or when Snakemake failed without any."""
    result = subprocess.run([sys.executable, "-m", "snakemake", "--lint"], capture_output=True, text=True, check=False)
    text = result.stdout + result.stderr
    findings = remaining_findings(text)
    if findings:
        sys.exit("\n".join(findings))
    # It exits 1 for the accepted finding too; without any finding something else went wrong.
    if result.returncode and ACCEPTED not in text:
        sys.exit(text)


if __name__ == "__main__":
    main()

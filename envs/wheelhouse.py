"""Fill wheelhouse/ENV, from which `make setup` needs no network, for machines without internet."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I leaves out the folder of the script

import install

#: Platform tags of the wheels that a wheelhouse holds, newest first; pip takes the first that a package has.
_TAGS_2014 = ["manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64"]
_TAGS_2014 += ["manylinux_2_5_x86_64", "manylinux1_x86_64"]
WHEEL_TAGS = {
    "cuda11": _TAGS_2014,
    "cuda13": [f"manylinux_2_{minor}_x86_64" for minor in range(28, 17, -1)] + _TAGS_2014,
}


def main() -> None:
    """Fill the wheelhouse of the environment that is asked for."""
    parser = install.Parser(description=__doc__)
    parser.add_argument("--env", choices=sorted(install.GLIBC), help="which environment (default: that of .venv)")
    env = parser.parse_args().env or install.installed_env() or install.DEFAULT_ENV
    with install.one_at_a_time():
        fill_wheelhouse(env)


def fill_wheelhouse(env: str) -> None:
    """Download and build every wheel of environment *env* into wheelhouse/ENV, so that install() needs no network."""
    house = install.ROOT / "wheelhouse" / env
    complete = house / "complete"
    state = {"inputs": install.hash_of(install.inputs_of(env))}
    if install.read_stamp(complete) == state:
        install.say(f"wheelhouse: wheelhouse/{env} is complete")
        return
    shutil.rmtree(house, ignore_errors=True)
    house.mkdir(parents=True)
    with install.scratch_folder() as scratch:
        venv = scratch / "venv"
        install.run([sys.executable, "-m", "venv", str(venv)], "creating a scratch environment")
        helper = str(venv / "bin" / "python")
        install.pip(
            ["install", "--require-hashes", "--no-deps", "-r", str(install.ENVS / "build.lock")],
            "its pip",
            helper,
        )

        download = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(house)]
        target = [word for tag in WHEEL_TAGS.get(env, []) for word in ("--platform", tag)]
        target = [*target, "--python-version", "3.11", "--implementation", "cp"] if target else []
        for lock in ("installer.lock", "build.lock", f"{env}.lock"):
            install.pip(
                [*download, *target, "--require-hashes", "-r", str(install.ENVS / lock)], f"downloading {lock}", helper
            )
        if env == "cpu":
            pins = scratch / "pins.txt"
            pins.write_text(
                "".join(f"{name}=={version}\n" for name, version in install.read_lock(install.ENVS / "cpu.lock"))
            )
            torch = ["download", "--dest", str(house), "-c", str(pins), "--find-links", str(house)]
            install.pip([*torch, "-r", str(install.ENVS / "cpu-torch.txt")], "downloading torch", helper)

        opencv = dict(install.read_lock(install.ENVS / f"{env}.lock"))["opencv-python-headless"]
        install.pip(
            ["install", "--no-deps", f"opencv-python-headless=={opencv}"],
            "what mmcv's build looks for",
            helper,
        )
        install.build_own_wheels(helper, house)
    install.write_stamp(complete, state)
    size = sum(file.stat().st_size for file in house.iterdir()) / 1e9
    install.say(
        f"wheelhouse: wheelhouse/{env} is complete ({size:.1f} GB): copy it into the other machine's project folder"
    )


if __name__ == "__main__":
    install.run_main(main)

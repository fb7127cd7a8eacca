"""Run a command as the only step of the Slurm job that this is: ``job_step.py SRUN SRUN_WITH_GPUS COMMAND ...``.

The first two are srun's options, as one word each; without any, the command runs beside the steps that it starts itself
(a training on several nodes). It is started as a file and imports nothing of mimflow: on a node whose file system is
far away each import is waited for.
"""

import os
import sys
from collections.abc import Mapping, Sequence

#: What says which job this is, and how Slurm is reached. All other variables of Slurm's are of the allocation, and srun
#: would take them for its options: what a job asked for as a whole is not what its step needs.
KEPT = {
    *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_SUBMIT_DIR"),
    *("SLURM_SUBMIT_HOST", "SLURM_CLUSTER_NAME", "SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"),
}
OF_SLURM = ("SLURM_", "SRUN_", "SBATCH_")


def step(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of the step, and its environment.

    Parameters
    ----------
    arguments : options of srun in a job that did not ask for GPUs by ``--gpus``; those in one that did; the command.
    """
    without, with_gpus, *command = arguments
    options = (with_gpus if environment.get("SLURM_GPUS") else without).split()
    kept = {name: value for name, value in environment.items() if name in KEPT or not name.startswith(OF_SLURM)}
    return (["srun", *options, *command] if options else command), kept


if __name__ == "__main__":
    words, variables = step(sys.argv[1:], os.environ)
    try:
        os.execvpe(words[0], words, variables)
    except OSError as error:
        sys.exit(f"error: {words[0]}: {error.strerror}: the job cannot start on {os.uname().nodename}")

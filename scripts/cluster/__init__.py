"""What talks to a Slurm cluster, from outside its jobs."""

-- Partitions n30 and n30_virtual as zone N30 of the cloud: GPUs are all that a job may ask for, and a job without a GPU is refused.
local function asks_for_a_card(job)
  for _, wanted in pairs({job.tres_per_job, job.tres_per_node, job.tres_per_socket, job.tres_per_task}) do
    if string.find(wanted, "gpu", 1, true) then return true end
  end
  return false
end

function slurm_job_submit(job, partitions, user)
  if job.partition ~= "n30" and job.partition ~= "n30_virtual" then return slurm.SUCCESS end
  if job.min_mem_per_node ~= nil or job.min_mem_per_cpu ~= nil then
    slurm.log_user("n30: --mem is not allowed, use --gpus=N only")
    return slurm.ERROR
  end
  if job.cpus_per_task ~= nil and job.cpus_per_task < 65534 then
    slurm.log_user("n30: --cpus-per-task is not allowed, use --gpus=N only")
    return slurm.ERROR
  end
  if not asks_for_a_card(job) then
    slurm.log_user("n30: a job without --gpus=N is not allowed")
    return slurm.ERROR
  end
  job.cpus_per_tres = "gres:gpu:6"
  return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user) return slurm.SUCCESS end

return slurm.SUCCESS

#!/bin/sh
# Slurm's Epilog: ends the job's lease; what carries it is deleted. It never fails, and does not wait: the clean-up goes on
# beside the next job, whose things have another lease.
(
  [ -n "$SLURM_JOB_ID" ] || exit
  folder=/run/reaper-slurm/$SLURM_JOB_ID
  pid=$(cat "$folder/pid") || exit
  # Process ids are used again: only what still runs this job's command is ended.
  if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q " run --skip-cleanup --no-proxy .* $folder *$"; then
    kill -TERM "$pid"
  fi
  rm -f "$folder/pid" "$folder/lease"
  find /run/reaper-slurm -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} +
) </dev/null >/dev/null 2>&1
exit 0

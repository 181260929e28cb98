#!/bin/sh
# Slurm's TaskProlog: what it prints, the task has in its environment.
lease=$(cat "/run/reaper-slurm/$SLURM_JOB_ID/lease" 2>/dev/null)
if [ -n "$lease" ]; then
  echo "export REAPER_LEASE=$lease"
  echo "export REAPER_LABEL=reaper.lease=$lease"
  echo "export REAPER_IMAGE_LABEL=reaper.lease.image=$lease"
fi
exit 0

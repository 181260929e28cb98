#!/bin/sh
# Slurm's Prolog: a lease for the job, held on the node until its epilog. Slurm drains a node whose prolog fails, so this one
# never does: without a lease the job runs all the same, and syslog says why. Slurm gives it no PATH: /etc/reaper/slurm.env
# has one, and other variables of reaper's.
(
  [ -n "$SLURM_JOB_ID" ] || exit
  if [ -r /etc/reaper/slurm.env ]; then set -a && . /etc/reaper/slurm.env && set +a; fi
  umask 022
  folder=/run/reaper-slurm/$SLURM_JOB_ID
  mkdir -p "$folder" || exit
  # Nothing of Slurm's is inherited: it would wait for the end of what has its pipes.
  script='printf "%s\n" "$REAPER_LEASE" >"$1/lease.new" && mv "$1/lease.new" "$1/lease" && exec tail -f /dev/null'
  setsid reaper run --skip-cleanup --no-proxy -- sh -c "$script" sh "$folder" </dev/null >"$folder/reaper.log" 2>&1 &
  pid=$!
  echo "$pid" >"$folder/pid"
  for try in 1 2 3 4 5 6 7 8 9 10; do
    if [ -s "$folder/lease" ] || ! kill -0 "$pid"; then break; fi
    sleep 0.5
  done
  [ -s "$folder/lease" ] || logger -t reaper "job $SLURM_JOB_ID has no lease: $(tail -n 1 "$folder/reaper.log")"
) </dev/null >/dev/null 2>&1
exit 0

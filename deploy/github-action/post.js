// Ends the lease that main.js has taken, waits for the clean-up and prints what it deleted.
const fs = require("node:fs");

const pid = Number(process.env.STATE_pid);
const log = process.env.STATE_log;

function alive() {
  try {
    return /^\d+ \(reaper\) [^ZX]/.test(fs.readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

if (pid && alive()) process.kill(pid, "SIGTERM"); // passed on to what waits for the job; then it cleans up
const waiting = setInterval(() => {
  if (pid && alive()) return;
  clearInterval(waiting);
  if (log) process.stdout.write(fs.readFileSync(log, "utf8"));
}, 100);

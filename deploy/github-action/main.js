// Takes a lease for the job with `reaper run`, beside it: as long as the runner's process lives, or until post.js ends it.
const { spawn, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const input = (name) => (process.env[`INPUT_${name.toUpperCase()}`] || "").trim();
const folder = fs.mkdtempSync(path.join(process.env.RUNNER_TEMP || "/tmp", "reaper-"));
const variables = path.join(folder, "environment");
const log = path.join(folder, "reaper.log");

function fail(text) {
  console.log(`::error::${text.replace(/%/g, "%25").replace(/\r?\n/g, "%0A")}`);
  process.exit(1);
}

function run(command, ...words) {
  const done = spawnSync(command, words, { stdio: "inherit" });
  if (done.status !== 0) fail(`${command} ${words.join(" ")}: ${done.error ? done.error.message : `exit code ${done.status}`}`);
}

let reaper = "reaper";
if (input("package")) {
  const environment = path.join(folder, "venv");
  run("python3", "-m", "venv", environment);
  run(path.join(environment, "bin/pip"), "--disable-pip-version-check", "install", "--quiet", input("package"));
  reaper = path.join(environment, "bin/reaper");
}
const config = input("config") ? [`--config=${input("config")}`] : [];
const sweep = input("sweep");
if (sweep && sweep !== "false") run(reaper, ...config, "--once", ...(sweep === "true" ? [] : sweep.split(/\s+/)));

// The runner ends what carries its RUNNER_TRACKING_ID when the job has ended; the clean-up after a killed job must outlive that.
const script = 'env -0 >"$1.new" && mv "$1.new" "$1" && exec tail --pid="$2" -s 1 -f /dev/null';
const errors = fs.openSync(log, "w");
const holder = spawn(
  reaper,
  ["run", ...config, "--skip-cleanup", "--", "sh", "-c", script, "sh", variables, String(process.ppid)],
  { detached: true, stdio: ["ignore", "ignore", errors], env: { ...process.env, RUNNER_TRACKING_ID: "" } },
);
let ended = null;
holder.on("error", (error) => (ended = error.message));
holder.on("exit", (code) => (ended = `exit code ${code}`));

const deadline = Date.now() + 60_000;
const waiting = setInterval(() => {
  if (fs.existsSync(variables)) {
    clearInterval(waiting);
    const names = ["DOCKER_HOST", "DOCKER_CONTEXT", "REAPER_LEASE", "REAPER_LABEL", "REAPER_IMAGE_LABEL"];
    const found = Object.fromEntries(fs.readFileSync(variables, "utf8").split("\0").map((line) => line.split(/=(.*)/s, 2)));
    const lines = names.filter((name) => found[name] !== undefined).map((name) => `${name}=${found[name]}\n`);
    // The proxy speaks TLS where that is needed.
    if (found.DOCKER_TLS_VERIFY === undefined && process.env.DOCKER_TLS_VERIFY) lines.push("DOCKER_TLS_VERIFY=\n");
    fs.appendFileSync(process.env.GITHUB_ENV, lines.join(""));
    fs.appendFileSync(process.env.GITHUB_STATE, `pid=${holder.pid}\nlog=${log}\n`);
    holder.unref();
    process.exit(0);
  }
  if (ended !== null || Date.now() > deadline) {
    clearInterval(waiting);
    if (ended === null) process.kill(holder.pid, "SIGTERM");
    fail(`no lease can be taken: ${fs.readFileSync(log, "utf8").trim() || ended || "no answer within 60 s"}`);
  }
}, 100);

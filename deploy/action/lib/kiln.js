// The program's commands as the action needs them, each with a deadline. Nothing here throws. Called by main.js and
// post.js.
'use strict'

const { spawnSync } = require('node:child_process')
const { drainSeconds } = require('./settings')

/** Longest that a start, a question and a report take. */
const START_MS = 30_000
const REPORT_MS = 90_000
/** What `kiln server stop` takes beside sending. */
const STOP_MS = 45_000
/** Largest report that is read. */
const MAX_REPORT_BYTES = 64 * 1024 * 1024
/** Exit status for a setting that Kiln does not take: it would stop builds. */
const MALFORMED = 2

function run(program, args, timeout, more = {}) {
  const stdio = ['ignore', 'pipe', 'pipe']
  const options = { timeout, killSignal: 'SIGKILL', encoding: 'utf8', maxBuffer: MAX_REPORT_BYTES, stdio, ...more }
  const { status, stdout, stderr, error } = spawnSync(program, args, options)
  const why = error?.code === 'ETIMEDOUT' ? `it took longer than ${timeout / 1000} s` : (stderr ?? '').trim()
  return { ok: status === 0, status, stdout: stdout ?? '', why: why || String(error ?? `exit status ${status}`) }
}

/** Whether a server answers. A place of somebody else's is only asked. */
function start(program, env) {
  const order = env.KILN_SERVER ? 'status' : 'start'
  const ended = run(program, ['server', order], START_MS, { env })
  const malformed = ended.status === MALFORMED
  return { ...ended, malformed, why: ended.why || ended.stdout.trim() }
}

/** Ends the server after it has sent what waits, within the time for that. What it says is shown. */
function stop(program, env) {
  if (env.KILN_SERVER) return { ok: true }
  const timeout = drainSeconds(env) * 1000 + STOP_MS
  return run(program, ['server', 'stop'], timeout, { env, stdio: ['ignore', 'inherit', 'inherit'] })
}

/** The report of the run under way, or of a job of it; `append` names a file that it is added to for people. */
function report(program, env, { job, append } = {}) {
  const args = ['report', '--format', 'json', ...(job ? ['--job', job] : []), ...(append ? ['--append', append] : [])]
  const ended = run(program, args, REPORT_MS, { env })
  try {
    return { ...ended, report: ended.ok ? JSON.parse(ended.stdout) : undefined }
  } catch (error) {
    return { ...ended, ok: false, why: `its report is no JSON: ${error.message}` }
  }
}

module.exports = { start, stop, report }

// The end of the job: what waits is sent, within its time, and the job gets its report. Only a gate fails a job here.
'use strict'

const kiln = require('./lib/kiln')
const reporting = require('./lib/reporting')
const runner = require('./lib/runner')
const settings = require('./lib/settings')

/** Time for a server that has sent everything already, seconds. */
const LEAVE_S = '5'

/** Ends the server; the hit rate, where a report of the job is wanted and can be had. */
function end(program, reports) {
  const env = { ...process.env, KILN_DIR: runner.state('dir') }
  const stopped = kiln.stop(program, env)
  if (!stopped.ok) runner.warning(`the server did not end as it should: ${stopped.why}`)
  if (!reports) return undefined
  // Whoever asks for a report starts a server again, which has all that the job's server knew.
  const rate = reporting.tell(program, env, runner.state('job'), runner)
  kiln.stop(program, { ...env, KILN_DRAIN: LEAVE_S })
  return rate
}

function main() {
  const program = runner.state('program')
  const reports = runner.state('report') === 'job'
  const rate = program ? end(program, reports) : undefined
  const why = reports && reporting.gate(rate, settings.percent(runner.input('fail-under')))
  if (why) {
    runner.error(why)
    process.exitCode = 1
  }
}

try {
  main()
} catch (error) {
  runner.warning(`the report failed: ${error.stack}`)
}

// The step itself: finds Kiln and turns it on for all later steps, or, with `report: merge`, reports of the whole run.
// Whatever is wrong with Kiln is a warning, and the job goes on without it; only a gate fails a job.
'use strict'

const path = require('node:path')
const kiln = require('./lib/kiln')
const { find } = require('./lib/program')
const reporting = require('./lib/reporting')
const runner = require('./lib/runner')
const settings = require('./lib/settings')

const { input } = runner

/** The program, with its server running under these variables; nothing, where that cannot be. */
async function prepare(set) {
  const env = { ...process.env, ...set }
  for (const name of settings.SECRET) if (env[name]) runner.mask(env[name])
  const wants = { path: input('path'), version: input('version'), sha256: input('sha256'), releases: input('release-url') }
  const { program, version } = await find(wants, env)
  const started = kiln.start(program, env)
  // A shared server that is away costs hits; a setting that is malformed would stop builds.
  if (started.malformed || (!started.ok && !env.KILN_SERVER)) throw new Error(started.why)
  if (!started.ok) runner.warning(`the server at KILN_SERVER does not answer: ${started.why}`)
  runner.saveState('program', program)
  runner.saveState('dir', env.KILN_DIR)
  runner.setOutput('version', version)
  return { program, version, env }
}

/** Sets what later steps need. */
function turnOn({ program, version, env }, set) {
  for (const [name, value] of Object.entries(set)) runner.exportVariable(name, value)
  if (env.RUSTC_WRAPPER && env.RUSTC_WRAPPER !== program) {
    runner.notice(`RUSTC_WRAPPER was ${env.RUSTC_WRAPPER}; later steps compile with Kiln`)
  }
  runner.exportVariable('RUSTC_WRAPPER', program)
  runner.exportVariable('CARGO_INCREMENTAL', '0')
  runner.addPath(path.dirname(program))
  const job = settings.jobName(env)
  runner.saveState('job', job)
  runner.say(`Kiln ${version} for ${job}, before ${env.KILN_SERVER || env.KILN_UPSTREAM || env.KILN_STORAGE || 'nothing'}`)
}

/** The report of the run, and whether a gate lets it pass. */
function merge(prepared, least) {
  const rate = prepared && reporting.tell(prepared.program, prepared.env, undefined, runner)
  runner.setOutput('hit-rate', rate ?? '')
  const why = reporting.gate(rate, least)
  if (why) {
    runner.error(why)
    process.exitCode = 1
  }
}

async function main() {
  const mode = input('report') || 'job'
  const least = settings.percent(input('fail-under'))
  if (input('fail-under') && least === undefined) {
    runner.error(`fail-under is ${input('fail-under')}; it accepts a percentage from 0 to 100, e.g. 80%`)
    process.exitCode = 1
  }
  if (!['job', 'merge', 'none'].includes(mode)) runner.warning(`report is ${mode}; it accepts job, merge or none`)
  runner.saveState('report', mode)

  let prepared
  const set = settings.variables(input, process.env)
  try {
    prepared = await prepare(set)
    if (mode !== 'merge') turnOn(prepared, set)
  } catch (error) {
    prepared = undefined
    runner.warning(`the job goes on without Kiln: ${error.message}`)
  }
  runner.setOutput('active', String(prepared !== undefined && mode !== 'merge'))
  if (mode === 'merge') merge(prepared, least)
}

main().catch((error) => runner.warning(`the job goes on without Kiln: ${error.stack}`))

// A report for the summary of a step, in one line for an annotation, and held against a gate. Called by main.js and
// post.js.
'use strict'

const kiln = require('./kiln')

function time(ms) {
  const seconds = Math.round(ms / 1000)
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`
}

/** A report in one line. It has figures only: names come from builds. */
function line({ total, jobs }) {
  const rate = total.hit_rate === null ? 'nothing' : `${total.hit_rate.toFixed(1)} %`
  const where = jobs.length > 1 ? ` in ${jobs.length} jobs` : ''
  const counts = { misses: total.miss, bypasses: total.bypass, errors: total.error }
  const rest = Object.entries(counts).filter(([, n]) => n > 0).map(([what, n]) => `, ${n} ${what}`)
  return (
    `${rate} from the cache: ${total.units} units${where}, ${total.hits} hits${rest.join('')}; ` +
    `${time(total.saved_cpu_ms)} of compiling saved, ${time(total.compiled_ms)} spent`
  )
}

/** The figures of a job in a report of its whole run, in the shape of such a report. */
function ofJob(report, job) {
  const own = report.jobs.find((one) => one.job === job)
  return own ? { total: own.measures, jobs: [own] } : report
}

/** Why a gate is not passed, or nothing. */
function gate(rate, least) {
  if (least === undefined || (rate ?? -1) >= least) return undefined
  if (rate === null) return `no unit could be answered, and ${least} % were to hit`
  return rate === undefined ? `there is no report, and ${least} % were to hit` : `the hit rate is ${rate.toFixed(1)} %, under ${least} %`
}

/**
 * Adds the report to the summary of the step, of one job where the run has it. `rate` is undefined without a report,
 * and null where no unit could be answered.
 */
function tell(program, env, job, runner) {
  const append = env.GITHUB_STEP_SUMMARY
  // The name is a guess at what Kiln calls the job; a report of the whole run is right as well.
  const whole = job ? kiln.report(program, env) : undefined
  const known = whole?.report?.jobs.some((one) => one.job === job)
  const told = kiln.report(program, env, { job: known ? job : undefined, append })
  if (!told.report) {
    runner.notice(`there is no report: ${told.why}`)
    return undefined
  }
  const { total, jobs } = known ? ofJob(told.report, job) : told.report
  runner.notice(line({ total, jobs }))
  return total.hit_rate
}

module.exports = { tell, gate, line }

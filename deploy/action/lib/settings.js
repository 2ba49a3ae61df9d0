// From inputs and the environment to the variables of Kiln. Pure. Called by main.js; docs/settings.md and docs/jobs.md
// of Kiln say what each variable does.
'use strict'

const path = require('node:path')

/** What the runner shows actions, and not the steps that run commands. */
const RUNNER_ONLY = [
  'ACTIONS_RUNTIME_TOKEN',
  'ACTIONS_RESULTS_URL',
  'ACTIONS_CACHE_URL',
  'ACTIONS_CACHE_SERVICE_V2',
  'ACTIONS_CACHE_MODE',
]
/** Among them what lets its holder in: an older service has a token in the address. */
const SECRET = ['ACTIONS_RUNTIME_TOKEN', 'ACTIONS_CACHE_URL', 'KILN_TOKEN']
/** Kiln takes no longer matrix, and a setting that it does not take stops builds. */
const MAX_MATRIX_BYTES = 128 * 1024
const DEFAULT_DRAIN_S = 120

/** The values that tell this leg from others; its number where they cannot. */
function matrix(text, index, total) {
  try {
    const value = JSON.parse(text)
    const object = value === null || (typeof value === 'object' && !Array.isArray(value))
    if (object && Buffer.byteLength(text) <= MAX_MATRIX_BYTES) return text
  } catch {}
  return Number(total) > 1 ? JSON.stringify({ leg: `${Number(index) + 1}/${Number(total)}` }) : 'null'
}

/** Its scalars in the order in which they are written. */
function values(value) {
  if (value === null || value === '') return []
  return typeof value === 'object' ? Object.values(value).flatMap(values) : [String(value)]
}

/** What Kiln calls this job: the name in the workflow, and the values of the matrix. */
function jobName(env) {
  const job = env.KILN_JOB || env.GITHUB_JOB || ''
  const told = values(JSON.parse(env.KILN_MATRIX || 'null'))
  return told.length ? `${job} (${told.join(', ')})` : job
}

/** Where results come from and go to, or nothing where the environment says it already. */
function upstream(wanted, env) {
  if (wanted === 'none') return {}
  if (wanted) return { KILN_UPSTREAM: wanted }
  const told = env.KILN_UPSTREAM || env.KILN_SERVER || env.KILN_STORAGE
  return told ? {} : { KILN_UPSTREAM: 'gha://' }
}

/** The variables that make a step find its server, by name. `input` reads an input. */
function variables(input, env) {
  const set = { ...upstream(input('upstream'), env) }
  const uses = { ...env, ...set }
  if ([uses.KILN_UPSTREAM, uses.KILN_STORAGE].includes('gha://')) {
    for (const name of RUNNER_ONLY) if (env[name]) set[name] = env[name]
  }
  set.KILN_DIR = input('dir') || env.KILN_DIR || path.join(env.RUNNER_TEMP ?? '/tmp', 'kiln')
  set.KILN_MATRIX = env.KILN_MATRIX || matrix(input('matrix'), input('job-index'), input('job-total'))
  const named = { token: 'KILN_TOKEN', mode: 'KILN_MODE', 'cache-size': 'KILN_CACHE_SIZE', drain: 'KILN_DRAIN', job: 'KILN_JOB' }
  for (const [from, name] of Object.entries(named)) if (input(from)) set[name] = input(from)
  return set
}

/** Seconds that the end of a job goes on sending. */
function drainSeconds(env) {
  const told = Number(env.KILN_DRAIN || DEFAULT_DRAIN_S)
  return Number.isFinite(told) ? told : DEFAULT_DRAIN_S
}

/** A percentage with or without its sign, or nothing. */
function percent(text) {
  const number = /^(\d+(?:\.\d+)?)\s*%?$/.exec(text)?.[1]
  return number !== undefined && Number(number) <= 100 ? Number(number) : undefined
}

module.exports = { variables, jobName, drainSeconds, percent, SECRET }

// What the runner gives an action, and what an action may tell it: inputs, files of commands, lines of commands on
// standard output. Knows nothing of Kiln. Called by main.js, post.js and the modules beside this one.
'use strict'

const { appendFileSync } = require('node:fs')
const { randomUUID } = require('node:crypto')

/** Longest text of an annotation; the runner cuts it. */
const MAX_ANNOTATION = 4000

/** An input, without white space around it. */
function input(name) {
  return (process.env[`INPUT_${name.replace(/ /g, '_').toUpperCase()}`] ?? '').trim()
}

/** Adds `name=value` to a file of commands; any value goes, also one of several lines. */
function add(file, name, value) {
  const path = process.env[file]
  if (!path) return
  const end = `end-${randomUUID()}`
  appendFileSync(path, `${name}<<${end}\n${value}\n${end}\n`)
}

/** Sets a variable for this process and for all later steps. */
function exportVariable(name, value) {
  process.env[name] = value
  add('GITHUB_ENV', name, value)
}

/** Puts a directory in front of PATH for this process and for all later steps. */
function addPath(dir) {
  process.env.PATH = `${dir}:${process.env.PATH ?? ''}`
  if (process.env.GITHUB_PATH) appendFileSync(process.env.GITHUB_PATH, `${dir}\n`)
}

const setOutput = (name, value) => add('GITHUB_OUTPUT', name, value)
const saveState = (name, value) => add('GITHUB_STATE', name, value)
const state = (name) => process.env[`STATE_${name}`] ?? ''

/** A text as a command takes it: on one line. */
function escape(text) {
  return text.replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A')
}

function command(name, text) {
  process.stdout.write(`::${name}::${escape(text)}\n`)
}

/** Has the runner replace a secret in all logs. Each line by itself: that is how logs are looked through. */
function mask(secret) {
  for (const line of secret.split(/\r?\n/)) if (line.trim()) command('add-mask', line)
}

const annotate = (kind) => (text) => command(`${kind} title=Kiln`, text.slice(0, MAX_ANNOTATION))

module.exports = {
  input,
  exportVariable,
  addPath,
  setOutput,
  saveState,
  state,
  mask,
  notice: annotate('notice'),
  warning: annotate('warning'),
  error: annotate('error'),
  say: (text) => process.stdout.write(`${text.replace(/[\r\n]/g, ' ')}\n`),
}

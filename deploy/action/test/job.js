// A job as a runner runs it: files of commands, steps with what earlier ones set, the end of the action. Every job has
// directories of its own and nothing of the environment but what it needs.
'use strict'

const { spawn } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const ACTION = path.resolve(__dirname, '..')
const REPOSITORY = path.resolve(ACTION, '../..')
const FILES = ['GITHUB_ENV', 'GITHUB_PATH', 'GITHUB_OUTPUT', 'GITHUB_STATE', 'GITHUB_STEP_SUMMARY']

/** The kiln program to try: KILN_TEST_PROGRAM, else what was built last. */
function program() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(REPOSITORY, 'target')
  const places = [process.env.KILN_TEST_PROGRAM, path.join(target, 'release/kiln'), path.join(target, 'debug/kiln')]
  const found = places.find((place) => place && fs.existsSync(place))
  if (!found) throw new Error('there is no kiln program: cargo build --bin kiln, or KILN_TEST_PROGRAM')
  return found
}

/** Inputs that nobody sets, as action.yml has them; what is an expression there is none here. */
function defaults() {
  const text = fs.readFileSync(path.join(ACTION, 'action.yml'), 'utf8')
  const inputs = text.slice(text.indexOf('inputs:'), text.indexOf('outputs:'))
  const found = [...inputs.matchAll(/^ {2}([a-z0-9-]+):\n(?: {4}.*\n)*? {4}default: (.*)$/gm)]
  return Object.fromEntries(found.map(([, name, value]) => [name, value.startsWith('$') || value === "''" ? '' : value]))
}

/** `name<<end`, lines, `end`. */
function read(file) {
  const text = fs.readFileSync(file, 'utf8')
  return Object.fromEntries([...text.matchAll(/^(\S+?)<<(\S+)\n([\s\S]*?)\n\2$/gm)].map(([, name, , value]) => [name, value]))
}

/** What a runner makes of commands. */
const shown = (out) => out.replace(/%0A/g, '\n').replace(/%25/g, '%')

function run(command, args, options) {
  return new Promise((done) => {
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (out += data))
    // What is left behind may hold the pipes open; the step has ended all the same.
    child.on('exit', (code) => setImmediate(() => done({ code, out: shown(out) })))
  })
}

class Job {
  static all = []

  /** @param env what the runner says besides; `runner` what it shows actions only */
  constructor({ env = {}, runner = {} } = {}) {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kiln-action-'))
    fs.mkdirSync(path.join(this.dir, 'temp'))
    this.env = {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      CARGO_HOME: process.env.CARGO_HOME ?? path.join(process.env.HOME, '.cargo'),
      RUSTUP_HOME: process.env.RUSTUP_HOME ?? path.join(process.env.HOME, '.rustup'),
      GITHUB_ACTIONS: 'true',
      GITHUB_RUN_ID: '17',
      GITHUB_RUN_ATTEMPT: '1',
      GITHUB_JOB: 'test',
      GITHUB_REPOSITORY: 'o/r',
      GITHUB_REF_NAME: 'main',
      RUNNER_OS: 'Linux',
      RUNNER_ARCH: 'X64',
      RUNNER_TEMP: path.join(this.dir, 'temp'),
      RUNNER_TOOL_CACHE: path.join(this.dir, 'tools'),
      ...env,
    }
    this.runner = runner
    this.state = {}
    Job.all.push(this)
  }

  /** Runs a script of the action with files of its own; what came of it. */
  async #script(script, inputs) {
    const dir = fs.mkdtempSync(path.join(this.dir, 'step-'))
    const files = Object.fromEntries(FILES.map((name) => [name, path.join(dir, name)]))
    for (const file of Object.values(files)) fs.writeFileSync(file, '')
    const given = { ...defaults(), matrix: 'null', ...inputs }
    const told = (prefix, all) => Object.fromEntries(Object.entries(all).map(([name, value]) => [prefix + name, value]))
    const inputsUpper = Object.fromEntries(Object.entries(given).map(([name, value]) => [name.toUpperCase(), value]))
    const env = { ...this.env, ...this.runner, ...files, ...told('INPUT_', inputsUpper), ...told('STATE_', this.state) }
    const ended = await run(process.execPath, [path.join(ACTION, script)], { env, cwd: this.dir })
    Object.assign(this.state, read(files.GITHUB_STATE))
    const set = read(files.GITHUB_ENV)
    Object.assign(this.env, set)
    for (const line of fs.readFileSync(files.GITHUB_PATH, 'utf8').split('\n')) {
      if (line) this.env.PATH = `${line}:${this.env.PATH}`
    }
    return { ...ended, set, outputs: read(files.GITHUB_OUTPUT), summary: fs.readFileSync(files.GITHUB_STEP_SUMMARY, 'utf8') }
  }

  main(inputs = {}) {
    this.inputs = inputs
    return this.#script('main.js', inputs)
  }

  post() {
    return this.#script('post.js', this.inputs)
  }

  /** A step that runs a command in the checkout. */
  step(command, args) {
    fs.mkdirSync(path.join(this.dir, 'checkout'), { recursive: true })
    return run(command, args, { env: this.env, cwd: path.join(this.dir, 'checkout') })
  }

  /** A package of two crates in the checkout. */
  checkout() {
    const write = (file, text) => {
      const at = path.join(this.dir, 'checkout', file)
      fs.mkdirSync(path.dirname(at), { recursive: true })
      fs.writeFileSync(at, text)
    }
    write('Cargo.toml', '[package]\nname = "app"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\nlow = { path = "low" }\n[workspace]\n')
    write('src/main.rs', 'fn main() { println!("{}", low::n()) }\n')
    write('low/Cargo.toml', '[package]\nname = "low"\nversion = "1.0.0"\nedition = "2021"\n')
    write('low/src/lib.rs', 'pub fn n() -> i32 { 42 }\n')
    return this
  }

  /** The directory of Kiln's state, as far as it is there. */
  log() {
    const file = path.join(this.env.KILN_DIR ?? '', 'server.log')
    return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : ''
  }

  /** Ends what a failed test left, and removes everything. */
  static async clean() {
    for (const job of Job.all) {
      const env = { ...job.env, KILN_DIR: path.join(job.dir, 'temp/kiln'), KILN_DRAIN: '0' }
      delete env.KILN_SERVER
      for (const name of Object.keys(env)) if (/^KILN_(?!DIR|DRAIN)/.test(name)) delete env[name]
      await run(program(), ['server', 'stop'], { env })
      fs.rmSync(job.dir, { recursive: true, force: true })
    }
  }
}

module.exports = { Job, program }

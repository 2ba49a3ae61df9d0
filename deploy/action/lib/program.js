// Which kiln program is used: one that is there, or that of a release. Called by main.js.
'use strict'

const { createHash } = require('node:crypto')
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

/** Longest that a download takes, and largest archive. */
const DOWNLOAD_MS = 60_000
const MAX_ARCHIVE_BYTES = 256 * 1024 * 1024
/** Longest that `kiln --version` and `tar` take. */
const RUN_MS = 60_000

const TARGETS = { x64: 'x86_64-unknown-linux-musl', arm64: 'aarch64-unknown-linux-musl' }

/** What a program says that it is, e.g. `0.1.0`; empty where it does not run or is not Kiln. */
function versionOf(program) {
  const run = spawnSync(program, ['--version'], { timeout: RUN_MS, encoding: 'utf8' })
  return /^kiln (\S+)/.exec(run.stdout ?? '')?.[1] ?? ''
}

/** A program with its version, or nothing. */
function known(program) {
  const version = fs.existsSync(program) ? versionOf(program) : ''
  return version && { program: fs.realpathSync(program), version }
}

function named(place) {
  const program = fs.statSync(place, { throwIfNoEntry: false })?.isDirectory() ? path.join(place, 'kiln') : place
  const found = known(path.resolve(program))
  if (!found) throw new Error(`path names no kiln program that runs here: ${place}`)
  return found
}

function inPath(env) {
  for (const dir of (env.PATH ?? '').split(':')) {
    const found = path.isAbsolute(dir) && known(path.join(dir, 'kiln'))
    if (found) return found
  }
}

async function download(url) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(DOWNLOAD_MS) })
  if (!answer.ok) throw new Error(`${url} answers ${answer.status}`)
  const chunks = []
  let bytes = 0
  for await (const chunk of answer.body) {
    bytes += chunk.length
    if (bytes > MAX_ARCHIVE_BYTES) throw new Error(`${url} is too large`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** The program of a release, kept in the runner's directory for tools. Nothing is unpacked that does not hash right. */
async function install({ version, sha256, releases }, env) {
  const target = process.platform === 'linux' ? TARGETS[process.arch] : undefined
  if (!target) throw new Error(`there is no release for ${process.platform} on ${process.arch}`)
  const place = path.join(env.RUNNER_TOOL_CACHE || env.RUNNER_TEMP, 'kiln', version, target)
  // What is there was checked against what counted then.
  const there = sha256 ? undefined : known(path.join(place, 'kiln'))
  if (there) return there

  const url = `${releases}/download/v${version}/kiln-${version}-${target}.tar.gz`
  const archive = await download(url)
  const wanted = (sha256 || (await download(`${url}.sha256`)).toString()).trim().split(/\s+/)[0].toLowerCase()
  const found = createHash('sha256').update(archive).digest('hex')
  if (found !== wanted) throw new Error(`${url} hashes to ${found}, and not to ${wanted}`)

  fs.mkdirSync(place, { recursive: true })
  const args = ['--extract', '--gzip', '--strip-components=1', '--no-same-owner', '--directory', place]
  const tar = spawnSync('tar', args, { input: archive, timeout: RUN_MS, encoding: 'utf8' })
  if (tar.status !== 0) throw new Error(`the archive cannot be unpacked: ${tar.stderr || tar.error}`)
  const unpacked = known(path.join(place, 'kiln'))
  if (!unpacked) throw new Error(`${url} has no kiln program that runs here`)
  return unpacked
}

/** Where the releases are that belong to this action. */
function releasesOf(env) {
  const { GITHUB_SERVER_URL: server, GITHUB_ACTION_REPOSITORY: repository } = env
  return server && repository ? `${server}/${repository}/releases` : ''
}

/**
 * The program and its version.
 * @throws when there is none, with the reason
 */
async function find(wants, env) {
  if (wants.path) return named(wants.path)
  const version = wants.version.replace(/^v/, '')
  const there = inPath(env)
  if (there && (!version || there.version === version)) return there

  const own = /^v?(\d+\.\d+\.\d+\S*)$/.exec(env.GITHUB_ACTION_REF ?? '')?.[1]
  const releases = wants.releases || releasesOf(env)
  if (!version && !own) throw new Error('there is no kiln in PATH, and no version is named')
  if (!releases) throw new Error('there is no kiln in PATH, and where releases are is not known (release-url)')
  return install({ version: version || own, sha256: wants.sha256, releases: releases.replace(/\/$/, '') }, env)
}

module.exports = { find }

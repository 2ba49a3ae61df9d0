// The action in jobs as a runner runs them, with the real program and real builds.
'use strict'

const assert = require('node:assert/strict')
const { execFileSync, spawn } = require('node:child_process')
const { createHash } = require('node:crypto')
const fs = require('node:fs')
const { createServer } = require('node:http')
const path = require('node:path')
const { after, describe, test } = require('node:test')

const { Job, program } = require('./job')
const { OlderService } = require('./older')
const { Service, token } = require('./service')

const SECRET = token('refs/heads/main')
const kiln = program()
after(() => Job.clean())

async function service(t) {
  const service = await new Service(SECRET).start()
  t.after(() => service.stop())
  const shown = { ACTIONS_RUNTIME_TOKEN: SECRET, ACTIONS_RESULTS_URL: service.url, ACTIONS_CACHE_SERVICE_V2: 'on' }
  return { service, shown }
}

/** A whole job with a build in it. */
async function build(shown, { inputs = {}, env = {} } = {}) {
  const job = new Job({ runner: shown, env }).checkout()
  const main = await job.main({ path: kiln, ...inputs })
  const cargo = await job.step('cargo', ['build', '--offline'])
  assert.equal(cargo.code, 0, cargo.out)
  return { job, main, post: await job.post() }
}

// They wait for disks and servers, mostly.
describe('the action', { concurrency: 4 }, () => {
  test('a job is fed by the cache of GitHub, and says what that brought', async (t) => {
    const { service: cache, shown } = await service(t)
    const first = await build(shown)
    assert.equal(first.main.code, 0, first.main.out)
    assert.equal(first.main.outputs.active, 'true')
    assert.match(first.post.out, /2 results were sent to the GitHub Actions cache/)
    assert.match(first.post.out, /::notice title=Kiln::0\.0 % from the cache: 2 units, 0 hits, 2 misses/)
    assert.match(first.post.summary, /test/)

    // What steps see: as variables, and not in any log.
    const { set } = first.main
    assert.equal(set.RUSTC_WRAPPER, fs.realpathSync(kiln))
    assert.equal(set.CARGO_INCREMENTAL, '0')
    assert.deepEqual([set.KILN_UPSTREAM, set.ACTIONS_RUNTIME_TOKEN, set.ACTIONS_CACHE_SERVICE_V2], ['gha://', SECRET, 'on'])
    const logs = first.main.out + first.post.out + first.post.summary + first.job.log()
    assert.ok(first.main.out.includes(`::add-mask::${SECRET}\n`))
    assert.ok(!logs.replace(`::add-mask::${SECRET}\n`, '').includes(SECRET))

    const second = await build(shown, { env: { GITHUB_RUN_ID: '18' } })
    assert.match(second.post.out, /::notice title=Kiln::100\.0 % from the cache: 2 units, 2 hits;/)
    assert.equal(cache.refused, 0)
    assert.ok(cache.keys().some((key) => key.startsWith('kiln-pack-')), String(cache.keys()))
  })

  test('a job on Forgejo is fed by the cache of its runner, leg by leg of a matrix', async (t) => {
    const cache = await new OlderService().start()
    t.after(() => cache.stop())
    const shown = { ACTIONS_RUNTIME_TOKEN: 'of-the-runner', ACTIONS_CACHE_URL: cache.url }
    const leg = (rust, run) => build(shown, {
      inputs: { matrix: JSON.stringify({ rust }) },
      env: { FORGEJO_ACTIONS: 'true', GITEA_ACTIONS: 'true', GITHUB_RUN_ID: run, GITHUB_SERVER_URL: 'https://forge.example' },
    })
    const first = await leg('stable', '5')
    assert.match(first.post.out, /2 results were sent to the GitHub Actions cache/)
    assert.match(first.post.summary, /test \(stable\)/)
    assert.ok(!first.job.log().includes('/secret/'), first.job.log())
    const second = await leg('beta', '6')
    assert.match(second.post.out, /::notice title=Kiln::100\.0 % from the cache: 2 units, 2 hits;/)
    assert.match(second.post.summary, /test \(beta\)/)
  })

  test('legs of a matrix are told apart without being named, and a last job has them all', async (t) => {
    const { shown } = await service(t)
    const leg = (os) => ({ inputs: { matrix: JSON.stringify({ os, rust: 'stable' }, undefined, 2), 'job-total': '2' } })
    const linux = await build(shown, leg('linux'))
    await build(shown, leg('mac'))
    assert.match(linux.post.summary, /test \(linux, stable\)/)

    const last = new Job({ runner: shown, env: { GITHUB_JOB: 'report' } })
    const merged = await last.main({ path: kiln, report: 'merge', 'fail-under': '50%' })
    assert.equal(merged.code, 0, merged.out)
    for (const name of ['test (linux, stable)', 'test (mac, stable)']) assert.ok(merged.summary.includes(name), merged.summary)
    assert.match(merged.out, /::notice title=Kiln::50\.0 % from the cache: 4 units in 2 jobs, 2 hits, 2 misses/)
    assert.equal(merged.outputs['hit-rate'], '50')
    assert.deepEqual([merged.set, merged.outputs.active], [{}, 'false'])
    assert.equal((await last.post()).code, 0)

    const gated = new Job({ runner: shown, env: { GITHUB_JOB: 'report' } })
    const failed = await gated.main({ path: kiln, report: 'merge', 'fail-under': '80' })
    assert.equal(failed.code, 1)
    assert.match(failed.out, /::error title=Kiln::the hit rate is 50\.0 %, under 80 %/)
    assert.equal((await gated.post()).code, 0)
  })

  test('the gate of one job fails it at its end, also when nothing can be told', async () => {
    const { post } = await build({}, { inputs: { upstream: 'none', 'fail-under': '1' } })
    assert.equal(post.code, 1)
    assert.match(post.out, /the hit rate is 0\.0 %, under 1 %/)
    const without = new Job()
    assert.equal((await without.main({ path: '/nowhere', 'fail-under': '1' })).code, 0)
    const ended = await without.post()
    assert.deepEqual([ended.code, /there is no report, and 1 % were to hit/.test(ended.out)], [1, true])
  })

  test('a gate that cannot be read does not pass', async () => {
    const job = new Job()
    const { code, out } = await job.main({ path: '/nowhere', 'fail-under': 'most' })
    assert.equal(code, 1)
    assert.match(out, /::error title=Kiln::fail-under is most; it accepts a percentage/)
    await job.post()
  })

  test('a place that is away costs hits and no job', async () => {
    const away = { ACTIONS_RUNTIME_TOKEN: SECRET, ACTIONS_RESULTS_URL: 'http://127.0.0.1:9/', ACTIONS_CACHE_SERVICE_V2: 'on' }
    const { main, post } = await build(away, { inputs: { drain: '1' } })
    assert.deepEqual([main.code, main.outputs.active, post.code], [0, 'true', 0], main.out + post.out)
    assert.match(post.out, /not sent/)
  })

  /** A server for other machines, on a port that was free. */
  async function shared(t) {
    const probe = createServer()
    await new Promise((done) => probe.listen(0, '127.0.0.1', done))
    const listen = `127.0.0.1:${probe.address().port}`
    await new Promise((done) => probe.close(done))
    const env = { PATH: process.env.PATH, KILN_DIR: path.join(new Job().dir, 'shared') }
    const server = spawn(kiln, ['serve', '--listen', listen], { env, stdio: 'ignore' })
    const gone = new Promise((done) => server.on('exit', done))
    t.after(() => (server.kill(), gone))
    return `http://${listen}`
  }

  test('jobs before a server of their own have its report', async (t) => {
    const upstream = await shared(t)
    const inputs = { upstream, job: 'named' }
    await build({}, { inputs })
    const { main, post } = await build({}, { inputs, env: { GITHUB_RUN_ID: '18' } })
    assert.equal(main.set.ACTIONS_RUNTIME_TOKEN, undefined)
    assert.match(post.out, /100\.0 % from the cache: 2 units, 2 hits;/)
    assert.match(post.summary, /named/)
  })

  test('a runner without the cache builds with what is here', async () => {
    const { main, post } = await build({})
    assert.deepEqual([main.code, main.outputs.active, post.code], [0, 'true', 0], main.out + post.out)
    assert.match(post.out, /2 units, 0 hits, 2 misses/)
  })

  test('what the workflow says of the place counts, and an input counts more', async () => {
    const server = new Job({ env: { KILN_UPSTREAM: 'http://127.0.0.1:9' } })
    assert.equal((await server.main({ path: kiln })).set.KILN_UPSTREAM, undefined)
    const both = new Job({ env: { KILN_UPSTREAM: 'http://127.0.0.1:9' } })
    const { set, out } = await both.main({ path: kiln, upstream: 'http://127.0.0.1:7', token: 'open sesame', mode: 'read' })
    assert.deepEqual([set.KILN_UPSTREAM, set.KILN_TOKEN, set.KILN_MODE], ['http://127.0.0.1:7', 'open sesame', 'read'])
    assert.ok(out.includes('::add-mask::open sesame\n'))
    for (const job of [server, both]) await job.post()
  })

  /** What went wrong is a warning, no later step is touched, and both ends of the action pass. */
  async function withoutKiln(job, inputs, why) {
    const main = await job.main(inputs)
    assert.deepEqual([main.code, main.set, main.outputs.active], [0, {}, 'false'], main.out)
    assert.match(main.out, /::warning title=Kiln::the job goes on without Kiln: /)
    assert.match(main.out, why)
    assert.equal((await job.post()).code, 0)
  }

  test('without a program the job goes on', async () => {
    const bare = () => new Job({ env: { PATH: '/nowhere' } })
    await withoutKiln(bare(), {}, /no kiln in PATH, and no version is named/)
    await withoutKiln(bare(), { version: '9.9.9' }, /where releases are is not known/)
    await withoutKiln(bare(), { path: '/bin/true' }, /path names no kiln program/)
  })

  test('a setting that would stop builds turns nothing on', async () => {
    await withoutKiln(new Job(), { path: kiln, 'cache-size': 'plenty' }, /KILN_CACHE_SIZE/)
    await withoutKiln(new Job({ env: { KILN_MODE: 'often' } }), { path: kiln }, /KILN_MODE/)
  })

  test('a matrix that cannot be a name is told by the number of the leg', async () => {
    const job = new Job()
    const { set } = await job.main({ path: kiln, upstream: 'none', matrix: '"x"', 'job-index': '2', 'job-total': '20' })
    assert.equal(set.KILN_MATRIX, '{"leg":"3/20"}')
    await job.post()
  })

  /** A place with one release, and what its archive hashes to. */
  async function releases(t, sum) {
    const name = `kiln-0.1.0-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-unknown-linux-musl`
    const dir = fs.mkdtempSync(path.join(new Job().dir, 'release-'))
    fs.mkdirSync(path.join(dir, name))
    fs.copyFileSync(kiln, path.join(dir, name, 'kiln'))
    execFileSync('tar', ['-C', dir, '-czf', path.join(dir, 'archive'), name])
    const archive = fs.readFileSync(path.join(dir, 'archive'))
    const hash = createHash('sha256').update(archive).digest('hex')
    const asked = []
    const server = createServer((request, response) => {
      asked.push(request.url)
      const files = { [`/download/v0.1.0/${name}.tar.gz`]: archive, [`/download/v0.1.0/${name}.tar.gz.sha256`]: `${sum ?? hash}  ${name}.tar.gz\n` }
      const file = files[request.url]
      response.writeHead(file ? 200 : 404).end(file)
    })
    await new Promise((done) => server.listen(0, '127.0.0.1', done))
    t.after(() => (server.closeAllConnections(), server.close()))
    return { 'release-url': `http://127.0.0.1:${server.address().port}`, hash, asked }
  }

  const PLAIN = { PATH: '/usr/bin:/bin' }

  test('a release is installed once, after its checksum was held against it', async (t) => {
    const { hash, asked, ...place } = await releases(t)
    const job = new Job({ env: { ...PLAIN, GITHUB_ACTION_REF: 'v0.1.0' } })
    const { code, out, outputs, set } = await job.main({ ...place, upstream: 'none' })
    assert.deepEqual([code, outputs.active, outputs.version], [0, 'true', '0.1.0'], out)
    assert.ok(set.RUSTC_WRAPPER.startsWith(path.join(job.dir, 'tools/kiln/0.1.0')))
    assert.equal((await job.step('kiln', ['--version'])).code, 0)
    await job.post()
    assert.equal(asked.length, 2)

    const again = new Job({ env: { ...PLAIN, RUNNER_TOOL_CACHE: job.env.RUNNER_TOOL_CACHE } })
    assert.equal((await again.main({ ...place, version: 'v0.1.0', upstream: 'none' })).outputs.active, 'true')
    await again.post()
    assert.equal(asked.length, 2)

    const pinned = new Job({ env: PLAIN })
    assert.equal((await pinned.main({ ...place, version: '0.1.0', sha256: hash, upstream: 'none' })).outputs.active, 'true')
    await pinned.post()
  })

  test('an archive that hashes to something else is not unpacked', async (t) => {
    const { hash, asked, ...place } = await releases(t, '0'.repeat(64))
    const job = new Job({ env: PLAIN })
    await withoutKiln(job, { ...place, version: '0.1.0' }, /hashes to/)
    assert.ok(!fs.existsSync(path.join(job.dir, 'tools')))
    await withoutKiln(new Job({ env: PLAIN }), { ...place, version: '0.2.0' }, /answers 404/)
  })
})

// The cache service of GitHub Actions as far as a job of these tests needs it, on a loopback port. The strict imitation
// is in the storage crate; this one shows that the action hands on what it takes to get in.
'use strict'

const { createServer } = require('node:http')

const PREFIX = '/twirp/github.actions.results.api.v1.CacheService/'

/** A token of a runner whose job may read and write a ref. */
function token(ref) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const ac = JSON.stringify([{ Scope: ref, Permission: 3 }])
  return `${part({ alg: 'RS256' })}.${part({ ac, repository_id: '4711' })}.unsigned`
}

class Service {
  entries = []
  /** Requests with another token, or none. */
  refused = 0

  constructor(token) {
    this.token = token
    this.server = createServer((request, response) => this.#answer(request, response))
  }

  async start() {
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done))
    this.url = `http://127.0.0.1:${this.server.address().port}/`
    return this
  }

  stop() {
    this.server.closeAllConnections()
    this.server.close()
  }

  /** Keys of all entries that can be found. */
  keys() {
    return this.entries.filter((entry) => entry.final).map((entry) => entry.key)
  }

  async #answer(request, response) {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    const url = new URL(request.url, this.url)
    const json = (status, value) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    const blob = /^\/devstoreaccount1\/cache\/(\d+)$/.exec(url.pathname)
    if (blob) return this.#blob(this.entries[blob[1]], { request, response, url, body })
    if (request.headers.authorization !== `Bearer ${this.token}`) {
      this.refused += 1
      return json(401, { code: 'unauthenticated', msg: 'no token' })
    }
    const call = this[url.pathname.replace(PREFIX, '')]
    if (!call) return json(404, { code: 'bad_route', msg: url.pathname })
    json(...call.call(this, JSON.parse(body)))
  }

  #place(entry) {
    return `${this.url}devstoreaccount1/cache/${this.entries.indexOf(entry)}?sig=yes`
  }

  CreateCacheEntry({ key, version }) {
    if (this.entries.some((entry) => entry.key === key && entry.version === version)) {
      return [409, { code: 'already_exists', msg: 'it is there' }]
    }
    const entry = { key, version, blocks: new Map(), final: false }
    this.entries.push(entry)
    return [200, { ok: true, signed_upload_url: this.#place(entry) }]
  }

  FinalizeCacheEntryUpload({ key, version }) {
    const entry = this.entries.find((entry) => entry.key === key && entry.version === version && entry.bytes)
    if (!entry) return [404, { code: 'not_found', msg: 'nothing was uploaded' }]
    entry.final = true
    return [200, { ok: true, entry_id: '1' }]
  }

  GetCacheEntryDownloadURL({ key, restore_keys, version }) {
    const asked = [key, ...(restore_keys ?? [])]
    const found = this.entries.findLast((entry) => entry.final && entry.version === version && asked.some((one) => entry.key.startsWith(one)))
    return [200, found ? { ok: true, signed_download_url: this.#place(found), matched_key: found.key } : { ok: false }]
  }

  #blob(entry, { request, response, url, body }) {
    if (request.method === 'PUT') {
      const block = url.searchParams.get('blockid')
      if (block) entry.blocks.set(block, body)
      else if (url.searchParams.get('comp') === 'blocklist') {
        const ids = [...body.toString().matchAll(/<Latest>([^<]+)<\/Latest>/g)].map((match) => match[1])
        entry.bytes = Buffer.concat(ids.map((id) => entry.blocks.get(id)))
      } else entry.bytes = body
      return response.writeHead(201).end()
    }
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    if (!range) return response.writeHead(200).end(entry.bytes)
    const from = Number(range[1])
    const to = Math.min(range[2] ? Number(range[2]) : Infinity, entry.bytes.length - 1)
    const head = { 'content-range': `bytes ${from}-${to}/${entry.bytes.length}` }
    response.writeHead(206, head).end(entry.bytes.subarray(from, to + 1))
  }
}

module.exports = { Service, token }

// The cache of Forgejo's and Gitea's runners and of act, which speak an older protocol, as far as a job of these tests needs
// it, on a loopback port. The strict imitation is in the storage crate; this one shows that the action hands on its address.
'use strict'

const { createServer } = require('node:http')

const BASE = '/secret/_apis/artifactcache/'

class OlderService {
  entries = []

  async start() {
    this.server = createServer((request, response) => this.#answer(request, response))
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done))
    this.host = `http://127.0.0.1:${this.server.address().port}`
    // What lets in is in the address.
    this.url = `${this.host}/secret/`
    return this
  }

  stop() {
    this.server.closeAllConnections()
    this.server.close()
  }

  async #answer(request, response) {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    const url = new URL(request.url, this.host)
    const json = (status, value) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    const [what, id] = url.pathname.startsWith(BASE) ? url.pathname.slice(BASE.length).split('/') : []
    const entry = this.entries[id]
    const is = `${request.method} ${what}`
    if (is === 'GET cache') {
      const found = this.#find(url.searchParams)
      return found ? json(200, found) : response.writeHead(204).end()
    }
    if (is === 'POST caches' && !id) return json(...this.#reserve(JSON.parse(body)))
    if (is === 'PATCH caches') {
      entry.parts.push([Number(/bytes (\d+)-/.exec(request.headers['content-range'])[1]), body])
      return response.writeHead(200).end()
    }
    if (is === 'POST caches') {
      entry.bytes = Buffer.concat(entry.parts.sort((a, b) => a[0] - b[0]).map((part) => part[1]))
      return json(200, {})
    }
    if (is !== 'GET artifacts') return response.writeHead(404).end()
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    if (!range) return response.writeHead(200).end(entry.bytes)
    const from = Number(range[1])
    const to = Math.min(range[2] ? Number(range[2]) : Infinity, entry.bytes.length - 1)
    const head = { 'content-range': `bytes ${from}-${to}/${entry.bytes.length}` }
    return response.writeHead(206, head).end(entry.bytes.subarray(from, to + 1))
  }

  #find(asked) {
    const keys = asked.get('keys').split(',')
    const holds = (entry) => entry.bytes && entry.version === asked.get('version') && keys.some((key) => entry.key.startsWith(key))
    const found = this.entries.findLast(holds)
    return found && { cacheKey: found.key, archiveLocation: `${this.host}${BASE}artifacts/${this.entries.indexOf(found)}` }
  }

  #reserve({ key, version }) {
    if (this.entries.some((entry) => entry.key === key && entry.version === version)) return [409, { message: 'it is there' }]
    this.entries.push({ key, version, parts: [] })
    return [200, { cacheId: this.entries.length - 1 }]
  }
}

module.exports = { OlderService }

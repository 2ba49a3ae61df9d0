// Drives the official client of the GitHub Actions cache, one operation a run, for tests/gha_official.rs:
//   node drive.mjs save KEY          saves the directory `data` below the working directory
//   node drive.mjs restore KEY [PREFIX…]
// The last line printed is a JSON object that says what came of it.
import * as cache from '@actions/cache'

const [operation, key, ...prefixes] = process.argv.slice(2)
const outcome = {}
try {
  if (operation === 'save') {
    outcome.saved = (await cache.saveCache(['data'], key)) >= 0
  } else {
    outcome.restored = (await cache.restoreCache(['data'], key, prefixes)) ?? null
  }
} catch (error) {
  outcome.error = `${error.name}: ${error.message}`
}
console.log(`\n${JSON.stringify(outcome)}`)

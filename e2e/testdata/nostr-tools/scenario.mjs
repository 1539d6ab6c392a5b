// The first-light scenario with nostr-tools as the client on both ends: alice uses the first node, bob the third.
// usage: node scenario.mjs ws://A ws://C
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'
import { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'
import WebSocket from 'ws'

useWebSocketImplementation(WebSocket)
const [urlA, urlC] = process.argv.slice(2)
const now = () => Math.floor(Date.now() / 1000)
const alice = generateSecretKey(), bob = generateSecretKey()

function check(ok, what) {
  if (!ok) throw new Error('failed: ' + what)
  console.log('ok', what)
}

// next resolves with the first event that passes the test.
function next(relay, filter, test = () => true) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('nothing came for ' + JSON.stringify(filter))), 15000)
    const sub = relay.subscribe([filter], {
      onevent(e) { if (test(e)) { clearTimeout(timer); sub.close(); resolve(e) } },
    })
  })
}

// stored returns what a relay has until EOSE.
function stored(relay, filter) {
  return new Promise(resolve => {
    const events = []
    const sub = relay.subscribe([filter], {
      onevent: e => events.push(e),
      oneose() { sub.close(); resolve(events) },
    })
  })
}

async function refused(relay, template, key, reason) {
  try {
    await relay.publish(finalizeEvent(template, key))
  } catch (e) {
    check(String(e.message ?? e).startsWith(reason), `refused with ${JSON.stringify(String(e.message ?? e))}`)
    return
  }
  throw new Error('not refused: ' + reason)
}

const a = await Relay.connect(urlA), c = await Relay.connect(urlC)

const persian = 'می‌خواهیم '.repeat(14) // 140 characters, with zero-width non-joiners
check([...persian].length === 140, 'the note has 140 characters')
const arrival = next(c, { kinds: [1], '#t': ['تهران'] })
const note = finalizeEvent({ kind: 1, created_at: now(), tags: [['t', 'تهران']], content: persian }, alice)
await a.publish(note)
const seen = await arrival
check(seen.id === note.id && seen.content === persian && verifyEvent(seen), 'bob sees it as alice signed it')

const answer = next(a, { kinds: [1], '#e': [note.id] })
await c.publish(finalizeEvent({ kind: 1, created_at: now(), tags: [['e', note.id, '', 'root'], ['p', note.pubkey]], content: 'سلام از بیرون' }, bob))
check((await answer).pubkey === getPublicKey(bob), 'alice sees the answer')

await refused(a, { kind: 1, created_at: now(), tags: [], content: 'x'.repeat(141) }, alice, 'invalid:')
await refused(a, { kind: 1, created_at: now() + 3600, tags: [], content: 'from the future' }, alice, 'invalid:')
await refused(a, { kind: 1, created_at: now(), tags: [['-']], content: 'protected' }, alice, 'restricted:')

const profile = (at, name) => finalizeEvent({ kind: 0, created_at: at, tags: [], content: JSON.stringify({ name }) }, alice)
const t = now()
await a.publish(profile(t - 5, 'alice'))
await next(c, { kinds: [0], authors: [note.pubkey] }, e => e.content.includes('alice'))
await a.publish(profile(t, 'alice of tehran'))
await a.publish(profile(t - 9, 'too old')) // answered OK true, duplicate:
const mine = await stored(a, { kinds: [0], authors: [note.pubkey] })
check(mine.length === 1 && mine[0].content.includes('of tehran'), 'the newest profile alone is kept')
await next(c, { kinds: [0], authors: [note.pubkey] }, e => e.content.includes('of tehran'))
check((await stored(c, { kinds: [0], authors: [note.pubkey] })).length === 1, 'bob has the newest profile alone')

const gone = next(c, { kinds: [5], authors: [note.pubkey] })
await a.publish(finalizeEvent({ kind: 5, created_at: now(), tags: [['e', note.id]], content: '' }, alice))
await gone
check((await stored(c, { ids: [note.id] })).length === 0, 'the deleted note is gone at bob\'s node')
await refused(c, { ...note }, alice, 'blocked:')

const follows = finalizeEvent({ kind: 3, created_at: now(), tags: [['p', getPublicKey(bob)]], content: '' }, alice)
const kept = await a.publish(follows)
check(String(kept).startsWith('kept here: kind 3'), 'a follow list stays at its node: ' + kept)
check((await stored(a, { kinds: [3] })).length === 1 && (await stored(c, { kinds: [3] })).length === 0, 'and only there')

a.close()
c.close()
console.log('done')

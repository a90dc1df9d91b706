// What a store promises of the abilities that it has: scanning, users, epoch, leases, notes and signals.
import { newSessionId, newToken } from '../../ids.js'
import type { SessionNotes } from '../../record/notes.js'
import type { SessionData } from '../../record/session-data.js'
import type { SessionSignals } from '../../record/signals.js'
import type { SessionStore, StoreAbility } from '../../record/store.js'
import type { UserEntry, UserIndex } from '../../record/user-index.js'
import {
  afterTurns,
  type Check,
  changeOf,
  concurrently,
  endOf,
  equal,
  HOSTILE,
  HOUR_MS,
  must,
  ONE_FIELD,
  pick,
  same,
  sameResult,
  sample,
} from '../samples.js'

/** The checks of one ability; `atomic` ones are on calls at the same time, on one store or on two. */
export interface AbilityChecks {
  readonly basic: Record<string, Check>
  readonly atomic: Record<string, Check>
}

const scanChecks: AbilityChecks = {
  basic: {
    'scan() has every record whole: live ones, expired ones and tombstones': async (store) => {
      const records = [
        sample({ fields: { a: '1', '': '2' }, userId: 1, context: { ip: '127.0.0.1' }, epoch: 2 }),
        sample({ fields: { large: 'x'.repeat(20_000) }, idleTimeoutMs: 9_000, persistent: false }),
        sample({ age: 120_000, life: 60_000, fields: { a: '1' } }),
        sample({ userId: 'two' }),
        ...Array.from({ length: 300 }, () => sample({ fields: { a: '1' } })),
      ]
      // A few at a time: how much a store takes at once is not what this asks.
      for (let first = 0; first < records.length; first += 20) {
        await Promise.all(records.slice(first, first + 20).map((record) => create(store, record)))
      }
      await store.end((records[3] as SessionData).id, endOf({ by: 'admin' }), 60)
      const gone = sample()
      await create(store, gone)
      await store.delete(gone.id)

      const found = await scanned(store)
      for (const { id } of records) same(found.get(id) ?? null, await must(store, id))
      equal(found.has(gone.id), false, 'whether a deleted session is there')
    },
    'scan() can be left before its end, and begun again': async (store) => {
      const records = Array.from({ length: 20 }, () => sample())
      for (const record of records) await create(store, record)
      for await (const record of scanOf(store)) {
        equal(typeof record.id, 'string', 'the type of an ID')
        break
      }
      const found = await scanned(store)
      equal(
        records.every(({ id }) => found.has(id)),
        true,
        'whether all are there',
      )
    },
    'scan() passes over what users, epoch, leases and notes are kept in': async (store) => {
      const record = sample()
      await create(store, record)
      await store.users?.add(newUser(), entryOf(record.id), { now: Date.now() })
      await store.epoch?.(await store.epoch())
      await store.lease?.(newSessionId(), 'owner', 60_000)
      await store.notes?.put('purpose', newKey(), 'text', MINUTE)
      for await (const { id, createdAt, fields } of scanOf(store)) {
        equal(
          `${typeof id} ${typeof createdAt} ${typeof fields.size}`,
          'string number number',
          'what a record is made of',
        )
      }
    },
  },
  atomic: {
    'a scan during changes comes to its end, and misses no session that stays': async (store, peer) => {
      const staying = Array.from({ length: 100 }, () => sample())
      const ending = Array.from({ length: 100 }, () => sample())
      await concurrently(100, (index) => create(pick(index, store, peer), staying[index] as SessionData))
      await concurrently(100, (index) => create(store, ending[index] as SessionData))
      const [found] = await Promise.all([
        scanned(peer),
        concurrently(100, async (index) => {
          await afterTurns(index % 7, () => store.end((ending[index] as SessionData).id, endOf(), 60))
          await create(store, sample())
          const record = staying[index] as SessionData
          await store.update(record.id, changeOf(record, { set: ONE_FIELD }), 60)
        }),
      ])
      equal(staying.filter(({ id }) => found.has(id)).length, 100, 'sessions found')
    },
  },
}

const userChecks: AbilityChecks = {
  basic: {
    'an entry comes back as it was added, and stands alone': async (store) => {
      const [users, user, other] = [usersOf(store), newUser(), newUser()]
      const now = Date.now()
      const entries = [
        entryOf(newSessionId(), { since: now - 1, endsAt: now + HOUR_MS, pendingUntil: now + 1_000 }),
        entryOf(newSessionId(), { since: now, endsAt: now + 1, pendingUntil: 0 }),
        entryOf(newSessionId(), { since: 0, endsAt: now + 10_000 * HOUR_MS }),
      ]
      sameResult(await users.list(user, now), [])
      for (const entry of entries) sameResult(await users.add(user, entry, { now }), { status: 'added', evicted: [] })
      sameEntries(await users.list(user, now), entries)
      sameResult(await users.list(other, now), [])
    },
    'add() replaces the entry of the same session': async (store) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const first = entryOf(newSessionId(), { since: now - 1_000 })
      const second = { ...first, since: now, pendingUntil: 0 }
      await users.add(user, first, { now })
      equal((await users.add(user, second, { now, max: 1 })).status, 'added', 'status at the limit')
      sameEntries(await users.list(user, now), [second])
    },
    'add() beyond the limit adds nothing, and tells what is there': async (store) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const entries = [entryOf(newSessionId()), entryOf(newSessionId())]
      for (const entry of entries) equal((await users.add(user, entry, { now, max: 2 })).status, 'added', 'below')
      const result = await users.add(user, entryOf(newSessionId()), { now, max: 2 })
      equal(result.status, 'full', 'status')
      if (result.status === 'full') sameEntries(result.entries, entries)
      sameEntries(await users.list(user, now), entries)
      equal((await users.add(newUser(), entryOf(newSessionId()), { now, max: 2 })).status, 'added', 'of another user')
      equal((await users.add(user, entryOf(newSessionId()), { now })).status, 'added', 'without a limit')
    },
    'add() beyond the limit marks the earliest login instead, when told to, and tells every marked one': async (
      store,
    ) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const [middle, earliest, latest, fourth, fifth] = [-20, -30, -10, -1, 0].map((age) =>
        entryOf(newSessionId(), { since: now + age }),
      ) as [UserEntry, UserEntry, UserEntry, UserEntry, UserEntry]
      const options = { now, max: 3, evictsOldest: true }
      for (const entry of [middle, earliest, latest]) {
        sameResult(await users.add(user, entry, options), { status: 'added', evicted: [] })
      }
      sameEvicted(await users.add(user, fourth, options), [earliest])
      sameEntries(await users.list(user, now), [middle, marked(earliest), latest, fourth])
      // A lower limit marks as many as it takes; those that were marked before are told again, and do not count.
      sameEvicted(await users.add(user, fifth, { ...options, max: 2 }), [earliest, middle, latest])
      sameEntries(await users.list(user, now), [marked(middle), marked(earliest), marked(latest), fourth, fifth])
    },
    'marked entries do not count against the limit that refuses': async (store) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const [first, second] = [entryOf(newSessionId()), entryOf(newSessionId())]
      await users.add(user, first, { now })
      await users.evict(user, { now })
      sameEvicted(await users.add(user, second, { now, max: 1 }), [first])
      const refused = await users.add(user, entryOf(newSessionId()), { now, max: 1 })
      equal(refused.status, 'full', 'status')
      if (refused.status === 'full') sameEntries(refused.entries, [marked(first), second])
    },
    'settle() says that a session is there, removes others, and fails for what was evicted or removed': async (
      store,
    ) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const [pending, old, evicted, removed] = [1, 2, 3, 4].map(() =>
        entryOf(newSessionId(), { pendingUntil: now + 10_000 }),
      ) as [UserEntry, UserEntry, UserEntry, UserEntry]
      for (const entry of [evicted, old, removed]) await users.add(user, entry, { now })
      await users.evict(user, { now, except: old.id })
      await users.remove(user, [removed.id])
      await users.add(user, pending, { now })

      equal(await users.settle(user, pending.id, [old.id, newSessionId()]), true, 'a good one')
      sameEntries(await users.list(user, now), [{ ...pending, pendingUntil: 0 }, marked(evicted)])
      equal(await users.settle(user, pending.id), true, 'the same again')
      equal(await users.settle(user, evicted.id), false, 'an evicted one')
      equal(await users.settle(user, removed.id), false, 'a removed one')
      equal(await users.settle(newUser(), pending.id), false, 'that of another user')
      equal((await users.list(user, now)).length, 2, 'entries: settle() adds none')
    },
    'an entry is there until its session can no longer be': async (store) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const [short, long] = [HOUR_MS, 2 * HOUR_MS].map((life) => entryOf(newSessionId(), { endsAt: now + life })) as [
        UserEntry,
        UserEntry,
      ]
      await users.add(user, short, { now })
      await users.add(user, long, { now })
      sameEntries(await users.list(user, short.endsAt - 1), [short, long])
      sameEntries(await users.list(user, short.endsAt), [long])
      const third = entryOf(newSessionId(), { since: short.endsAt, endsAt: now + 3 * HOUR_MS })
      const result = await users.add(user, third, { now: short.endsAt, max: 2 })
      sameResult(result, { status: 'added', evicted: [] })
      sameEntries(await users.evict(user, { now: long.endsAt }), [marked(third)])
      sameResult(await users.list(user, third.endsAt), [])
    },
    'evict() marks all but one, and tells every marked one until it is removed': async (store) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const entries = [1, 2, 3].map(() => entryOf(newSessionId()))
      const [first, second, third] = entries as [UserEntry, UserEntry, UserEntry]
      for (const entry of entries) await users.add(user, entry, { now })
      sameEntries(await users.evict(user, { now, except: second.id }), [marked(first), marked(third)])
      sameEntries(await users.list(user, now), [marked(first), second, marked(third)])
      await users.remove(user, [first.id])
      sameEntries(await users.evict(user, { now }), [marked(second), marked(third)])
      sameResult(await users.evict(newUser(), { now }), [])
      sameEntries(await users.list(user, now), [marked(second), marked(third)])
    },
    'remove() removes what is there, and ignores the rest': async (store) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const [first, second] = [entryOf(newSessionId()), entryOf(newSessionId())]
      await users.add(user, first, { now })
      await users.add(user, second, { now })
      await users.remove(user, [])
      await users.remove(user, [newSessionId(), first.id])
      await users.remove(newUser(), [second.id])
      sameEntries(await users.list(user, now), [second])
      await users.remove(user, [second.id, second.id])
      sameResult(await users.list(user, now), [])
    },
    'users do not meet, whatever letters they are made of': async (store) => {
      const [users, user, now] = [usersOf(store), newUser(), Date.now()]
      const names = [user, user.toLowerCase(), `${user}-`, `${user}_`, `-${user}`, `${user}-${user}`, `_${user}`]
      const all = [...new Set(names)].map((name) => ({ name, entry: entryOf(newSessionId()) }))
      for (const { name, entry } of all) await users.add(name, entry, { now, max: 1 })
      for (const { name, entry } of all) sameEntries(await users.list(name, now), [entry])
    },
  },
  atomic: {
    'of 20 concurrent logins all are there': async (store, peer) => {
      const [user, now] = [newUser(), Date.now()]
      const entries = Array.from({ length: 20 }, () => entryOf(newSessionId()))
      await concurrently(20, (index) =>
        usersOf(pick(index, store, peer)).add(user, entries[index] as UserEntry, { now }),
      )
      sameEntries(await usersOf(peer).list(user, now), entries)
    },
    '20 concurrent logins with a limit of 3 leave exactly 3, and mark the others': async (store, peer) => {
      const [user, now] = [newUser(), Date.now()]
      const results = await concurrently(20, (index) =>
        usersOf(pick(index, store, peer)).add(user, entryOf(newSessionId(), { since: now + (index % 5) }), {
          now,
          max: 3,
          evictsOldest: true,
        }),
      )
      equal(results.filter(({ status }) => status === 'added').length, 20, 'logins')
      const entries = await usersOf(peer).list(user, now)
      equal(entries.length, 20, 'entries')
      equal(entries.filter(({ isEvicted }) => !isEvicted).length, 3, 'entries that are not marked')
    },
    '20 concurrent logins with a limit of 3 that refuses leave exactly 3': async (store, peer) => {
      const [user, now] = [newUser(), Date.now()]
      const entries = Array.from({ length: 20 }, () => entryOf(newSessionId()))
      const results = await concurrently(20, (index) =>
        usersOf(pick(index, store, peer)).add(user, entries[index] as UserEntry, { now, max: 3 }),
      )
      const added = entries.filter((_entry, index) => results[index]?.status === 'added')
      equal(added.length, 3, 'logins')
      sameEntries(await usersOf(peer).list(user, now), added)
    },
    'no login slips past an eviction: it is marked and told, or came after': async (store, peer) => {
      for (let round = 0; round < 10; round++) {
        const [user, now] = [newUser(), Date.now()]
        const entries = Array.from({ length: 8 }, () => entryOf(newSessionId(), { pendingUntil: now + 10_000 }))
        const [told, settled] = await Promise.all([
          afterTurns(round % 5, () => usersOf(store).evict(user, { now })),
          concurrently(8, async (index) => {
            const users = usersOf(pick(index, peer, store))
            const { id } = entries[index] as UserEntry
            await afterTurns(index % 4, () => users.add(user, entries[index] as UserEntry, { now }))
            return users.settle(user, id)
          }),
        ])
        const list = await usersOf(peer).list(user, now)
        equal(list.length, 8, 'entries')
        for (const [index, { id }] of entries.entries()) {
          const isTold = told.some((entry) => entry.id === id)
          equal(list.find((entry) => entry.id === id)?.isEvicted, isTold, 'whether an entry that was told is marked')
          if (!isTold) equal(settled[index], true, 'settle() of an entry that was not told')
        }
      }
    },
  },
}

const epochChecks: AbilityChecks = {
  basic: {
    'epoch() is a count that only rises, and is raised by being told': async (store) => {
      const before = await epochOf(store)
      equal(Number.isSafeInteger(before) && before >= 0, true, 'whether it is a count')
      equal(await epochOf(store, before + 2), before + 2, 'the raised epoch')
      equal(await epochOf(store), before + 2, 'the epoch after that')
      equal(await epochOf(store, before + 1), before + 2, 'the epoch after a lower one')
      equal(await epochOf(store, 0), before + 2, 'the epoch after 0')
    },
  },
  atomic: {
    'of concurrent raises of the epoch the highest stands, and none is told a lower one': async (store, peer) => {
      const before = await epochOf(store)
      const told = await concurrently(20, async (index) => {
        const wanted = before + 1 + ((index * 7) % 20)
        return (await epochOf(pick(index, store, peer), wanted)) - wanted
      })
      equal(
        told.every((above) => above >= 0),
        true,
        'whether all are told at least theirs',
      )
      equal(await epochOf(peer), before + 20, 'the epoch')
      equal(await epochOf(store), before + 20, 'the epoch in the other store')
    },
  },
}

const leaseChecks: AbilityChecks = {
  basic: {
    'a lease has one owner, who may prolong it': async (store) => {
      const [name, other] = [newSessionId(), newSessionId()]
      equal(await leaseOf(store, name, 'a', 60_000), true, 'taking')
      equal(await leaseOf(store, name, 'b', 60_000), false, 'taking what another has')
      equal(await leaseOf(store, name, 'a', 60_000), true, 'prolonging')
      equal(await leaseOf(store, name, 'b', 60_000), false, 'taking what was prolonged')
      equal(await leaseOf(store, other, 'b', 60_000), true, 'taking another one')
    },
    'a lease is over when its time is, counted from when it was prolonged': async (store) => {
      const [name, probe] = [newSessionId(), newSessionId()]
      await leaseOf(store, name, 'a', 50)
      equal(await leaseOf(store, name, 'a', 60_000), true, 'prolonging')
      await leaseOf(store, probe, 'a', 50)
      // The probe ends no earlier than the first of the two would have.
      await until(() => leaseOf(store, probe, 'b', 60_000))
      equal(await leaseOf(store, name, 'b', 60_000), false, 'taking what was prolonged')
      equal(await leaseOf(store, probe, 'a', 60_000), false, 'taking back what another has now')
    },
  },
  atomic: {
    'of 20 who want a lease at once exactly one gets it': async (store, peer) => {
      const name = newSessionId()
      const results = await concurrently(20, (index) => leaseOf(pick(index, store, peer), name, `${index}`, 60_000))
      equal(results.filter(Boolean).length, 1, 'owners')
      const owner = String(results.indexOf(true))
      equal(await leaseOf(peer, name, owner, 60_000), true, 'prolonging by the owner')
    },
  },
}

const noteChecks: AbilityChecks = {
  basic: {
    'a note comes back as it was written, under its purpose and key alone': async (store) => {
      const [notes, key, other] = [notesOf(store), newKey(), newKey()]
      equal(await notes.get('a', key), null, 'before it is written')
      for (const text of ['', HOSTILE, 'x'.repeat(20_000)]) {
        equal(await notes.put('a', key, text, MINUTE), true, 'writing')
        equal(await notes.get('a', key), text, 'the text')
      }
      equal(await notes.get('b', key), null, 'under another purpose')
      equal(await notes.get('a', other), null, 'under another key')
      equal(await notes.get('a', key.toLowerCase()), key === key.toLowerCase() ? '' : null, 'under a key in lower case')
    },
    'put() with ifAbsent leaves what is there': async (store) => {
      const [notes, key] = [notesOf(store), newKey()]
      equal(await notes.put('a', key, '1', { ...MINUTE, ifAbsent: true }), true, 'the first')
      equal(await notes.put('a', key, '2', { ...MINUTE, ifAbsent: true }), false, 'the second')
      equal(await notes.get('a', key), '1', 'the text')
    },
    'take() reads and removes, delete() removes, and both leave the rest': async (store) => {
      const [notes, key, other] = [notesOf(store), newKey(), newKey()]
      for (const name of [key, other]) await notes.put('a', name, name, MINUTE)
      equal(await notes.take('b', key), null, 'taking under another purpose')
      equal(await notes.take('a', key), key, 'taking')
      equal(await notes.take('a', key), null, 'taking again')
      await notes.delete('a', key)
      equal(await notes.get('a', other), other, 'the other')
      await notes.delete('a', other)
      equal(await notes.get('a', other), null, 'the other, deleted')
      equal(await notes.put('a', key, 'anew', { ...MINUTE, ifAbsent: true }), true, 'writing what was taken')
    },
    'a note is gone when its time is over, counted from when it was last written': async (store) => {
      const [notes, short, long] = [notesOf(store), newKey(), newKey()]
      await notes.put('a', long, '1', { ttlSeconds: 1 })
      await notes.put('a', long, '2', MINUTE)
      await notes.put('a', short, '1', { ttlSeconds: 1 })
      // The short one ends no earlier than the first of the other would have.
      await until(async () => (await notes.get('a', short)) === null)
      equal(await notes.take('a', short), null, 'taking what is over')
      equal(await notes.put('a', short, '3', { ...MINUTE, ifAbsent: true }), true, 'writing what is over')
      equal(await notes.get('a', long), '2', 'the one that was written again')
    },
  },
  atomic: {
    'of 50 who take a note at once exactly one gets it': async (store, peer) => {
      for (let round = 0; round < 5; round++) {
        const key = newKey()
        await notesOf(store).put('a', key, 'text', MINUTE)
        const taken = await concurrently(50, (index) => notesOf(pick(index, store, peer)).take('a', key))
        equal(taken.filter((text) => text === 'text').length, 1, 'takers')
        equal(taken.filter((text) => text === null).length, 49, 'who came too late')
      }
    },
    'of 50 who write a note if it is absent exactly one does': async (store, peer) => {
      const key = newKey()
      const options = { ...MINUTE, ifAbsent: true }
      const written = await concurrently(50, (index) =>
        notesOf(pick(index, store, peer)).put('a', key, `${index}`, options),
      )
      equal(written.filter(Boolean).length, 1, 'writers')
      equal(await notesOf(peer).get('a', key), String(written.indexOf(true)), 'the text')
    },
  },
}

const signalChecks: AbilityChecks = {
  basic: {
    'a signal is heard by all who listen to its channel, and by no others': async (store) => {
      const [signals, channel, other] = [signalsOf(store), newKey(), newKey()]
      const heard: string[] = []
      const stops = [
        await signals.listen(channel, (text) => heard.push(`first ${text}`)),
        await signals.listen(channel, (text) => heard.push(`second ${text}`)),
        await signals.listen(other, (text) => heard.push(`other ${text}`)),
      ]
      await signals.send(channel, HOSTILE)
      await until(async () => heard.length === 2)
      equal([...heard].sort().join(), `first ${HOSTILE},second ${HOSTILE}`, 'heard')
      await stops[0]?.()
      await signals.send(channel, 'again')
      await until(async () => heard.length === 3)
      await signals.send(other, 'last')
      await until(async () => heard.length === 4)
      equal(heard.slice(2).join(), 'second again,other last', 'heard by those who still listen')
      for (const stop of stops) await stop()
    },
  },
  atomic: {
    'signals that one sends one after the other are all heard, each once': async (store, peer) => {
      const channel = newKey()
      const heard: string[] = []
      const stop = await signalsOf(peer).listen(channel, (text) => heard.push(text))
      for (let index = 0; index < 100; index++) await signalsOf(store).send(channel, `${index}`)
      await until(async () => heard.length === 100)
      const sent = Array.from({ length: 100 }, (_unused, index) => index)
      equal(
        heard
          .map(Number)
          .sort((a, b) => a - b)
          .join(),
        sent.join(),
        'heard',
      )
      await stop()
    },
  },
}

const MINUTE = { ttlSeconds: 60 }

/** The checks by ability. A store is checked for those that it has. */
export const ABILITY_CHECKS: Readonly<Record<StoreAbility, AbilityChecks>> = {
  scan: scanChecks,
  users: userChecks,
  epoch: epochChecks,
  lease: leaseChecks,
  notes: noteChecks,
  signals: signalChecks,
}

async function create(store: SessionStore, record: SessionData): Promise<void> {
  equal(await store.create(record.id, record, 60), true, 'create')
}

function scanOf(store: SessionStore): AsyncIterable<SessionData> {
  return store.scan?.() ?? missing('scan')
}

async function scanned(store: SessionStore): Promise<Map<string, SessionData>> {
  const found = new Map<string, SessionData>()
  for await (const record of scanOf(store)) found.set(record.id, record)
  return found
}

function usersOf(store: SessionStore): UserIndex {
  return store.users ?? missing('users')
}

function epochOf(store: SessionStore, atLeast?: number): Promise<number> {
  return store.epoch?.(atLeast) ?? missing('epoch')
}

function leaseOf(store: SessionStore, name: string, owner: string, ttlMs: number): Promise<boolean> {
  return store.lease?.(name, owner, ttlMs) ?? missing('lease')
}

function signalsOf(store: SessionStore): SessionSignals {
  return store.signals ?? missing('signals')
}

function notesOf(store: SessionStore): SessionNotes {
  return store.notes ?? missing('notes')
}

/** Checks of an ability run only on stores that have it; a peer that lacks it is broken. */
function missing(ability: StoreAbility): never {
  throw new Error(`A store on the same data lacks "${ability}".`)
}

/** A user that no other check knows, of the characters that users are made of. */
function newUser(): string {
  return newToken().tokenHash
}

/** A key of a note that no other check knows, of the same characters. */
function newKey(): string {
  return newToken().tokenHash
}

function entryOf(id: string, parts: Partial<UserEntry> = {}): UserEntry {
  const now = Date.now()
  return { id, since: now, endsAt: now + 12 * HOUR_MS, pendingUntil: 0, isEvicted: false, ...parts }
}

function marked(entry: UserEntry): UserEntry {
  return { ...entry, isEvicted: true }
}

/** In any order. */
function sameEntries(found: readonly UserEntry[], expected: readonly UserEntry[]): void {
  const sorted = (entries: readonly UserEntry[]): UserEntry[] => [...entries].sort((a, b) => (a.id < b.id ? -1 : 1))
  sameResult(sorted(found), sorted(expected))
}

function sameEvicted(result: Awaited<ReturnType<UserIndex['add']>>, expected: readonly UserEntry[]): void {
  equal(result.status, 'added', 'status')
  if (result.status === 'added') sameEntries(result.evicted, expected.map(marked))
}

async function until(isDone: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000
  while (!(await isDone())) {
    if (Date.now() >= end) throw new Error('Expected an end within 10 s.')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

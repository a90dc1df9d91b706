// The published conformance suite against the SQL store, on each database.
import { afterAll, beforeAll, describe, test } from '@jest/globals'
import { conformanceChecks } from 'sojourn/testing'
import { mariadbKit, postgresKit, sqliteKit } from '../../support/stores.js'

describe.each([
  ['SQLite', sqliteKit],
  ['PostgreSQL', postgresKit],
  ['MariaDB', mariadbKit],
])('SqlSessionStore on %s', (_name, kitOf) => {
  const kit = kitOf()
  beforeAll(kit.start)
  afterAll(kit.stop)
  for (const { name, ability, run } of conformanceChecks({ createStore: kit.create, createPeer: kit.create })) {
    // The one ability that these stores do not have: such a check checks nothing.
    if (ability !== 'signals') test(name, run)
  }
})

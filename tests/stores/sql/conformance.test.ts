// The published conformance suite against the SQL store, on each database.
import { afterAll, beforeAll, describe, test } from '@jest/globals'
import { conformanceChecks } from 'sojourn/testing'
import { mariadbKit, postgresKit, sqliteKit } from '../../support/stores.js'

describe.each([
  ['SQLite', sqliteKit],
  ['PostgreSQL', postgresKit],
  ['MariaDB', mariadbKit],
])('SqlSessionStore on %s', (database, kitOf) => {
  const kit = kitOf()
  beforeAll(kit.start)
  afterAll(kit.stop)
  for (const { name, ability, run } of conformanceChecks({ createStore: kit.create, createPeer: kit.create })) {
    // Only PostgreSQL has them: such a check would check nothing.
    if (ability !== 'signals' || database === 'PostgreSQL') test(name, run)
  }
})

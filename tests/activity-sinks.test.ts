// Every sink of ours passes the suite for sinks, and does what is its own.
import { describe, test } from '@jest/globals'
import { memorySink } from 'sojourn/activity'
import { sinkChecks } from 'sojourn/testing'

describe('the suite for sinks: memory', () => {
  for (const { name, run } of sinkChecks({ createSink: () => memorySink() })) test(name, run)
})

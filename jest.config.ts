/** @jest-config-loader esbuild-register */
import type { Config } from 'jest'

const config: Config = {
  testEnvironment: 'node',
  roots: ['<rootDir>/tests'],
  testMatch: ['**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { target: 'es2023', parser: { syntax: 'typescript' } }, module: { type: 'es6' } },
    ],
  },
  moduleNameMapper: {
    '^sojourn$': '<rootDir>/src/index.ts',
    '^sojourn/express-session$': '<rootDir>/src/features/express-session/index.ts',
    '^sojourn/connect-store$': '<rootDir>/src/stores/connect.ts',
    '^sojourn/redis$': '<rootDir>/src/stores/redis.ts',
    '^sojourn/sql$': '<rootDir>/src/stores/sql.ts',
    '^sojourn/activity$': '<rootDir>/src/features/activity/index.ts',
    '^sojourn/cache$': '<rootDir>/src/features/cache/index.ts',
    '^sojourn/metrics$': '<rootDir>/src/features/metrics/index.ts',
    '^sojourn/inside$': '<rootDir>/src/session/inside.ts',
    '^sojourn/recovery$': '<rootDir>/src/features/recovery/index.ts',
    '^sojourn/live$': '<rootDir>/src/features/live/index.ts',
    '^sojourn/passport$': '<rootDir>/src/features/passport.ts',
    '^sojourn/flash$': '<rootDir>/src/features/flash.ts',
    '^sojourn/encryption$': '<rootDir>/src/features/encryption/index.ts',
    '^sojourn/device-bound$': '<rootDir>/src/features/device-bound/index.ts',
    '^sojourn/client-binding$': '<rootDir>/src/features/client-binding/index.ts',
    '^sojourn/csrf$': '<rootDir>/src/features/csrf/index.ts',
    '^sojourn/config$': '<rootDir>/src/features/config/index.ts',
    '^sojourn/workspace$': '<rootDir>/src/features/workspace/index.ts',
    '^sojourn/state$': '<rootDir>/src/features/state/index.ts',
    '^sojourn/adopt$': '<rootDir>/src/features/adopt/index.ts',
    '^sojourn/testing$': '<rootDir>/src/testing/index.ts',
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
  // For a machine that does much else at the same time.
  testTimeout: 60_000,
}

export default config

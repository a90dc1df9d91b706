// Assertions that only the compiler runs: `npx tsc --noEmit -p tests/types`.

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Compiles when `Actual` is exactly `Expected`, `any` and `unknown` told apart. */
export function exactly<Expected>(): <Actual>(
  actual: Actual,
  ...proof: Equal<Actual, Expected> extends true ? [] : [{ expected: Expected; actual: Actual }]
) => void {
  return () => {}
}

// The assertions themselves.
exactly<string>()('a' as string)
// @ts-expect-error
exactly<string>()('a' as string | undefined)
// @ts-expect-error
exactly<string>()(JSON.parse('1'))
// @ts-expect-error
exactly<unknown>()(JSON.parse('1'))

// What the sources declare, read as text, so that a test notices what is new.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const files = (readdirSync('src', { recursive: true }) as string[]).filter((file) => file.endsWith('.ts'))
const sources = files.map((file) => readFileSync(join('src', file), 'utf8'))

/** The text of an exported declaration, from its name to the end. */
export function declared(declaration: string): string {
  const end = declaration.startsWith('type') ? '^$' : '^\\}'
  const pattern = new RegExp(`^export ${declaration}\\b[\\s\\S]*?(?=${end})`, 'm')
  for (const source of sources) {
    const [text] = pattern.exec(source) ?? []
    if (text !== undefined) return text
  }
  throw new Error(`There is no exported ${declaration} in src.`)
}

/** The names of an interface's own members. */
export function members(declaration: string): string[] {
  const names = [...declared(`interface ${declaration}`).matchAll(/^ {2}(?:readonly )?(\w+)\??[:(<]/gm)]
  return [...new Set(names.map(([, name]) => name as string))]
}

/** What a class offers by name. */
export function publicNames(prototype: object): string[] {
  return Object.getOwnPropertyNames(prototype).filter((name) => name !== 'constructor')
}

// Names of files: what is refused, what a client's name becomes, and that neither leads anywhere but into the folder.
import { join, resolve } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { isSessionError } from 'sojourn'
import { safeFileName } from 'sojourn/workspace'
import { checkFileName, nameKey, numbered, partsOfPath } from '../../../src/features/workspace/names.js'

const HOSTILE: readonly (readonly [name: string, safe: string])[] = [
  ['../x', 'x'],
  ['..', 'file'],
  ['.', 'file'],
  ['', 'file'],
  ['/etc/passwd', 'passwd'],
  ['a/../../b', 'b'],
  ['C:\\x', 'x'],
  ['C:x', 'C_x'],
  ['\\\\host\\share', 'share'],
  ['a\0.txt', 'a_.txt'],
  ['a\r\nb', 'a__b'],
  ['CON', '_CON'],
  ['nul.txt', '_nul.txt'],
  ['Com1.tar.gz', '_Com1.tar.gz'],
  ['trailing.', 'trailing'],
  ['trailing ', 'trailing'],
  [' leading', 'leading'],
  ['.htaccess', 'htaccess'],
  ['file.txt:stream', 'file.txt_stream'],
  ['exe\u202Etxt.exe', 'exe_txt.exe'],
  ['\ud800', '\ufffd'],
  ['x'.repeat(300), 'x'.repeat(200)],
  [`${'ä'.repeat(150)}.png`, `${'ä'.repeat(98)}.png`],
]

describe('a name that is not safe', () => {
  test.each(HOSTILE)('%j is refused as it is, and becomes %j', (name, safe) => {
    expect(() => checkFileName(name)).toThrow(expect.objectContaining({ code: 'INVALID_FILE_NAME', status: 400 }))
    expect(safeFileName(name)).toBe(safe)
    expect(checkFileName(safe)).toBe(safe)
  })

  test.each(['photo.png', 'Ärger.txt', '%2e%2e', 'a b (2).tar.gz', '文件', 'console.log', '-rf', "o'neill.pdf"])(
    '%j is safe, and kept',
    (name) => {
      expect(checkFileName(name)).toBe(name)
      expect(safeFileName(name)).toBe(name)
    },
  )

  test('one name has one form, whatever Unicode makes of it', () => {
    expect(checkFileName('Ärger')).toBe(checkFileName('A\u0308rger'))
    expect(nameKey('STRASSE.PNG')).toBe(nameKey('strasse.png'))
  })

  test('any text becomes a safe name, always the same, within the folder', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (text) => {
        const name = safeFileName(text)
        expect(safeFileName(name)).toBe(name)
        expect(checkFileName(name)).toBe(name)
        expect(resolve('/root/data', name)).toBe(join('/root/data', name))
        expect(join('/root/data', name).startsWith('/root/data/')).toBe(true)
      }),
    )
  })

  test('numbers go before the extension, and keep names within the limit', () => {
    expect(numbered('photo.png', 2)).toBe('photo (2).png')
    expect(numbered('README', 12)).toBe('README (12)')
    expect(checkFileName(numbered(`${'x'.repeat(196)}.png`, 1000))).toHaveLength(200)
  })
})

describe('a path', () => {
  test('is made of names', () => {
    expect(partsOfPath('a/.b/c.txt')).toEqual(['a', '.b', 'c.txt'])
  })

  test.each(['', '/', '/a', 'a/', 'a//b', './a', 'a/..', '../a', 'a/../b', 'a\\b', 'C:/a', 'a/nul', 'a\0', 'a/b. ', 7])(
    '%j is none',
    (path) => {
      expect(() => partsOfPath(path)).toThrow(expect.objectContaining({ code: 'INVALID_FILE_NAME' }))
    },
  )

  test('that is taken holds nothing that leads elsewhere, whatever it is', () => {
    const segment = fc.constantFrom('a', '..', '.', '', 'b.txt', '~', '\\', '%2e%2e', '\0', 'nul', '/', '.. ')
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 6 }), (segments) => {
        try {
          const parts = partsOfPath(segments.join('/'))
          expect(resolve('/root/data', ...parts).startsWith('/root/data/')).toBe(true)
        } catch (error) {
          if (!isSessionError(error, 'INVALID_FILE_NAME')) throw error
        }
      }),
    )
  })
})

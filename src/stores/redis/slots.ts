// Which slot of a cluster a key is in.

/** The slot of a key in a cluster: CRC-16 (XMODEM) of its hash tag, or of all of it when it has none. */
export function slotOfKey(key: string): number {
  const tag = /^\{([^}]+)\}/.exec(key.slice(key.indexOf('{')))?.[1] ?? key
  let crc = 0
  for (const byte of Buffer.from(tag)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff
  }
  return crc % 16384
}

// The picture of a race: for each server, a square for each request, full when its field was kept and struck out when it
// was lost. It brings its own ground, and so can be read on light and on dark pages.
import { RACERS, type RaceResult } from './race.js'

const COLUMNS = 10
const STEP = 30
const SQUARE = 24
const PANEL = { width: 344, gap: 24, top: 84 }
const WIDTH = 760
const HEIGHT = 344

export function racePicture(results: readonly RaceResult[]): string {
  const words = results.map(({ name, kept }) => `${name} kept ${kept.length}`).join(', ')
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-labelledby="title" font-family="system-ui, -apple-system, 'Segoe UI', sans-serif">
  <title id="title">Of ${RACERS} fields that ${RACERS} requests set at once, ${words}.</title>
  <style>
    .ground { fill: #fdfcf9; stroke: #d9d3c7 } .panel { fill: #f3efe6 } text { fill: #24262b } .faint { fill: #5c6068 }
    .kept { fill: #1d6b57 } .lost { fill: none; stroke: #a8321f; stroke-width: 1.5 } .right { fill: #1d6b57 } .wrong { fill: #a8321f }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #17191b; stroke: #373b40 } .panel { fill: #2b2f33 } text { fill: #eceae5 } .faint { fill: #a9adb4 }
      .kept { fill: #6fc7ab } .lost { stroke: #ff9d8a } .right { fill: #6fc7ab } .wrong { fill: #ff9d8a }
    }
  </style>
  <rect class="ground" x="0.5" y="0.5" width="${WIDTH - 1}" height="${HEIGHT - 1}" rx="12"/>
  <text x="24" y="38" font-size="18" font-weight="600">${RACERS} requests at once, on one session</text>
  <text class="faint" x="24" y="62" font-size="14">Each sets a field of its own, and each was answered 200. Which fields are there afterwards?</text>
${results.map(panel).join('\n')}
</svg>
`
}

function panel({ name, kept }: RaceResult, index: number): string {
  const left = 24 + index * (PANEL.width + PANEL.gap)
  const isRight = kept.length === RACERS
  const squares = Array.from({ length: RACERS }, (_, racer) => {
    const x = left + 24 + (racer % COLUMNS) * STEP
    const y = PANEL.top + 48 + Math.floor(racer / COLUMNS) * STEP
    if (kept.includes(racer))
      return `<rect class="kept" x="${x}" y="${y}" width="${SQUARE}" height="${SQUARE}" rx="4"/>`
    const strike = `M${x + 6} ${y + SQUARE - 6}L${x + SQUARE - 6} ${y + 6}`
    return `<g class="lost"><rect x="${x}" y="${y}" width="${SQUARE}" height="${SQUARE}" rx="4"/><path d="${strike}"/></g>`
  })
  return `  <g>
    <rect class="panel" x="${left}" y="${PANEL.top}" width="${PANEL.width}" height="236" rx="8"/>
    <text x="${left + 24}" y="${PANEL.top + 31}" font-size="15" font-weight="600">${name}</text>
    ${squares.join('\n    ')}
    <text class="${isRight ? 'right' : 'wrong'}" x="${left + 24}" y="${PANEL.top + 220}" font-size="16" font-weight="600">${isRight ? '✓' : '✗'} ${kept.length} of ${RACERS} kept</text>
  </g>`
}

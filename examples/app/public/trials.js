// Sends the same requests to both servers at the same moment, and fills in what came of them.
const LOGOUT_AFTER_MS = 200

const trials = {
  /** Each request sets a field of its own. */
  async race(side) {
    await side.call('POST', '/race')
    // A browser opens about six connections to one server: so many requests of the two sides are under way at a time.
    await Promise.all(
      side.squares.map(async (square, racer) => {
        await side.call('POST', `/race/${racer}`)
        square.className = 'answered'
      }),
    )
    const { kept } = await side.call('GET', '/race')
    side.squares.forEach((square, racer) => {
      square.className = kept.includes(racer) ? 'right' : 'wrong'
    })
    side.tellCount(kept.length, 'fields kept')
  },

  /** The slow request has begun before the logout, and ends after it. */
  async logout(side) {
    await side.call('POST', '/login')
    const start = performance.now()
    const slow = side.ask('POST', '/slow').then(({ refused }) => {
      side.line(1, `${refused ?? 200} after ${since(start)}`)
    })
    await delay(LOGOUT_AFTER_MS)
    await side.call('POST', '/logout')
    side.line(0, `200 after ${since(start)}`)
    await slow
    const { user } = await side.call('GET', '/user')
    side.tell(user === null, user ?? 'Nobody', user === null ? 'is logged in' : 'is logged in again')
  },

  /** fetch follows the redirect as a browser follows that of a form. */
  async redirect(side) {
    let right = 0
    for (const [index, square] of side.squares.entries()) {
      const value = `${Date.now()}-${index}`
      const { saved } = await side.call('POST', `/save/${value}`)
      square.className = saved === value ? 'right' : 'wrong'
      if (saved === value) right++
    }
    side.tellCount(right, 'pages up to date')
  },

  /** While Redis is frozen nobody can know who asks. The question is how long it takes to say so. */
  async frozen(side, frozen) {
    await side.call('POST', '/login')
    const { ms } = await frozen()
    const start = performance.now()
    const { refused } = await side.ask('GET', '/user')
    const took = performance.now() - start
    // What came so late is the answer of a Redis that works again.
    const isInTime = took < ms / 2
    side.line(0, isInTime ? `${refused}: try again` : 'no answer')
    await delay(ms - took + 500)
    const { user } = await side.call('GET', '/user')
    side.line(1, user === null ? 'nobody is logged in' : `${user} is logged in`)
    side.tell(isInTime && user !== null, seconds(took), isInTime ? 'to an answer' : 'of waiting')
  },
}

/** One of the two servers, and its half of a trial. */
class Side {
  constructor(element) {
    this.path = element.dataset.side
    this.squares = [...element.querySelectorAll('.squares i')]
    this.lines = [...element.querySelectorAll('dd')]
    this.verdict = element.querySelector('.verdict')
    this.name = element.querySelector('h4').textContent
  }

  clear() {
    for (const square of this.squares) square.className = ''
    for (const line of this.lines) line.textContent = '–'
    this.verdict.className = 'verdict'
    this.#words('–', '')
  }

  line(index, text) {
    this.lines[index].textContent = text
  }

  tellCount(right, words) {
    const all = this.squares.length
    this.tell(right === all, `${right} of ${all}`, words)
  }

  /** What came of it. The mark says what the colour says. */
  tell(isRight, figure, words) {
    this.verdict.classList.add(isRight ? 'right' : 'wrong')
    this.#words(`${isRight ? '✓' : '✗'} ${figure}`, words)
    this.sentence = `${this.name}: ${figure} ${words}.`
  }

  #words(figure, words) {
    this.verdict.querySelector('b').textContent = figure
    this.verdict.querySelector('span').textContent = words
  }

  /** What the server answers; `refused` is the status of an error. */
  async ask(method, path) {
    const response = await fetch(this.path + path, { method })
    return response.json()
  }

  async call(method, path) {
    const answer = await this.ask(method, path)
    if (answer.refused) throw new Error(`${this.name} answered ${answer.refused}.`)
    return answer
  }
}

for (const article of document.querySelectorAll('[data-trial]')) {
  const state = article.querySelector('.state')
  const button = article.querySelector('button')
  // It says why it cannot be tried here.
  if (state.textContent !== '') continue
  button.disabled = false
  button.addEventListener('click', () => {
    // One at a time: they would slow each other down. A button that is disabled would lose the focus.
    if (button.ariaDisabled !== 'true') void run(article.dataset.trial, article, state)
  })
}

async function run(name, article, state) {
  const sides = [...article.querySelectorAll('.side')].map((element) => new Side(element))
  for (const side of sides) side.clear()
  block(true)
  state.textContent = 'Running …'
  const freeze = once(sides.length, () => fetch('/freeze', { method: 'POST' }).then((answer) => answer.json()))
  try {
    await Promise.all(sides.map((side) => trials[name](side, freeze)))
    state.textContent = 'Done.'
    // For screen readers, which do not see the halves side by side.
    article.querySelector('[role=status]').textContent = sides.map((side) => side.sentence).join(' ')
  } catch (error) {
    state.textContent = error.message
  } finally {
    block(false)
  }
}

function block(isRunning) {
  for (const button of document.querySelectorAll('[data-trial] button')) button.ariaDisabled = String(isRunning)
}

/** Does it once, when all have asked for it. */
function once(count, action) {
  let waiting = count
  let begin
  const all = new Promise((resolve) => {
    begin = resolve
  }).then(action)
  return () => {
    waiting--
    if (waiting === 0) begin()
    return all
  }
}

function since(start) {
  return `${Math.round(performance.now() - start)} ms`
}

function seconds(ms) {
  return `${(ms / 1_000).toFixed(1)} s`
}

function delay(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

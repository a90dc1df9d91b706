// Sends the fifty requests and tells what arrived.
const button = document.querySelector('#race')
const result = document.querySelector('#race-result')

button.hidden = false
button.addEventListener('click', () => void run())

async function run() {
  button.disabled = true
  result.textContent = 'Running …'
  try {
    const { racers } = await call('POST', '/race')
    // A browser opens about six connections to one HTTP/1.1 server, so as many requests run side by side.
    await Promise.all(Array.from({ length: racers }, (_, racer) => call('POST', `/race/${racer}`)))
    const { counter, fields } = await call('GET', '/race')
    result.textContent = `Counter: ${counter} of ${racers}. Fields: ${fields} of ${racers}.`
  } catch (error) {
    result.textContent = error.message
  } finally {
    button.disabled = false
  }
}

async function call(method, path) {
  const response = await fetch(path, { method })
  if (!response.ok) throw new Error(`The server answered ${response.status}.`)
  return response.json()
}

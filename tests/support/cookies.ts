// Cookies as the library would sign them, for claims that it never made.
import { sign } from 'cookie-signature'
import { SECRET } from './http.js'

/** A `Cookie` header with a well-signed session ID and token. */
export function cookieOf(id: string, token: string, secret = SECRET): string {
  return `sid=${sign(`sid=${id}.${token}`, secret).slice('sid='.length)}`
}

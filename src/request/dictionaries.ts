// What makes it cheap, up to Node 22, to put something on the request and the response of Express.
import { ServerResponse } from 'node:http'
import { Http2ServerResponse } from 'node:http2'
import type { HttpResponse } from './http-response.js'

const V8_MAJOR = Number.parseInt(process.versions.v8, 10)

/**
 * Express gives every request and response another prototype. Up to V8 12 (Node 22) such an object gets a hidden class of
 * its own, with a copy of all descriptors, for each property that anybody adds: 3 us, and 1 KB that lives until the next
 * full collection. Adding to an object that V8 keeps as a dictionary costs nothing of that. Changing an attribute of any
 * property makes it one; changing it back leaves no trace.
 */
export function keepInDictionaries(response: HttpResponse): void {
  if (V8_MAJOR > 12 || isPlain(response)) return
  keepInDictionary(response, 'req')
  keepInDictionary(response.req, 'url')
}

function keepInDictionary(object: object, property: string): void {
  if (!Object.prototype.propertyIsEnumerable.call(object, property)) return
  if (Reflect.defineProperty(object, property, { enumerable: false })) {
    Reflect.defineProperty(object, property, { enumerable: true })
  }
}

/** Whether the response is Node's own, not one that a framework has given another prototype. */
function isPlain(res: HttpResponse): boolean {
  const prototype: unknown = Object.getPrototypeOf(res)
  return prototype === ServerResponse.prototype || prototype === Http2ServerResponse.prototype
}

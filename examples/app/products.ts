// What the shop sells. A cart holds names and numbers; what they cost stands here and nowhere else.

export interface Product {
  name: string
  /** In cents: sums of whole numbers are exact. */
  price: number
  /** A file of public/. */
  picture: string
}

export interface CartItem {
  product: string
  quantity: number
}

export const PRODUCTS: readonly Product[] = [
  { name: 'Tea', price: 480, picture: '/tea.svg' },
  { name: 'Biscuits', price: 320, picture: '/biscuits.svg' },
  { name: 'Honey', price: 750, picture: '/honey.svg' },
  { name: 'Jam', price: 540, picture: '/jam.svg' },
]

export function findProduct(name: string): Product | undefined {
  return PRODUCTS.find((product) => product.name === name)
}

export function totalOf(cart: readonly CartItem[]): number {
  return cart.reduce((sum, { product, quantity }) => sum + quantity * (findProduct(product)?.price ?? 0), 0)
}

/** Such as "€4.80". */
export function price(cents: number): string {
  return `€${(cents / 100).toFixed(2)}`
}

/**
 * What the page says, in the reader's language: texts from the server's catalogue, amounts and times by the browser's
 * own knowledge of languages.
 */

const { texts, currency, leastAmount, greatestAmount } = document.body.dataset;
const TEXTS = JSON.parse(texts);

export const LANGUAGE = document.documentElement.lang;
export const LEAST_AMOUNT = leastAmount;
export const GREATEST_AMOUNT = greatestAmount;

// Of two readers of English one may write 31/12 and the other 12/31: the browser knows which, where it speaks the page's.
const LOCALE = navigator.languages.find((name) => name.split('-')[0] === LANGUAGE) ?? LANGUAGE;

/** A text by its name, with its values filled in. @param {string} name @param {Record<string, unknown>} [values] */
export function say(name, values = {}) {
  return (TEXTS[name] ?? name).replace(/%\((\w+)\)s/g, (_, value) => String(values[value]));
}

/** Whether there is a text of that name. @param {string} name */
export function knows(name) {
  return name in TEXTS;
}

/** An amount in major units. @param {number|string} amount @param {string} [of] its currency, ISO 4217 */
export function money(amount, of = currency) {
  return new Intl.NumberFormat(LOCALE, { style: 'currency', currency: of }).format(Number(amount));
}

/** A rate such as 0.12. @param {number} rate */
export function percent(rate) {
  return new Intl.NumberFormat(LOCALE, { style: 'percent', maximumFractionDigits: 2 }).format(rate);
}

/** A moment, as ISO 8601. @param {string} moment */
export function when(moment) {
  return new Intl.DateTimeFormat(LOCALE, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(moment));
}

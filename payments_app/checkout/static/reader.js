/**
 * Texts, amounts and times in the reader's language: texts come from the server's catalogue, the formats of amounts and
 * times from the browser.
 */

const { texts, currency, leastAmount, greatestAmount } = document.body.dataset;
const TEXTS = JSON.parse(texts);

export const LANGUAGE = document.documentElement.lang;
export const LEAST_AMOUNT = leastAmount;
export const GREATEST_AMOUNT = greatestAmount;

// English readers write 31/12 or 12/31: take the browser's own variant, if the page is in one of its languages.
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

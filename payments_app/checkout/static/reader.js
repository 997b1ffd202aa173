/**
 * Texts, amounts and times in the reader's language: texts come from the server's catalogue, the formats of amounts and
 * times from the browser, and the time zone from the clinic.
 */

const { texts, currency, leastAmount, greatestAmount, timeZone } = document.body.dataset;
const TEXTS = JSON.parse(texts);

export const LANGUAGE = document.documentElement.lang;
export const LEAST_AMOUNT = leastAmount;
export const GREATEST_AMOUNT = greatestAmount;

// English readers write 31/12 or 12/31: take the browser's own variant, if the page is in one of its languages.
const LOCALE = navigator.languages.find((name) => name.split('-')[0] === LANGUAGE) ?? LANGUAGE;

/**
 * A text by its name, with its values filled in.
 * @param {string} name @param {Record<string, unknown>} [values] @param {string} [other] the name of the text if there
 *   is none of the first name
 */
export function say(name, values = {}, other = '') {
  return (TEXTS[name] ?? TEXTS[other] ?? name).replace(/%\((\w+)\)s/g, (_, value) => String(values[value]));
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

/** A moment with its date. @param {string} moment ISO 8601 */
export function when(moment) {
  return inClinicsZone(moment, { year: 'numeric', month: 'short', day: 'numeric' });
}

/** A moment to be there at, or to be done by: with its day of the week. @param {string} moment ISO 8601 */
export function day(moment) {
  const isThisYear = new Date(moment).getFullYear() === new Date().getFullYear();
  const year = isThisYear ? {} : { year: 'numeric' };
  return inClinicsZone(moment, { ...year, weekday: 'short', month: 'short', day: 'numeric' });
}

/** The time of day, by the clinic's clock. @param {string} moment ISO 8601 */
export function time(moment) {
  return inClinicsZone(moment, {});
}

/** By the clinic's clock, whose zone is named for readers who live by another one. */
function inClinicsZone(moment, date) {
  const shown = { ...date, hour: 'numeric', minute: '2-digit' };
  const format = (more) => {
    const text = new Intl.DateTimeFormat(LOCALE, { ...shown, ...more }).format(new Date(moment));
    return text.replace(/\s(?=[AP]M\b)/i, '\u00a0'); // 9:30 and AM stay together
  };
  const clinics = format({ timeZone });
  return clinics === format({}) ? clinics : format({ timeZone, timeZoneName: 'short' });
}

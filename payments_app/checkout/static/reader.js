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

/** A day without a time. @param {string} moment ISO 8601 */
export function date(moment) {
  return new Intl.DateTimeFormat(LOCALE, { timeZone, month: 'short', day: 'numeric' }).format(new Date(moment));
}

/** Whether a moment is of today, by the clinic's clock. @param {string} moment ISO 8601 */
export function isToday(moment) {
  return today(new Date(moment)) === today();
}

/** A day of the clinic's calendar as 2026-03-14. */
export function today(at = new Date()) {
  return new Intl.DateTimeFormat('en-CA', { timeZone, dateStyle: 'short' }).format(at);
}

/** An amount for a field to type in, in the reader's own format: 1,500.50 or 1.500,50. @param {number} amount */
export function typed(amount) {
  return new Intl.NumberFormat(LOCALE, { minimumFractionDigits: 2 }).format(amount);
}

/**
 * What was typed as an amount, with or without separators of thousands; null if it is none. One that is only right in
 * another language is refused: 1.500 is one and a half here, and fifteen hundred there.
 * @param {string} text
 */
export function parsedAmount(text) {
  const parts = new Intl.NumberFormat(LOCALE).formatToParts(1_234_567.8);
  const sign = (type) => (parts.find((part) => part.type === type)?.value ?? '').replace(/[.\s\u00a0\u202f]/, (own) => (own === '.' ? '\\.' : '\\s'));
  const [group, decimal] = [sign('group') || ',', sign('decimal')];
  const whole = `(?:\\d+|\\d{1,3}(?:${group}\\d{2,3})*${group}\\d{3})`;
  const amount = text.trim().replace(/^\p{Sc}\s*/u, '');
  if (!new RegExp(`^${whole}(?:${decimal}\\d{1,2})?$`).test(amount)) return null;
  return Number(amount.replace(new RegExp(group, 'g'), '').replace(new RegExp(decimal), '.'));
}

/** The first moment of a day of the clinic's calendar, ISO 8601 in UTC. @param {string} day as 2026-03-14 */
export function midnight(day, daysLater = 0) {
  const wanted = Date.parse(`${day}T00:00:00Z`) + daysLater * 86_400_000;
  let moment = wanted;
  // Twice: the first guess may lie on the other side of a change of the clocks.
  for (let round = 0; round < 2; round += 1) moment -= wallClock(moment) - wanted;
  return new Date(moment).toISOString();
}

/** What the clinic's clock shows, as if it were UTC. @param {number} moment milliseconds */
function wallClock(moment) {
  const shown = { timeZone, hourCycle: 'h23', dateStyle: 'short', timeStyle: 'medium' };
  return Date.parse(`${new Intl.DateTimeFormat('sv-SE', shown).format(moment).replace(' ', 'T')}Z`);
}

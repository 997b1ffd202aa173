/** The form to sign in (_sign_in.html), which two pages have. */

import { say } from './reader.js';

/** @param {import('./session.js').Session} session @param {() => Promise<void>} enter called once signed in */
export function onSignIn(session, enter) {
  document.getElementById('sign-in-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const button = form.querySelector('button');
    const { email, password } = Object.fromEntries(new FormData(form));
    const progress = document.getElementById('sign-in-progress');
    button.disabled = true;
    progress.textContent = say('signing_in');
    await session.attempt(
      async () => {
        await session.client.signIn(email, password, session.call);
        form.reset();
        await enter();
      },
      { progress, problem: document.getElementById('sign-in-problem') },
    );
    button.disabled = false;
  });
}

/** Show the form in place of what pages have said before. @param {string} reason why the reader is signed out, if any */
export function showSignIn(reason) {
  for (const text of document.querySelectorAll('.problem, .progress')) text.textContent = '';
  document.getElementById('sign-in').hidden = false;
  document.getElementById('sign-in-problem').textContent = reason;
}

/**
 * After a reload the user is still signed in.
 * @param {import('./session.js').Session} session @param {() => Promise<void>} enter @param {() => void} leave
 */
export async function comeBack(session, enter, leave) {
  const [progress, again] = ['page-progress', 'again'].map((id) => document.getElementById(id));
  again.hidden = true;
  if (!session.client.signedIn) {
    leave();
    return;
  }
  progress.textContent = say('loading');
  await session.attempt(enter, { progress, problem: document.getElementById('page-problem') });
  again.hidden = Boolean(session.me) || !session.client.signedIn;
}

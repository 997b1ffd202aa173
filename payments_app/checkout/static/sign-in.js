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

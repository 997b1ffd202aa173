/** Fields that say themselves what is wrong with them. */

let last = 0;

/** Connect labels and errors with the fields below an element; the templates have no ids, because they are copied. */
export function connect(root) {
  for (const field of root.querySelectorAll('.field')) {
    const [label, input, error] = field.children;
    last += 1;
    input.id = `field-${last}`;
    label.htmlFor = input.id;
    error.id = `${input.id}-error`;
    input.setAttribute('aria-describedby', error.id);
    input.addEventListener('input', () => accept(input));
  }
}

/** Say at the field what is wrong with it, and go there. */
export function refuse(input, text) {
  errorOf(input).textContent = text;
  input.setAttribute('aria-invalid', 'true');
  if (!input.form.querySelector('[aria-invalid]:focus')) input.focus();
}

/** Nothing is wrong any more with the fields of a form. */
export function acceptAll(form) {
  for (const input of form.elements) if (input.name) accept(input);
}

/** Say the service's errors at the fields that they are about. Whether all of them have been said. */
export function refuseAll(form, error) {
  const errors = Object.entries(error.problem?.errors ?? {});
  for (const [name, texts] of errors) if (form.elements[name]) refuse(form.elements[name], texts.join(' '));
  return errors.length > 0 && errors.every(([name]) => form.elements[name]);
}

function accept(input) {
  errorOf(input).textContent = '';
  input.removeAttribute('aria-invalid');
}

function errorOf(input) {
  return document.getElementById(input.getAttribute('aria-describedby'));
}

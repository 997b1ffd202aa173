// Shows the OpenAPI document by Swagger UI, and gives it the token of whoever logs in.

const form = document.getElementById("login");
const email = document.getElementById("email");
const password = document.getElementById("password");
const demoUser = document.getElementById("demo-user");
const button = form.querySelector("button");
const said = document.getElementById("said");
const shown = document.getElementById("swagger-ui");

// Swagger UI is dark where the root has this class, and leaves it to its host to say when.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

const ui = SwaggerUIBundle({
  // Absolute: Swagger UI resolves relative servers against it, and leaves out links that it cannot resolve.
  url: new URL(shown.dataset.document, document.baseURI).href,
  domNode: shown,
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0, // forty schemas, each shown where it is used as well
  validatorUrl: null, // else it would send the document's address to a stranger
  onComplete: () => { button.disabled = false; }, // only now does it know the scheme that a token is for
});

if (demoUser) {
  demoUser.addEventListener("change", () => { email.value = demoUser.value; });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  said.textContent = "Logging in …";
  said.textContent = await logIn(email.value, password.value);
  button.disabled = false;
});

/** Log in, and authorize Swagger UI; what came of it, in words. */
async function logIn(who, secret) {
  try {
    const response = await fetch("/api/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ email: who, password: secret }),
    });
    const answer = await response.json();
    if (!response.ok) {
      return `Not logged in: ${answer.detail}`;
    }
    ui.preauthorizeApiKey("bearer", answer.token);
    return `Logged in as ${who} for ${Math.round(answer.expires_in / 60)} minutes: every request carries the token.`;
  } catch {
    return "Not logged in: the service could not be reached.";
  }
}

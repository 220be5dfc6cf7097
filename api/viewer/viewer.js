// Shows the OpenAPI document of this service, and sends requests to it. It asks no other host.

import { Schemas, element, inline, json, paragraphs } from "./schema.js";

const BASE = new URL(".", document.baseURI);
const METHODS = ["get", "post", "patch", "delete"];
// The token stays in the memory of this page: a reload forgets it.
let token = "";

async function start() {
  const status = document.getElementById("status");
  let description;
  try {
    const answer = await fetch(new URL("openapi.json", BASE));
    if (!answer.ok) throw new Error(`the answer is ${answer.status}`);
    description = await answer.json();
  } catch (error) {
    status.textContent = `openapi.json cannot be loaded: ${error.message}. Reload the page to try again.`;
    return;
  }
  show(description);
  status.remove();
  open(location.hash);
  addEventListener("hashchange", () => open(location.hash));
}

function show(description) {
  const schemas = new Schemas(description);
  const top = document.getElementById("top");
  top.querySelector("h1").textContent = description.info.title;
  top.querySelector(".meta").prepend(`Version ${description.info.version} · `);
  top.append(...paragraphs(description.info.description), tokenField());
  const groups = grouped(description);
  const about = new Map((description.tags || []).map((tag) => [tag.name, paragraphs(tag.description)]));
  document.getElementById("nav").append(navigation(groups));
  for (const [tag, operations] of groups) {
    document
      .getElementById("main")
      .append(element("section", {}, element("h2", {}, tag), about.get(tag), operations.map((one) => operation(one, schemas))));
  }
}

// Operations and events by their tag.
function grouped(description) {
  const groups = new Map((description.tags || []).map((tag) => [tag.name, []]));
  const add = (tag, one) => groups.set(tag, [...(groups.get(tag) || []), one]);
  for (const [path, item] of Object.entries(description.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      add((item[method].tags || ["other"])[0], { id: item[method].operationId, method, path, ...item[method] });
    }
  }
  for (const [name, item] of Object.entries(description.webhooks || {})) {
    add((item.post.tags || ["events"])[0], { id: `event-${name}`, method: "event", path: name, ...item.post });
  }
  return groups;
}

function tokenField() {
  const input = element("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false" });
  input.addEventListener("input", () => { token = input.value.trim(); });
  return element(
    "div",
    { class: "token" },
    element("label", { class: "field" }, "Bearer token, for requests from this page. A reload forgets it.", input),
  );
}

function navigation(groups) {
  const filter = element("input", { id: "filter", type: "search", placeholder: "Filter", "aria-label": "Filter operations" });
  const lists = [...groups].map(([tag, operations]) =>
    element(
      "div",
      { class: "group" },
      element("h2", {}, tag),
      element("ul", {}, operations.map((one) =>
        element("li", { "data-words": `${one.method} ${one.path} ${one.summary}`.toLowerCase() },
          element("a", { href: `#${one.id}` }, element("span", { class: `method ${one.method}` }, one.method),
            element("span", {}, inline(one.summary || "")))),
      )),
    ),
  );
  filter.addEventListener("input", () => {
    for (const list of lists) {
      for (const item of list.querySelectorAll("li")) item.hidden = !item.dataset.words.includes(filter.value.toLowerCase());
      list.hidden = !list.querySelector("li:not([hidden])");
    }
  });
  const isWide = matchMedia("(min-width: 60.01rem)");
  const folded = element("details", { open: isWide.matches }, element("summary", {}, "All operations"), filter, lists);
  isWide.addEventListener("change", () => { folded.open = isWide.matches; });
  return folded;
}

// The inside of an operation is made when it is opened for the first time.
function operation(one, schemas) {
  const details = element(
    "details",
    { class: "operation", id: one.id },
    element(
      "summary",
      {},
      element("span", { class: `method ${one.method}` }, one.method),
      element("span", { class: "path" }, one.path),
      element("span", { class: "summary" }, inline(one.summary || "")),
    ),
  );
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(inside(one, schemas));
  });
  return details;
}

function inside(one, schemas) {
  const body = one.requestBody && one.requestBody.content["application/json"];
  const examples = body ? examplesOf(body, schemas) : [];
  return element(
    "div",
    { class: "inside" },
    paragraphs(one.description),
    one.parameters ? [element("h3", {}, "Parameters"), parameters(one.parameters, schemas)] : null,
    body ? [element("h3", {}, "Body"), examples.map(json), schemas.members(body.schema)] : null,
    one.responses ? [element("h3", {}, "Responses"), responses(one.responses, schemas)] : null,
    one.method === "event" ? null : [element("h3", {}, "Send a request"), sender(one, examples[0])],
  );
}

function examplesOf(content, schemas) {
  if (content.examples) return Object.values(content.examples).map((example) => example.value);
  if (content.example !== undefined) return [content.example];
  const schema = schemas.resolve(content.schema);
  return schema.examples || (schema.oneOf || []).flatMap((choice) => schemas.resolve(choice).examples || []);
}

function parameters(given, schemas) {
  return element(
    "ul",
    { class: "members" },
    given.map((parameter) =>
      element(
        "li",
        {},
        element("code", {}, parameter.name),
        " ",
        element("span", { class: "type" }, `${parameter.in}, ${schemas.words(parameter.schema)}`),
        parameter.required ? element("span", { class: "required" }, " required") : null,
        parameter.description ? element("p", { class: "about" }, inline(parameter.description)) : null,
      ),
    ),
  );
}

function responses(given, schemas) {
  return Object.entries(given).map(([status, response]) => {
    const [type, content] = Object.entries(response.content || {})[0] || [];
    const isError = status >= "400";
    const codes = isError && content && content.examples ? Object.keys(content.examples) : [];
    const shown = content ? examplesOf(content, schemas) : [];
    return element(
      "details",
      { class: "response" },
      element("summary", {}, element("span", { class: isError ? "status error" : "status" }, status), " ",
        inline(response.description), " ", codes.map((code) => [element("code", { class: "codes" }, code), " "]).flat()),
      type ? element("p", { class: "type" }, type) : null,
      shown.map(json),
      content && content.schema && !isError ? schemas.members(content.schema) : null,
      headers(response, schemas),
    );
  });
}

function headers(response, schemas) {
  const names = Object.keys(response.headers || {});
  if (!names.length) return null;
  return [
    element("h4", {}, "Headers"),
    element("ul", { class: "members" }, names.map((name) =>
      element("li", {}, element("code", {}, name),
        element("p", { class: "about" }, inline(schemas.resolve(response.headers[name]).description || ""))))),
  ];
}

function sender(one, example) {
  const path = element("input", { value: one.path, spellcheck: "false" });
  const body = one.requestBody ? element("textarea", { spellcheck: "false" }) : null;
  if (body) body.value = example === undefined ? "{}" : JSON.stringify(example, null, 2);
  const answer = element("div", { role: "status" });
  const button = element("button", { type: "button" }, "Send");
  button.addEventListener("click", async () => {
    button.disabled = true;
    answer.replaceChildren(...(await sent(one.method, path.value, body && body.value)));
    button.disabled = false;
  });
  return element("div", {}, element("label", { class: "field" }, "Path and query", path),
    body ? element("label", { class: "field" }, "Body", body) : null, button, answer);
}

async function sent(method, path, body) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== null) headers["Content-Type"] = "application/json";
  try {
    const url = new URL(path.replace(/^\/+/, ""), BASE);
    if (url.origin !== BASE.origin) throw new Error("the path leads to another host");
    const answer = await fetch(url, { method: method.toUpperCase(), headers, body: body ?? undefined });
    const text = await answer.text();
    const isJson = (answer.headers.get("Content-Type") || "").includes("json");
    return [
      element("h4", {}, `${answer.status} ${answer.statusText}`),
      isJson ? json(JSON.parse(text)) : element("pre", { tabindex: "0" }, element("code", {}, text)),
    ];
  } catch (error) {
    return [element("p", {}, `The request was not answered: ${error.message}.`)];
  }
}

function open(hash) {
  const found = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
  if (found instanceof HTMLDetailsElement) {
    found.open = true;
    found.scrollIntoView();
  }
}

start();

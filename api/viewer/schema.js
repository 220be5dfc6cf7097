// Shows JSON Schemas and texts. All text goes into text nodes: nothing of the document is read as HTML.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null));
  return made;
}

// Text with `code` in it.
export function inline(text) {
  return text.split(/(`[^`]+`)/).map((part) =>
    part.startsWith("`") && part.length > 2 ? element("code", {}, part.slice(1, -1)) : part,
  );
}

export function paragraphs(text) {
  return (text || "").split(/\n\s*\n/).filter(Boolean).map((part) => element("p", {}, inline(part)));
}

export function json(value) {
  return element("pre", { tabindex: "0" }, element("code", {}, JSON.stringify(value, null, 2)));
}

// A number above 2^53 is not exact here, and the format of its type says the same.
function range(least, most, unit) {
  const isExact = (bound) => bound !== undefined && Number.isSafeInteger(Math.trunc(bound));
  const isKnown = isExact(most);
  if (isExact(least) && isKnown) return (least === most ? `${most} ${unit}` : `${least} to ${most} ${unit}`).trim();
  if (isKnown) return `at most ${most} ${unit}`.trim();
  return isExact(least) ? `at least ${least} ${unit}`.trim() : "";
}

export class Schemas {
  constructor(description) {
    this.description = description;
  }

  resolve(node) {
    let found = node;
    while (found && found.$ref) {
      const target = found.$ref.slice(2).split("/").reduce((inner, part) => inner[part], this.description);
      const { $ref, ...beside } = found;
      found = { ...target, ...beside };
    }
    return found || {};
  }

  // What may be there, in a few words.
  words(node) {
    const schema = this.resolve(node);
    const choices = schema.anyOf || schema.oneOf;
    if (choices) return choices.map((choice) => this.words(choice)).join(" or ");
    if (schema.const !== undefined) return JSON.stringify(schema.const);
    if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
    if (schema.type === "array") return `list of ${this.words(schema.items || {})}`;
    return [schema.type || "any value", schema.format && `(${schema.format})`, ...this.limits(schema)]
      .filter(Boolean)
      .join(" ");
  }

  limits(schema) {
    const found = [
      range(schema.minLength, schema.maxLength, "characters"),
      range(schema.minimum, schema.maximum, ""),
      range(schema.minItems, schema.maxItems, "items"),
      range(schema.minProperties, schema.maxProperties, "members"),
    ].filter(Boolean);
    if (schema.pattern) found.push(`pattern ${schema.pattern}`);
    if (schema.default !== undefined && schema.default !== null) found.push(`default ${JSON.stringify(schema.default)}`);
    return found.length ? [`· ${found.join(", ")}`] : [];
  }

  // The objects that are inside a schema, each with the name by which it is chosen.
  objects(node) {
    const schema = this.resolve(node);
    if (schema.type === "array") return this.objects(schema.items || {});
    const choices = schema.anyOf || schema.oneOf;
    if (choices) return choices.flatMap((choice) => this.objects(choice));
    return schema.properties ? [schema] : [];
  }

  members(node, depth = 0) {
    const objects = this.objects(node);
    if (!objects.length) return null;
    return objects.map((schema) => [
      objects.length > 1 ? element("h4", {}, schema.title || "One of") : null,
      element(
        "ul",
        { class: "members" },
        Object.entries(schema.properties).map(([name, member]) =>
          this.member(name, member, (schema.required || []).includes(name), depth),
        ),
      ),
    ]);
  }

  member(name, node, isRequired, depth) {
    const schema = this.resolve(node);
    return element(
      "li",
      {},
      element("code", {}, name),
      " ",
      element("span", { class: "type" }, this.words(node)),
      isRequired ? element("span", { class: "required" }, " required") : null,
      schema.description ? element("p", { class: "about" }, inline(schema.description)) : null,
      depth < 3 ? this.members(node, depth + 1) : null,
    );
  }
}

/** The little XML that S3 answers and asks for: elements without attributes that matter, read by name. */

const NAMED: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

/** Text of the first element of that name, or undefined. */
export function textOf(xml: string, name: string): string | undefined {
  const inner = innerOf(xml, name);
  return inner === undefined ? undefined : unescapeXml(inner);
}

/** Inner XML of every element of that name, in order. Elements of one name do not nest in what S3 answers. */
export function* elementsOf(xml: string, name: string): Generator<string> {
  const open = `<${name}>`;
  const close = `</${name}>`;
  for (let from = xml.indexOf(open); from >= 0; from = xml.indexOf(open, from)) {
    const end = xml.indexOf(close, from);
    if (end < 0) return;
    yield xml.slice(from + open.length, end);
    from = end + close.length;
  }
}

export function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

function innerOf(xml: string, name: string): string | undefined {
  for (const inner of elementsOf(xml, name)) return inner;
  return undefined;
}

function unescapeXml(text: string): string {
  if (!text.includes('&')) return text;
  return text.replace(/&(?:#x([0-9a-fA-F]+)|#(\d+)|(\w+));/g, (whole, hex?: string, decimal?: string, name?: string) => {
    if (name !== undefined) return NAMED[name] ?? whole;
    return String.fromCodePoint(hex === undefined ? Number(decimal) : Number.parseInt(hex, 16));
  });
}

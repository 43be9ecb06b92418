// The very request in other languages. `body` makes it, see request_body.js; it is called with a translation of JSON's
// values where the language writes them otherwise.

const PYTHON = { true: "True", false: "False", null: "None" };

/** Each {file, write(url, body)}, by the name of its tab. */
export const SNIPPETS = {
  curl: { file: "request.sh", write: (url, body) => `curl -H 'Content-Type: application/json' -d @- '${url}' <<'END'\n${body()}\nEND\n` },
  python: {
    file: "request.py",
    write: (url, body) => `import json
import urllib.request

url = ${JSON.stringify(url)}
request = ${body(toPython)}

with urllib.request.urlopen(url, json.dumps(request).encode()) as response:
    print(json.load(response)["outputs"])
`,
  },
  node: {
    file: "request.mjs",
    write: (url, body) => {
      let exact = true;  // a Number holds 15 digits of any integer
      const request = body((json) => {
        exact &&= !/^[^"{]*\d{16}/.test(json);
        return json;
      });
      return `const url = ${JSON.stringify(url)};
const body = ${exact ? `JSON.stringify(${request})` : JSON.stringify(request)};

const response = await fetch(url, { method: "POST", body });
console.log(JSON.stringify(await response.json()));
`;
    },
  },
};

/** For reading: of long base64 only the beginning. */
export function shortened(text) {
  return text.replace(/[A-Za-z0-9+/=]{200,}/g, (base64) => `${base64.slice(0, 60)}… (${base64.length} characters)`);
}

function toPython(json) {
  if (/^["{]/.test(json)) return json;  // a text or bytes, however long
  return json.replace(/"(?:[^"\\]|\\.)*"|true|false|null/g, (token) => PYTHON[token] ?? token);
}

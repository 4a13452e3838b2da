// Uploads with tus-js-client: stops in the middle, goes on with a new client, and prints where it stopped, where it went
// on, and the SHA-256 of what it sent. Arguments: the client's package, the endpoint, and perhaps a file: then it is sent
// in one request, which breaks at half, and the client goes on when it reads a line. USHER_TOKEN is the access token.
import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { createRequire } from "node:module";
import { once } from "node:events";

const [client, endpoint, path] = process.argv.slice(2);
const tus = createRequire(import.meta.url)(client);

function small() {
  const bytes = Buffer.alloc(24_000_000);
  Buffer.from("000000206674797069736f6d", "hex").copy(bytes);
  for (let at = 12; at < bytes.length; at += 1) bytes[at] = (at * 31 + (at >> 8)) & 255;
  return bytes;
}

const bytes = path ? undefined : small();
const length = path ? statSync(path).size : bytes.length;
const options = {
  endpoint,
  headers: { Authorization: `Bearer ${process.env.USHER_TOKEN}` },
  metadata: { filename: "film.mp4", filetype: "video/mp4" },
  chunkSize: path ? Infinity : 4_000_000,
  retryDelays: [100, 200, 500, 1000, 2000, 4000],
};

function upload(more) {
  return new Promise((resolve, reject) => {
    const source = path ? createReadStream(path) : bytes;
    const one = new tus.Upload(source, { ...options, ...more(() => one, resolve), onError: reject });
    one.start();
  });
}

let cut = 0;
const url = await upload((one, resolve) => ({
  // A whole file breaks in the middle of its request, the small one between two.
  [path ? "onProgress" : "onChunkComplete"]: (...numbers) => {
    const sent = path ? numbers[0] : numbers[1];
    if (cut || sent < length / 2) return;
    cut = sent;
    one().abort().then(() => resolve(one().url));
  },
}));
if (path) {
  console.log(`cut ${cut}`);
  await once(process.stdin, "data");
}
let first;
await upload((_, resolve) => ({
  uploadUrl: url,
  onProgress: (sent) => { first ??= sent; },
  onSuccess: () => resolve(),
}));
const hash = createHash("sha256");
for await (const piece of path ? createReadStream(path) : [bytes]) hash.update(piece);
console.log(cut, first, hash.digest("hex"));
process.exit(0);

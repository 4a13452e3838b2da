// Uploads with tus-js-client: stops in the middle, goes on with a new client, and prints where it stopped, where it went
// on, and the SHA-256 of what it sent. Arguments: the client's package, the endpoint. USHER_TOKEN is the access token.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";

const [client, endpoint] = process.argv.slice(2);
const tus = createRequire(import.meta.url)(client);
const bytes = Buffer.alloc(24_000_000);
Buffer.from("000000206674797069736f6d", "hex").copy(bytes);
for (let at = 12; at < bytes.length; at += 1) bytes[at] = (at * 31 + (at >> 8)) & 255;

const options = {
  endpoint,
  headers: { Authorization: `Bearer ${process.env.USHER_TOKEN}` },
  metadata: { filename: "film.mp4", filetype: "video/mp4" },
  chunkSize: 4_000_000,
  retryDelays: [100, 200, 500, 1000, 2000, 4000],
};

function upload(more) {
  return new Promise((resolve, reject) => {
    const one = new tus.Upload(bytes, { ...options, ...more(() => one, resolve), onError: reject });
    one.start();
  });
}

let cut = 0;
const url = await upload((one, resolve) => ({
  onChunkComplete: (_, accepted) => {
    if (accepted < bytes.length / 2) return;
    cut = accepted;
    one().abort().then(() => resolve(one().url));
  },
}));
let first;
await upload((_, resolve) => ({
  uploadUrl: url,
  onProgress: (sent) => { first ??= sent; },
  onSuccess: () => resolve(),
}));
console.log(cut, first, createHash("sha256").update(bytes).digest("hex"));

// Decodes the frames that it is given and encodes the messages that they should be, with AWS's own codec.
// Input: [{headers: [[name, type, text]], payload, frame}], the last two in base64. Output: the same from the other side.
import { readFileSync } from "node:fs";
import { EventStreamCodec, Int64 } from "@smithy/eventstream-codec";

const codec = new EventStreamCodec((bytes) => Buffer.from(bytes).toString("utf8"), (text) => Buffer.from(text, "utf8"));

const long = (text) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt(text));
  return new Int64(bytes);
};

const fromText = {
  boolean: (text) => text === "true",
  byte: Number,
  short: Number,
  integer: Number,
  long,
  binary: (text) => Buffer.from(text, "base64"),
  string: (text) => text,
  timestamp: (text) => new Date(Number(text)),
  uuid: (text) => text,
};

const toText = {
  boolean: String,
  byte: String,
  short: String,
  integer: String,
  long: (value) => Buffer.from(value.bytes).readBigInt64BE().toString(),
  binary: (value) => Buffer.from(value).toString("base64"),
  string: (value) => value,
  timestamp: (value) => String(value.getTime()),
  uuid: (value) => value,
};

function answer({ headers, payload, frame }) {
  const theirs = {};
  if (headers) {
    const message = { headers: {}, body: Buffer.from(payload, "base64") };
    for (const [name, type, text] of headers) message.headers[name] = { type, value: fromText[type](text) };
    theirs.frame = Buffer.from(codec.encode(message)).toString("base64");
  }
  try {
    const decoded = codec.decode(new Uint8Array(Buffer.from(frame, "base64")));
    theirs.headers = Object.entries(decoded.headers).map(([name, { type, value }]) => [name, type, toText[type](value)]);
    theirs.payload = Buffer.from(decoded.body).toString("base64");
  } catch (error) {
    theirs.error = String(error);
  }
  return theirs;
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(answer)));

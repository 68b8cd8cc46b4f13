// Makes the calls that it is given with AWS's SDK, as it is, and reports what it understood.
// Input: [{endpoint, command, input}]. Output per call: {status, requestId, answer, events, error}.
import { readFileSync } from "node:fs";
import * as bedrock from "@aws-sdk/client-bedrock-runtime";
import { NodeHttpHandler } from "@smithy/node-http-handler";

const clients = {};
const clientOf = (endpoint) =>
  (clients[endpoint] ??= new bedrock.BedrockRuntimeClient({
    endpoint,
    region: "us-east-1",
    credentials: { accessKeyId: "any", secretAccessKey: "thing" },
    maxAttempts: 1,
    requestHandler: new NodeHttpHandler(), // the endpoint speaks HTTP/1.1; the SDK's default here is HTTP/2
  }));

const text = (bytes) => new TextDecoder().decode(bytes);

async function call({ endpoint, command, input }) {
  const said = { events: [] };
  try {
    const { $metadata, stream, body, ...answer } = await clientOf(endpoint).send(new bedrock[command](input));
    said.status = $metadata.httpStatusCode;
    said.requestId = $metadata.requestId;
    said.answer = answer;
    if (command.includes("Stream")) {
      for await (const event of stream ?? body) {
        said.events.push(event.chunk ? JSON.parse(text(event.chunk.bytes)) : event);
      }
    } else if (body) {
      said.answer.body = JSON.parse(text(body));
    }
  } catch (error) {
    const { httpStatusCode, requestId } = error.$metadata ?? {};
    const { name, message, originalStatusCode } = error;
    said.error = { name, message, originalStatusCode, status: httpStatusCode, requestId };
  }
  return said;
}

const said = [];
for (const what of JSON.parse(readFileSync(0, "utf8"))) said.push(await call(what));
process.stdout.write(JSON.stringify(said));
process.exit(0);

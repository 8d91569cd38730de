// Calls the simulator with Genesys' own SDK for JavaScript (npm: purecloud-platform-client-v2), to
// check the simulator's routes and bodies with an independent client.
//
//   node check.mjs [DIRECTORY OF PACKAGES/]
//
// One origin:  BASE_URL
// By region:   REGION (mypurecloud.de), CA_FILE, PORT: login.REGION and api.REGION are on this
//              machine, on PORT, with TLS
// Both:        CLIENT_ID, CLIENT_SECRET, QUEUE_ID, EXTERNAL_SOURCE_ID, MESSAGE_ID (the first message
//              of an open session)
//
// Creates two contacts. Prints one line of JSON. On a mismatch, prints the reason on standard error
// and exits with code 1.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import https from "node:https";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] ?? import.meta.url);
const sdk = require("purecloud-platform-client-v2");

const setting = (name) => process.env[name] || assert.fail(`${name} is not set`);

/**
 * Connects to the simulator on this machine for every host name. The certificate must still be valid
 * for the name.
 */
class ToSimulator extends https.Agent {
  constructor(port, ca) {
    super({ ca });
    this.port = port;
  }
  createConnection(options, callback) {
    return super.createConnection({ ...options, host: "127.0.0.1", port: this.port }, callback);
  }
}

const client = sdk.ApiClient.instance;
client.config.live_reload_config = false;
client.setReturnExtendedResponses(true); // responses include their status
process.env.no_proxy = "*";
if (process.env.REGION) {
  client.setEnvironment(setting("REGION"));
  client.setProxyAgent(new ToSimulator(Number(setting("PORT")), readFileSync(setting("CA_FILE"))));
} else {
  const { protocol, hostname, port } = new URL(setting("BASE_URL"));
  client.setGateway({ protocol: protocol.slice(0, -1), host: hostname, port: port || undefined });
}

async function check() {
  await client.loginClientCredentialsGrant(setting("CLIENT_ID"), setting("CLIENT_SECRET"));
  const contacts = new sdk.ExternalContactsApi();
  const conversations = new sdk.ConversationsApi();
  const routing = new sdk.RoutingApi();
  const externalSource = { id: setting("EXTERNAL_SOURCE_ID") };

  // A created contact is found by its external ID, on every repetition.
  const named = { externalSource, value: `sdk-${randomUUID()}` };
  const made = await contacts.postExternalcontactsContacts({ firstName: "Ada", lastName: "Guest", externalIds: [named] });
  assert.equal(made.status, 200, "a contact is made with 200");
  const enrich = (value) =>
    contacts.postExternalcontactsContactsEnrich({
      matchingIdentifiers: [{ type: "ExternalId", value, externalSource }],
      action: "Upsert",
      contact: { firstName: "Ada", cellPhone: { display: "+31 20 555 0100" }, externalIds: [{ externalSource, value }] },
    });
  for (const time of ["first", "second"]) {
    const found = await enrich(named.value);
    assert.deepEqual([found.status, found.body.id], [200, made.body.id], `the ${time} enrich finds the contact that was made`);
  }
  assert.equal((await contacts.postExternalcontactsIdentifierlookupContacts({ type: "ExternalId", ...named })).body.id, made.body.id);

  // The first enrich creates a contact that does not exist yet; later ones only find it.
  const unknown = `sdk-${randomUUID()}`;
  const [inserted, again] = [await enrich(unknown), await enrich(unknown)];
  assert.deepEqual([inserted.status, again.status], [201, 200], "enrich makes a contact with 201, then finds it with 200");
  assert.equal(again.body.id, inserted.body.id, "both times the same contact");
  assert.notEqual(inserted.body.id, made.body.id);

  const queue = (await routing.getRoutingQueue(setting("QUEUE_ID"))).body;
  assert.equal(queue.id, setting("QUEUE_ID"));
  const missing = await routing.getRoutingQueue(randomUUID()).catch((refused) => refused);
  assert.deepEqual([missing.status, missing.body?.code], [404, "not.found"], "a queue that does not exist");

  const message = (await conversations.getConversationsMessageDetails(setting("MESSAGE_ID"))).body;
  assert.equal(message.id, setting("MESSAGE_ID"));
  assert.ok(message.conversationId, "the message belongs to a conversation");
  const conversation = (await conversations.getConversation(message.conversationId)).body;
  assert.equal(conversation.id, message.conversationId);
  const guest = conversation.participants.find(({ purpose }) => ["customer", "external"].includes(purpose));
  assert.ok(guest?.messages?.[0]?.id, "the guest has a communication");

  const version = require("purecloud-platform-client-v2/package.json").version;
  return {
    sdk: `purecloud-platform-client-v2 ${version}`,
    contactId: made.body.id,
    enrichedContactId: inserted.body.id,
    queue: queue.name,
    conversationId: message.conversationId,
    communicationId: guest.messages[0].id,
  };
}

try {
  console.log(JSON.stringify(await check()));
} catch (refused) {
  const { status, body, data = body } = refused.response ?? refused; // a failed token request has the form of an axios error, a failed call that of the SDK
  console.error(status ? `the platform refused: ${status} ${JSON.stringify(data)}` : (refused.error ?? refused).message);
  process.exitCode = 1;
}

// Holds a conversation over the guest WebSocket with an independent client (npm: ws), to check the
// simulator's WebSocket, history and message details.
//
//   node chat.mjs [DIRECTORY OF PACKAGES/]
//
// Settings: BASE_URL (the simulator, which serves REST, WebSocket and /_sim on one origin),
// CLIENT_ID, CLIENT_SECRET, DEPLOYMENT_ID, QUEUE_ID. ORIGIN, if the deployment allows only certain
// domains. TOKEN, to continue a session that guestlane opened (guestSession.token of its result).
// NODE_EXTRA_CA_CERTS, for a private certificate authority.
//
// Prints one line of JSON. On a mismatch, prints the reason on standard error and exits with code
// 1.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";

const { WebSocket } = createRequire(process.argv[2] ?? import.meta.url)("ws");

const setting = (name) => process.env[name] || assert.fail(`${name} is not set`);
const base = setting("BASE_URL").replace(/\/$/, "");
const origin = process.env.ORIGIN;
const taken = Boolean(process.env.TOKEN);
const token = process.env.TOKEN || randomUUID();
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

class Guest {
  frames = []; // received frames that no call has consumed yet
  wake = () => {};

  static async connect() {
    const guest = new Guest();
    guest.socket = new WebSocket(`${base.replace(/^http/, "ws")}/v1?deploymentId=${setting("DEPLOYMENT_ID")}`, { origin });
    guest.socket.on("message", (data) => {
      guest.frames.push(JSON.parse(data));
      guest.wake();
    });
    await new Promise((resolve, reject) => guest.socket.once("open", resolve).once("error", reject));
    return guest;
  }

  send(action, fields = {}) {
    const tracingId = randomUUID();
    this.socket.send(JSON.stringify({ action, token, tracingId, ...fields }));
    return tracingId;
  }

  /** Returns the body of the first frame for which `wanted` holds, within ten seconds. */
  async next(what, wanted) {
    for (const end = Date.now() + 10_000; Date.now() < end; ) {
      const refused = this.frames.find(({ code }) => code !== 200);
      assert.ok(!refused, `${what}: the platform refused: ${JSON.stringify(refused)}`);
      const at = this.frames.findIndex(wanted);
      if (at >= 0) return this.frames.splice(at, 1)[0].body;
      await Promise.race([new Promise((resolve) => (this.wake = resolve)), pause(200)]);
    }
    assert.fail(`${what} did not come; what came: ${JSON.stringify(this.frames)}`);
  }

  async configure() {
    this.send("configureSession", { deploymentId: setting("DEPLOYMENT_ID"), startNew: false });
    const session = await this.next("the session", (frame) => frame.class === "SessionResponse");
    assert.equal(session.connected, true, "the session is connected");
    return session;
  }

  /** Sends a message and waits for its echo, which is the platform's acknowledgement. */
  async say(text, customAttributes) {
    const channel = customAttributes && { metadata: { customAttributes } };
    await pause(600); // the platform accepts two messages per second
    const tracingId = this.send("onMessage", { message: { type: "Text", text, ...(channel && { channel }) } });
    const echo = await this.next(
      `the echo of «${text}»`,
      (frame) => frame.class === "StructuredMessage" && frame.tracingId === tracingId,
    );
    assert.deepEqual([echo.direction, echo.text], ["Inbound", text]);
    return echo;
  }

  async history() {
    this.send("getJwt");
    const { jwt } = await this.next("the JWT", (frame) => frame.class === "JwtResponse");
    const { entities } = await json(`${base}/api/v2/webmessaging/messages?pageNumber=1&pageSize=25`, {
      headers: { authorization: `bearer ${jwt}`, ...(origin && { origin }) },
    });
    return entities.filter(({ type }) => type === "Text");
  }
}

async function json(url, options) {
  const answer = await fetch(url, options);
  const text = await answer.text();
  if (!answer.ok) throw Object.assign(new Error(`${options?.method ?? "GET"} ${url}: ${answer.status} ${text}`), { status: answer.status });
  return text ? JSON.parse(text) : undefined;
}

/**
 * Returns the conversation of a message from the message's details, because the WebSocket does not
 * report it. The details can be 404 at first.
 */
async function conversationOf(messageId) {
  const basic = Buffer.from(`${setting("CLIENT_ID")}:${setting("CLIENT_SECRET")}`).toString("base64");
  const { access_token: bearer } = await json(`${base}/oauth/token`, {
    method: "POST",
    headers: { authorization: `Basic ${basic}`, "content-type": "application/x-www-form-urlencoded" },
    body: "grant_type=client_credentials",
  });
  for (let tries = 1; ; tries += 1) {
    try {
      const details = await json(`${base}/api/v2/conversations/messages/${messageId}/details`, {
        headers: { authorization: `Bearer ${bearer}` },
      });
      if (details.conversationId) return details.conversationId;
    } catch (refused) {
      if (refused.status !== 404 || tries === 20) throw refused;
    }
    assert.ok(tries < 20, "the message has no conversation");
    await pause(250);
  }
}

async function chat() {
  const guest = await Guest.connect();
  const session = await guest.configure();
  assert.equal(session.newSession, !taken, "whether the session is new");
  const before = taken ? (await guest.history()).length : 0;

  const first = await guest.say("Hello, I need help with order 1001", { routingTarget: setting("QUEUE_ID"), source: "interop" });
  assert.equal((await guest.history()).length, before + 1, "what the guest said is in the history");
  const conversationId = await conversationOf(first.id);

  const second = await guest.say("Are you there?");
  assert.equal(await conversationOf(second.id), conversationId, "both messages are in one conversation");
  await json(`${base}/_sim/agent`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ conversationId, say: "I am. What is wrong with it?" }),
  });
  const agent = await guest.next("the agent's answer", ({ class: kind, body }) => kind === "StructuredMessage" && body.direction === "Outbound" && body.type === "Text");
  assert.deepEqual([agent.text, agent.originatingEntity], ["I am. What is wrong with it?", "Human"]);

  // The connection is lost. The same token continues the same session.
  guest.socket.close(1000);
  const back = await Guest.connect();
  assert.equal((await back.configure()).newSession, false, "the same token is the same session");
  assert.equal((await back.history()).length, before + 3, "everything said is in the history");
  back.send("closeSession", { closeAllConnections: true });
  const closed = await back.next("the end", (frame) => frame.class === "SessionResponse");
  assert.equal(closed.connected, false, "the session's connections are closed");
  back.socket.close(1000);
  return { client: "ws", conversationId, messageId: first.id, agent: agent.text };
}

try {
  console.log(JSON.stringify(await chat()));
  process.exit(0);
} catch (refused) {
  console.error(refused.message);
  process.exit(1);
}

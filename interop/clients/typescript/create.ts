// Creates a session with a client whose types are generated from the service's OpenAPI document.

import createClient from 'openapi-fetch';
import type { components, paths } from './guestlane';

type Problem = components['schemas']['Problem'];

/** Creates and checks a session at `address` with the API key `key`. Returns the results. */
export async function check(address: string, key: string) {
  const guestlane = createClient<paths>({ baseUrl: address, headers: { Authorization: `Bearer ${key}` } });
  const wish = crypto.randomUUID();
  const guestId = `guest-${wish}`;
  const create = () =>
    guestlane.POST('/v1/sessions', {
      params: { header: { 'Idempotency-Key': wish } },
      body: { guestId, attributes: { source: 'web-portal' } },
    });

  const first = must(await create());
  const again = must(await create());
  agree(again.sessionId, first.sessionId, 'the session of the same key');

  const read = must(await guestlane.GET('/v1/sessions/{id}', { params: { path: { id: first.sessionId } } }));
  agree(read.conversationId, first.conversationId, 'its conversation');

  const page = must(await guestlane.GET('/v1/sessions', { params: { query: { guestId, state: 'open', limit: 10 } } }));
  agree(page.sessions.map((session) => session.sessionId).join(), first.sessionId, "the guest's sessions");

  const refused = await guestlane.POST('/v1/sessions', { body: { guestId, queueId: '5e0c0000-0000-4000-8000-0000000000ff' } });
  const problem: Problem = refused.error ?? stop('a queue that does not exist is taken');
  agree(problem.status, refused.response.status, "the problem's status");
  const stranger = await createClient<paths>({ baseUrl: address }).GET('/v1/sessions');
  agree(stranger.error?.code, 'unauthorized', 'without a key');

  return {
    created: first.sessionId,
    state: first.state,
    token: first.guestToken?.split('.').length === 3,
    replayed: again.replayed === true,
    read: read.state,
    listed: page.sessions.length,
    problem: problem.code,
    field: problem.field,
    fix: problem.fix,
  };
}

function must<Data>(answer: { data?: Data; error?: Problem; response: Response }): Data {
  return answer.data ?? stop(`${answer.response.status}: ${answer.error?.detail}; ${answer.error?.fix}`);
}

function agree(have: unknown, want: unknown, what: string) {
  if (have !== want) stop(`${what}: ${have} is not ${want}`);
}

function stop(why: string): never {
  throw new Error(why);
}

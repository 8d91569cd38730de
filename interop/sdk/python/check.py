"""Calls the simulator with Genesys' own SDK for Python (PyPI: PureCloudPlatformClientV2).

It checks the simulator's routes and bodies with an independent client.

    python check.py

One origin:  BASE_URL
By region:   REGION (mypurecloud.de), CA_FILE, PORT: login.REGION and api.REGION are on this machine,
             on PORT, with TLS
Both:        CLIENT_ID, CLIENT_SECRET, QUEUE_ID, EXTERNAL_SOURCE_ID, MESSAGE_ID (the first message of
             an open session)

Creates two contacts. Prints one line of JSON. On a mismatch, prints the reason on standard error and
exits with code 1.
"""

import json
import os
import sys
import uuid
from importlib.metadata import version
from urllib.parse import urlsplit

import PureCloudPlatformClientV2 as sdk
import urllib3.exceptions
import urllib3.util.connection
from PureCloudPlatformClientV2.rest import ApiException


def setting(name):
    return os.environ.get(name) or sys.exit(f"{name} is not set")


def agree(have, want, what):
    if have != want:
        sys.exit(f"{what}: {have!r} is not {want!r}")


def client():
    """Returns a client of the SDK that connects to the simulator."""
    sdk.configuration.live_reload_config = False
    if os.environ.get("REGION"):
        sdk.configuration.host = f"https://api.{setting('REGION')}"
        sdk.configuration.ssl_ca_cert = setting("CA_FILE")
        here = ("127.0.0.1", int(setting("PORT")))
        connect = urllib3.util.connection.create_connection
        # Connects to the simulator on this machine for every host name. The certificate must still
        # be valid for the name.
        urllib3.util.connection.create_connection = lambda _address, *rest, **named: connect(here, *rest, **named)
        return sdk.ApiClient()
    base = urlsplit(setting("BASE_URL"))
    one_origin = sdk.ApiClient()
    one_origin.set_gateway(base.hostname, base.scheme, base.port, None, None)
    return one_origin


def check():
    api = client().get_client_credentials_token(setting("CLIENT_ID"), setting("CLIENT_SECRET"))
    contacts, conversations, routing = sdk.ExternalContactsApi(api), sdk.ConversationsApi(api), sdk.RoutingApi(api)
    source = sdk.ExternalSource()
    source.id = setting("EXTERNAL_SOURCE_ID")

    def external_id(value):
        known = sdk.ExternalId()
        known.external_source, known.value = source, value
        return known

    def identifier(value):
        wanted = sdk.ContactIdentifier()
        wanted.type, wanted.value, wanted.external_source = "ExternalId", value, source
        return wanted

    def contact(value):
        ada = sdk.ExternalContact()
        ada.first_name, ada.last_name, ada.external_ids = "Ada", "Guest", [external_id(value)]
        ada.cell_phone = sdk.PhoneNumber()
        ada.cell_phone.display = "+31 20 555 0100"
        return ada

    def enrich(value):
        request = sdk.ContactEnrichRequest()
        request.matching_identifiers, request.action, request.contact = [identifier(value)], "Upsert", contact(value)
        answer = contacts.post_externalcontacts_contacts_enrich(request)
        return api.last_response.status, answer.id

    # A created contact is found by its external ID, on every repetition.
    value = f"sdk-{uuid.uuid4()}"
    made = contacts.post_externalcontacts_contacts(contact(value)).id
    agree(api.last_response.status, 200, "the status of a contact that is made")
    for time in ("first", "second"):
        agree(enrich(value), (200, made), f"what the {time} enrich finds")
    agree(contacts.post_externalcontacts_identifierlookup_contacts(identifier(value)).id, made, "the contact that is looked up")

    # The first enrich creates a contact that does not exist yet; later ones only find it.
    unknown = f"sdk-{uuid.uuid4()}"
    status, inserted = enrich(unknown)
    agree(status, 201, "the status of an enrich that makes a contact")
    agree(enrich(unknown), (200, inserted), "what the next enrich finds")
    agree(inserted != made, True, "two contacts are two")

    queue = routing.get_routing_queue(setting("QUEUE_ID"))
    agree(queue.id, setting("QUEUE_ID"), "the queue")
    try:
        routing.get_routing_queue(str(uuid.uuid4()))
        sys.exit("a queue that does not exist was found")
    except ApiException as refused:
        agree((refused.status, json.loads(refused.body)["code"]), (404, "not.found"), "a queue that does not exist")

    message = conversations.get_conversations_message_details(setting("MESSAGE_ID"))
    agree(message.id, setting("MESSAGE_ID"), "the message")
    conversation = conversations.get_conversation(message.conversation_id)
    agree(conversation.id, message.conversation_id, "the conversation of the message")
    guests = [each for each in conversation.participants if each.purpose in ("customer", "external")]
    agree([bool(guest.messages) for guest in guests], [True], "guests with a communication")

    return {
        "sdk": f"PureCloudPlatformClientV2 {version('PureCloudPlatformClientV2')}",
        "contactId": made,
        "enrichedContactId": inserted,
        "queue": queue.name,
        "conversationId": conversation.id,
        "communicationId": guests[0].messages[0].id,
    }


try:
    print(json.dumps(check()))
except ApiException as refused:
    sys.exit(f"the platform refused: {refused.status} {refused.body or refused.reason}")
except urllib3.exceptions.HTTPError as failed:
    sys.exit(str(failed))

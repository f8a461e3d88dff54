"""Places where people are: Slack, web chats, webhooks. Sends each message once, and hands on each event once.

Knows nothing of jobs: an organisation is a string, an owner is an opaque key. The app that owns the messages registers
itself once (`message_owner`): it learns what happened, and says whether a message may be sent now.

    messages           the shapes that cross this package's border, and the ways a send can fail
    message_owner      the Protocol through which the channels call the app that owns the messages
    directory          the places that an organisation can reach: installations, registered channels
    outbox             messages to send: written with the state that causes them
    send_loop          sends them: claims one, sends it once, records what came of it
    send_order         which message is next: fair between organisations, in order per thread, paced per channel
    send_results       writes the result of an attempt to send
    inbound            events of platforms: verified, stored once, routed once
    interactive_forms  forms that people open by a button and send back
    transcript         the lines of channels that live in our own database
    web_messages       reads and writes them, as a person
    platforms          one file per platform; Slack has files of its own for blocks, forms and events
    retention          deletes old rows
    rotation           seals secrets again with the newest key
    backlog            counts what is still to do
"""
